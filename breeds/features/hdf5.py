"""HDF5 files that may come from strangers: nothing in them is followed, nothing oversized is read."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from breeds import __version__
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.files import UnfitError, open_regular
from breeds.plainhdf5 import FAULTS_OF_THE_FILE, open_on, plain_dataset
from breeds.started import command
from breeds.text import as_bytes

# Bytes of an attribute, and of a store.
_MOST_IN_ATTRIBUTE, _MOST_IN_STORE = 2**24, 2**40

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# In superblocks of version 3, the first bit of this byte is set while a program has the file open to write.
_VERSION_AT, _OPEN_AT = 8, 11


class ForeignError(Exception):
    """A file is sound but not one of ours: the text says why."""


class DamagedError(Exception):
    """A file of ours does not hold what it should: the text says what is wrong."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open `path` for reading; whatever is wrong with it becomes one sentence.

    Only what this module's functions find wrong, also while the block runs, is taken for the file's
    fault: the block's own errors stay what they are.

    Raises
    ------
    BreedsError
        If the file is missing, cannot be read, is locked by another program, not made by Breeds, or
        damaged; the text tells these apart.
    """
    with _named(path), _opened(path) as raw:
        _check_start(raw)
        with _reading():
            file = open_on(raw)
        with file:
            yield file


@contextmanager
def open_bytes(path: Path, data: bytes) -> Iterator[h5py.File]:
    """Open the HDF5 file whose bytes, read from `path`, are `data`; errors are those of `open_hdf5`."""
    with _named(path):
        with _reading():
            file = h5py.File(io.BytesIO(data), "r")
        with file:
            yield file


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put what is wrong with a file in words that name it."""
    try:
        yield
    except _PassingError as error:
        raise BreedsError(f"{path} {error}") from None
    except ForeignError as error:
        raise BreedsError(f"{path} is not a feature store of Breeds: {error}; name another file.") from None
    except DamagedError as error:
        raise BreedsError(
            f"{path} is damaged ({error}); put back a copy, or move it aside "
            f"(`mv {shlex.quote(str(path))} {shlex.quote(f'{path}.damaged')}`) and run {command('extract')} "
            f"again, which takes what is in its journal and computes the rest."
        ) from None


def replaced(path: Path) -> BreedsError:
    """Return what is said of a file that is another than was opened."""
    return BreedsError(f"{path} was replaced while it was being read; run the command again.")


class _PassingError(Exception):
    """A file cannot be read just now, which says nothing about its bytes."""


def _opened(path: Path) -> io.BufferedReader:
    try:
        return open_regular(path, _MOST_IN_STORE)
    except FileNotFoundError:
        raise BreedsError(f"No such store: {path}; make it with {command('extract')}.") from None
    except UnfitError as error:
        raise ForeignError(error.strerror) from None
    except OSError as error:
        raise _PassingError(_cannot_be_read(error)) from None


def _check_start(file: io.BufferedReader) -> None:
    """Make sure that a file can be read, begins as HDF5 does, and is not just being written."""
    try:
        start = file.read(_OPEN_AT + 1) or b""  # None from a file of the system's
    except OSError as error:
        raise _PassingError(_cannot_be_read(error)) from None
    if not start.startswith(_SIGNATURE):
        raise ForeignError("it is not an HDF5 file")
    if len(start) > _OPEN_AT and start[_VERSION_AT] == 3 and start[_OPEN_AT] & 1:
        raise _PassingError(
            "is open in another program that may be writing it, or that program was killed; close it there "
            "and try again, or put back a copy; nothing was changed."
        )


@contextmanager
def _reading() -> Iterator[None]:
    """Tell apart what h5py raises while it reads: locked, cannot be read just now, or damaged."""
    try:
        yield
    except BlockingIOError:
        raise _PassingError(
            "is open in another program that may be writing it; close it there and try again; nothing was "
            "changed."
        ) from None
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        told = re.search(r"errno = (\d{1,5})\b", str(error))  # HDF5 may say it in its text alone
        number = getattr(error, "errno", None) or (int(told[1]) if told else 0)
        if number and number not in FAULTS_OF_THE_FILE:
            raise _PassingError(_cannot_be_read(OSError(number, os.strerror(number)))) from None
        raise DamagedError(" ".join(str(error).strip("'\"").split())[:200]) from None


def _cannot_be_read(error: OSError) -> str:
    return (
        f"cannot be read ({error.strerror or error}), which says nothing about what it holds; look to its "
        f"permissions and its disk and try again; nothing was changed."
    )


