"""Reading and writing HDF5 files that may come from strangers: nothing followed, nothing oversized."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from breeds import __version__
from breeds.backbone import Recipe
from breeds.errors import BreedsError

_TEXT = h5py.string_dtype("utf-8")
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
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
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
    """Write a column of text as variable-length UTF-8."""
    encoded = np.array([os.fsencode(value) for value in values], dtype=object)
    file.create_dataset(name, data=encoded, dtype=_TEXT)


def read_keys(file: h5py.File, rows: int | None = None) -> list[str]:
    """Return the column of keys, 64 hexadecimal digits each."""
    column = dataset(file, "key", rows)
    if column.dtype != np.dtype("S64"):
        raise ValueError("key is not a column of SHA-256 digests")
    return [key.decode("ascii") for key in column[:].tolist()]


def write_keys(file: h5py.File, keys: Sequence[str]) -> None:
    """Write the column of keys."""
    file.create_dataset("key", data=np.array(keys, dtype="S64"), dtype="S64")


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
    file.attrs["recipe"] = recipe.to_json()
    file.attrs["recipe_sha256"] = recipe.digest
    file.attrs["engine"] = engine
    file.attrs["versions"] = json.dumps(versions())


def read_recipe(file: h5py.File) -> Recipe:
    """Return the recipe of the features in `file`, or raise ValueError."""
    return Recipe.from_json(str(file.attrs["recipe"]))


def versions() -> dict[str, str]:
    """Return the versions of Breeds and of the packages that can change a number."""
    found = {"breeds": __version__}
    for package in ("keras", "tensorflow", "numpy", "pillow", "h5py", "scikit-learn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
