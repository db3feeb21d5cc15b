"""Reading and writing HDF5 files that may come from strangers: nothing followed, nothing oversized."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shlex
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from breeds import __version__
from breeds.errors import BreedsError
from breeds.recipe import Recipe
from breeds.store.columns import PACKED, Keys, Rows
from breeds.text import as_bytes

# Rows of a chunk of features, and of a column; and rows that are compared at a time.
_BLOCK_ROWS, _COLUMN_ROWS, _BLOCK = 64, 1024, 65536


_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# What the system says where a file's own bytes are at fault, not the disk or the permissions.
_FAULTS_OF_THE_FILE = (errno.EINVAL, errno.EOVERFLOW)


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
    try:
        _check_signature(path)
        with _reading():
            file = h5py.File(path, "r")
    except FileNotFoundError:
        raise BreedsError(f"No such store: {path}; make it with extract_features.py.") from None
    except (_PassingError, ForeignError, DamagedError) as error:
        raise _in_words(path, error) from None
    with file:
        try:
            yield file
        except (_PassingError, ForeignError, DamagedError) as error:
            raise _in_words(path, error) from None


def _in_words(path: Path, error: Exception) -> BreedsError:
    if isinstance(error, _PassingError):
        return BreedsError(f"{path} {error}")
    if isinstance(error, ForeignError):
        return BreedsError(f"{path} is not a feature store of Breeds: {error}; name another file.")
    aside = f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.damaged')}"
    return BreedsError(
        f"{path} is damaged ({error}); put back a copy, or move it aside (`{aside}`) and run "
        f"extract_features.py again, which takes what the shards beside it hold and computes the rest."
    )


class _PassingError(Exception):
    """A file cannot be read just now, which says nothing about its bytes."""


def _check_signature(path: Path) -> None:
    """Make sure that `path` is a regular file that can be read and begins as HDF5 does."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ForeignError("it is not a regular file")
        with open(path, "rb") as file:
            start = file.read(len(_SIGNATURE))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _PassingError(_cannot_be_read(error)) from None
    if start != _SIGNATURE:
        raise ForeignError("it is not an HDF5 file")


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
        number = getattr(error, "errno", None) or _errno_in(str(error))
        if number and number not in _FAULTS_OF_THE_FILE:
            raise _PassingError(_cannot_be_read(OSError(number, os.strerror(number)))) from None
        raise DamagedError(" ".join(str(error).strip("'\"").split())[:200]) from None


def _errno_in(text: str) -> int:
    """Return the system's error number out of a message of HDF5, 0 if it has none."""
    found = re.search(r"errno = (\d{1,5})\b", text)
    return int(found[1]) if found else 0


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
def create_hdf5(path: Path) -> Iterator[h5py.File]:
    """Create the HDF5 file `path`, with checksums on its own tables.

    Raises
    ------
    OSError
        If it cannot be written, at the end of the block.
    """
    with _Sturdy(path, "w+") as raw:
        try:
            with h5py.File(raw, "w", libver=("v110", "v110")) as file:
                yield file
        except (OSError, RuntimeError):
            if raw.failure is None:
                raise
        if raw.failure is not None:
            raise raw.failure


@_reading()
def dataset(file: h5py.File, name: str, rows: int | None = None, kind: str = "") -> h5py.Dataset:
    """Return a dataset that lives in `file` itself and is no larger than the file allows.

    Raises
    ------
    DamagedError
        If it is missing, points elsewhere, claims more than is there, has not `rows` rows, or a dtype
        whose kind is not one of `kind`.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"no dataset {name}")
    found = file[name]
    # Text of variable length lies in heaps whose damage HDF5 does not survive.
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external or found.dtype.kind == "O":
        raise ValueError(f"{name} is not a plain dataset")
    if kind and found.dtype.kind not in kind:
        raise ValueError(f"{name} holds {found.dtype}")
    if found.nbytes > os.path.getsize(file.filename) or found.ndim == 0:
        raise ValueError(f"{name} claims more data than the file holds")
    if rows is not None and found.shape[0] != rows:
        raise ValueError(f"{name} has {found.shape[0]} rows, not {rows}")
    return found


@_reading()
def read_block(source: h5py.Dataset, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Return the rows of `source` from `start` to before `stop`."""
    return np.asarray(source[start:stop])


def read_numbers(file: h5py.File, name: str, rows: int) -> NDArray[np.int64]:
    """Return a column of whole numbers."""
    return read_block(dataset(file, name, rows, "i")).astype(np.int64, copy=False)