class _Sturdy(io.FileIO):
    """A file that takes no notice of a full disk but remembers it: HDF5 crashes on a failed write."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                done += super().write(view[done:])
        except OSError as error:
            self.failure = self.failure or error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0


@contextmanager
def write_hdf5(path: Path, mode: str = "w") -> Iterator[h5py.File]:
    """Create the HDF5 file `path`, with checksums on its own tables; by the mode "r+" change one, a copy.

    Raises
    ------
    OSError
        If it cannot be written, at the end of the block.
    """
    with _Sturdy(path, "w+" if mode == "w" else "r+") as raw:
        try:
            with h5py.File(raw, mode, libver=("v110", "v110")) as file:
                yield file
        except (OSError, RuntimeError):
            if raw.failure is None:
                raise
        if raw.failure is not None:
            raise raw.failure


@_reading()
def dataset(group: h5py.Group, name: str, rows: int | None = None, kind: str = "") -> h5py.Dataset:
    """Return a dataset that lives in the file of `group` itself and is no larger than the file allows.

    Raises
    ------
    DamagedError
        If it is missing, points elsewhere, is not plain (`breeds.plainhdf5.plain_dataset`), has not
        `rows` rows, or a dtype whose kind is not one of `kind`.
    """
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"no dataset {name}")
    found = plain_dataset(group[name], name)
    if kind and found.dtype.kind not in kind:
        raise ValueError(f"{name} holds {found.dtype}")
    if found.ndim == 0:
        raise ValueError(f"{name} is a single value")
    if rows is not None and found.shape[0] != rows:
        raise ValueError(f"{name} has {found.shape[0]} rows, not {rows}")
    return found


@_reading()
def subgroup(file: h5py.File, name: str) -> h5py.Group:
    """Return a group that lives in `file` itself, or raise DamagedError."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Group):
        raise ValueError(f"no group {name}")
    return file[name]


@_reading()
def read_block(source: h5py.Dataset, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Return the rows of `source` from `start` to before `stop`."""
    return np.asarray(source[start:stop])


def features_of(group: h5py.Group) -> h5py.Dataset:
    """Return the dataset ``features``, checked to be float32 of two dimensions."""
    found = dataset(group, "features")
    if found.dtype != np.float32 or found.ndim != 2:
        raise DamagedError("features is not float32 of two dimensions")
    return found


def write_provenance(file: h5py.File, config: FeatureConfig, engine: str) -> None:
    """Record the config, the engine and every version that had a part in the features."""
    write_attribute(file, "config", config.to_json())
    write_attribute(file, "config_sha256", config.digest)
    write_attribute(file, "engine", engine)
    write_attribute(file, "versions", json.dumps(versions()))


def write_attribute(file: h5py.File, name: str, text: str) -> None:
    """Record one fact about `file`."""
    data = as_bytes(text)
    file.attrs.create(name, data, dtype=h5py.string_dtype("utf-8", max(1, len(data))))


@_reading()
def has(file: h5py.File, name: str) -> bool:
    """Say whether `file` has a dataset or an attribute of this name."""
    return name in file or name in file.attrs


@_reading()
def read_attribute(file: h5py.File, name: str) -> str:
    """Return what `write_attribute` recorded, or raise DamagedError."""
    if name not in file.attrs:
        raise ValueError(f"no attribute {name}")
    found = file.attrs.get_id(name)
    if found.dtype.kind != "S" or found.shape != () or found.dtype.itemsize > _MOST_IN_ATTRIBUTE:
        raise ValueError(f"the attribute {name} is not a text")
    return os.fsdecode(file.attrs[name])


def read_config(file: h5py.File) -> FeatureConfig:
    """Return the config of the features in `file`, or raise DamagedError."""
    try:
        return FeatureConfig.from_json(read_attribute(file, "config"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"its config cannot be read: {error}") from None


def versions() -> dict[str, str]:
    """Return the versions of Breeds and of the packages that can change a number."""
    found = {"breeds": __version__}
    for package in (
        "keras",
        "tensorflow",
        "tensorflow-cpu",
        "openvino",
        "nncf",
        "numpy",
        "pillow",
        "h5py",
        "scikit-learn",
    ):
        if (of := _version(package)) is not None:
            found[package] = of
    return found


@cache
def _version(package: str) -> str | None:
    """Return a package's version; it is read from a file, which takes longer than to write a small shard."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
