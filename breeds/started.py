"""How Breeds was started here: what to type for its commands, and how to install what is missing.

The same functions stand behind the scripts of the repository (``python train_head.py``), the command
that installation gives (``breeds train``), and other programs that import Breeds; whoever is told what to run
next is told it as they began. A command has its process to itself; in another program's, nothing is said and
nothing of the process is changed.
"""

from __future__ import annotations

import os.path
import shlex
import sys

from breeds.errors import BreedsError

#: The scripts of the repository, by the commands of ``breeds`` that they stand for.
SCRIPTS = {
    "extract": "extract_features.py",
    "train": "train_head.py",
    "evaluate": "evaluate.py",
    "predict": "predict.py",
}
# Packages that an extra of Breeds installs.
_EXTRAS = {
    "tensorflow": ("tensorflow", "keras"),
    "onnx": ("onnx", "onnxruntime"),
    "parquet": ("pyarrow",),
    "cloud": ("fsspec", "s3fs", "aiohttp"),
    "ray": ("ray",),
    "app": ("fastapi", "starlette", "pydantic", "uvicorn", "python_multipart"),
}
# Extras that no target of make installs for users: few have a cluster, or photos in a bucket.
_BY_PIP = ("cloud", "ray")

_commanded = False


def begin() -> None:
    """Say that this process is one of Breeds's own, as it runs a command."""
    global _commanded
    _commanded = True


def commanded() -> bool:
    """Say whether this process is one of Breeds's own, and not another program that imports it."""
    return _commanded


def _begun_with() -> str:
    path = (sys.argv or [""])[0]
    if not commanded() or os.path.basename(path) == "breeds":
        return "breeds"
    return "python -m breeds" if path.endswith(os.path.join("breeds", "__main__.py")) else "python"


def as_breeds() -> bool:
    """Say whether Breeds is known here by its name: as a command or a library, and not by its scripts."""
    return _begun_with() != "python"


def command(name: str) -> str:
    """Return what to type for a command of ``breeds``, as this process was started.

    Examples
    --------
    >>> command("train")
    'breeds train'
    """
    if as_breeds():
        return f"{_begun_with()} {name}"
    return f"python {SCRIPTS[name]}" if name in SCRIPTS else f"python -m breeds {name}"


def arguments_of(name: str) -> list[str]:
    """Return with what arguments Python runs a command as this process was started."""
    how = {"breeds": [sys.argv[0], name], "python -m breeds": ["-m", "breeds", name]}
    return how.get(_begun_with()) or [SCRIPTS[name]]


def missing(package: str) -> str:
    """Return the sentence that says of a package that it is not installed, and how to install it."""
    package = package.split(".")[0]
    if package == "fcntl":
        return "Breeds runs on Linux and macOS, not on Windows, which lacks fcntl; run it in WSL."
    extra = next((extra for extra, packages in _EXTRAS.items() if package in packages), None)
    pip = f"{shlex.quote(sys.executable)} -m pip install"
    if as_breeds():
        how = "install Breeds again" if extra is None else f"run `{pip} 'breeds[{extra}]'`"
    elif extra in _BY_PIP:
        repository = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        how = f"run `{pip} -e {shlex.quote(f'{repository}[{extra}]')}`"
    else:
        target = "app" if extra == "app" else "setup"
        how = f"run `make {target}`, then `source .venv/bin/activate`"
    return f"The package {package} is not installed; {how}."


def need(*packages: str) -> None:
    """Make sure that packages are installed, without importing them.

    Raises
    ------
    BreedsError
        If one is not; the text says how to install it.
    """
    from importlib.util import find_spec

    for package in packages:
        if find_spec(package) is None:
            raise BreedsError(missing(package))