def read_text(file: h5py.File, name: str, rows: int | None = None) -> Iterator[bytes]:
    """Yield the texts of a column as UTF-8, a block of rows in memory at a time."""
    column = dataset(file, name, rows, "S")
    for start in range(0, len(column), _COLUMN_ROWS):
        yield from read_block(column, start, start + _COLUMN_ROWS).tolist()


def write_text(file: h5py.File | h5py.Group, name: str, values: Sequence[str]) -> None:
    """Write a column of text as UTF-8, padded to the longest, a block of rows in memory at a time."""
    longest = max((len(as_bytes(value)) for value in values), default=0) or 1
    dtype = h5py.string_dtype("utf-8", longest)
    checked = {"chunks": (min(len(values), _COLUMN_ROWS),), "fletcher32": True} if len(values) else {}
    column = file.create_dataset(name, shape=(len(values),), dtype=dtype, **checked)
    texts = map(as_bytes, values)
    for start in range(0, len(values), _COLUMN_ROWS):
        block = list(islice(texts, _COLUMN_ROWS))
        column[start : start + len(block)] = np.array(block, dtype=dtype)


def write_column(file: h5py.File, name: str, values: NDArray[Any]) -> None:
    """Write a column with a checksum on every block."""
    checked = {"chunks": (min(len(values), _COLUMN_ROWS),), "fletcher32": True} if len(values) else {}
    file.create_dataset(name, data=values, **checked)


def read_keys(file: h5py.File, name: str = "key", rows: int | None = None) -> Keys:
    """Return a column of keys, which the file holds as 64 hexadecimal digits each."""
    column = dataset(file, name, rows)
    if column.dtype != np.dtype("S64") or column.ndim != 1:
        raise DamagedError(f"{name} is not a column of SHA-256 digests")
    digits = read_block(column).tobytes()
    if digits.translate(None, b"0123456789abcdef"):
        raise DamagedError(f"{name} has values that are not SHA-256 digests")
    return Keys(np.frombuffer(bytes.fromhex(digits.decode()), dtype=PACKED))


def write_keys(file: h5py.File, keys: Keys, name: str = "key") -> None:
    """Write a column of keys as 64 hexadecimal digits each."""
    write_column(file, name, keys.hexadecimal())


def holds(file: h5py.File, keys: Keys, rows: Rows | None = None) -> bool:
    """Say whether these rows (all by default) of `file` are of these keys."""
    column = dataset(file, "key", kind="S")
    if rows is None:
        blocks = [(start, start + _BLOCK) for start in range(0, len(keys), _BLOCK)]
        return len(column) == len(keys) and all(
            np.array_equal(read_block(column, *block), keys[slice(*block)].hexadecimal()) for block in blocks
        )
    if rows.max(initial=-1) >= len(column):
        return False
    return np.array_equal(read_rows(column, rows), keys.hexadecimal())


def create_features(file: h5py.File, rows: int, width: int) -> h5py.Dataset:
    """Create the empty dataset ``features``, float32 (rows, width), with a checksum on every block."""
    chunks = (max(1, min(rows, _BLOCK_ROWS)), width)
    return file.create_dataset(
        "features", shape=(rows, width), dtype=np.float32, chunks=chunks, fletcher32=True
    )


def features(file: h5py.File) -> h5py.Dataset:
    """Return the dataset ``features``, checked to be float32 of two dimensions."""
    found = dataset(file, "features")
    if found.dtype != np.float32 or found.ndim != 2:
        raise DamagedError("features is not float32 of two dimensions")
    return found


def read_rows(source: h5py.Dataset, rows: Rows) -> NDArray[Any]:
    """Return the rows of `source` in the order asked for, repeated rows included."""
    unique, back = np.unique(rows, return_inverse=True)
    first, last = (int(unique[0]), int(unique[-1])) if len(unique) else (0, -1)
    # HDF5 picks single rows slowly: where they lie close together, all between them are read.
    if len(unique) * 4 >= last - first + 1:
        return read_block(source, first, last + 1)[unique - first][back]
    with _reading():
        return np.asarray(source[unique])[back]


def write_provenance(file: h5py.File, recipe: Recipe, engine: str) -> None:
    """Record the recipe, the engine and every version that had a part in the features."""
    write_attribute(file, "recipe", recipe.to_json())
    write_attribute(file, "recipe_sha256", recipe.digest)
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
    if found.dtype.kind != "S" or found.shape != ():
        raise ValueError(f"the attribute {name} is not a text")
    return os.fsdecode(file.attrs[name])


def read_recipe(file: h5py.File) -> Recipe:
    """Return the recipe of the features in `file`, or raise DamagedError."""
    try:
        return Recipe.from_json(read_attribute(file, "recipe"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"its recipe cannot be read: {error}") from None


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
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
