"""Reading and writing HDF5 files that may come from strangers: nothing followed, nothing oversized."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from breeds import __version__
from breeds.errors import BreedsError
from breeds.recipe import Recipe

_BLOCK_ROWS = 64


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open `path` for reading; whatever is wrong with it becomes one sentence.

    Raises
    ------
    BreedsError
        If it is missing, not HDF5, not made by Breeds, or damaged (also while the block reads it).
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError:
        raise BreedsError(f"No such store: {path}; make it with extract_features.py.") from None
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        if not path.is_file() or not h5py.is_hdf5(path):
            raise BreedsError(f"{path} is not a feature store: it is not an HDF5 file.") from None
        reason = " ".join(str(error).strip("'\"").split())[:200]
        raise BreedsError(
            f"{path} is not a feature store of Breeds, or is damaged ({reason}); "
            f"delete it and run extract_features.py again."
        ) from None


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


def dataset(file: h5py.File, name: str, rows: int | None = None) -> h5py.Dataset:
    """Return a dataset that lives in `file` itself and is no larger than the file allows.

    Raises
    ------
    ValueError
        If it is missing, points elsewhere, claims more than is there, or has not `rows` rows.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"no dataset {name}")
    found = file[name]
    # Text of variable length lies in heaps whose damage HDF5 does not survive.
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external or found.dtype.kind == "O":
        raise ValueError(f"{name} is not a plain dataset")
    if found.nbytes > os.path.getsize(file.filename) or found.ndim == 0:
        raise ValueError(f"{name} claims more data than the file holds")
    if rows is not None and found.shape[0] != rows:
        raise ValueError(f"{name} has {found.shape[0]} rows, not {rows}")
    return found


def read_text(file: h5py.File, name: str, rows: int | None = None) -> list[str]:
    """Return a column of text; bytes that are no UTF-8, as in odd file names, come back as Python's."""
    return [os.fsdecode(value) for value in dataset(file, name, rows)[:]]


def write_text(file: h5py.File | h5py.Group, name: str, values: Sequence[str]) -> None:
    """Write a column of text as UTF-8, padded to the longest."""
    encoded = [os.fsencode(value) for value in values]
    dtype = h5py.string_dtype("utf-8", max(map(len, encoded), default=0) or 1)
    write_column(file, name, np.array(encoded, dtype=dtype))


def write_column(file: h5py.File, name: str, values: NDArray[Any]) -> None:
    """Write a column with a checksum on every block."""
    checked = {"chunks": (min(len(values), 1024),), "fletcher32": True} if len(values) else {}
    file.create_dataset(name, data=values, **checked)


def read_keys(file: h5py.File, rows: int | None = None) -> list[str]:
    """Return the column of keys, 64 hexadecimal digits each."""
    column = dataset(file, "key", rows)
    if column.dtype != np.dtype("S64"):
        raise ValueError("key is not a column of SHA-256 digests")
    keys = [key.decode("ascii") for key in column[:].tolist()]
    if not all(re.fullmatch("[0-9a-f]{64}", key) for key in keys):
        raise ValueError("key has values that are not SHA-256 digests")
    return keys


def write_keys(file: h5py.File, keys: Sequence[str]) -> None:
    """Write the column of keys."""
    write_column(file, "key", np.array(keys, dtype="S64"))


def holds(file: h5py.File, keys: Sequence[str], rows: NDArray[np.intp] | None = None) -> bool:
    """Say whether these rows (all by default) of `file` are of these keys."""
    column = dataset(file, "key")[:]
    if rows is not None:
        column = column[rows] if rows.max(initial=-1) < len(column) else column[:0]
    return np.array_equal(column, np.array(keys, dtype="S64"))


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
        raise ValueError("features is not float32 of two dimensions")
    return found


def read_rows(source: h5py.Dataset, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the rows of `source` in the order asked for, repeated rows included."""
    unique, back = np.unique(rows, return_inverse=True)
    if len(unique) == unique[-1] - unique[0] + 1:
        block = source[unique[0] : unique[-1] + 1]
    elif len(unique) * 4 > len(source):
        block = source[:][unique]
    else:
        block = source[unique]
    return np.asarray(block[back], dtype=np.float32)


def write_provenance(file: h5py.File, recipe: Recipe, engine: str) -> None:
    """Record the recipe, the engine and every version that had a part in the features."""
    write_attribute(file, "recipe", recipe.to_json())
    write_attribute(file, "recipe_sha256", recipe.digest)
    write_attribute(file, "engine", engine)
    write_attribute(file, "versions", json.dumps(versions()))


def write_attribute(file: h5py.File, name: str, text: str) -> None:
    """Record one fact about `file`."""
    data = os.fsencode(text)
    file.attrs.create(name, data, dtype=h5py.string_dtype("utf-8", max(1, len(data))))


def read_attribute(file: h5py.File, name: str) -> str:
    """Return what `write_attribute` recorded, or raise ValueError."""
    if name not in file.attrs:
        raise ValueError(f"no attribute {name}")
    found = file.attrs.get_id(name)
    if found.dtype.kind != "S" or found.shape != ():
        raise ValueError(f"the attribute {name} is not a text")
    return os.fsdecode(file.attrs[name])


def read_recipe(file: h5py.File) -> Recipe:
    """Return the recipe of the features in `file`, or raise ValueError."""
    return Recipe.from_json(read_attribute(file, "recipe"))


def versions() -> dict[str, str]:
    """Return the versions of Breeds and of the packages that can change a number."""
    found = {"breeds": __version__}
    for package in (
        "keras",
        "tensorflow",
        "tensorflow-cpu",
        "openvino",
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
