"""Reading and writing HDF5 files that may come from strangers: nothing followed, nothing oversized."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from breeds import __version__
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.features.columns import PACKED, Keys, Rows
from breeds.files import UnfitError, open_regular
from breeds.plainhdf5 import FAULTS_OF_THE_FILE, open_on, plain_dataset
from breeds.started import command
from breeds.text import as_bytes

# Rows of a column's chunk; of features in memory at a time (2 MB of Xception's), and of keys and texts.
_COLUMN_ROWS, FEATURE_ROWS, _BLOCK = 1024, 256, 65536
#: Rows of features that have a digest together (128 kB of Xception's): any few are compared without the rest.
BLOCK_ROWS = 16
# Bytes of a chunk of text, unless a single text is longer; and of an attribute; and of a store.
_CHUNK_BYTES, _MOST_IN_ATTRIBUTE, _MOST_IN_STORE = 2**22, 2**20, 2**40

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# In superblocks of version 3, the first bit of this byte is set while a program has the file open to write.
_VERSION_AT, _OPEN_AT = 8, 11


class ForeignError(Exception):
    """A file is sound but not one of ours: the text says why."""


class DamagedError(Exception):
    """A file of ours does not hold what it should: the text says what is wrong."""


class Checked(NamedTuple):
    """Features that match their checksum, as they are kept, (n, width), and the row of the first."""

    start: int
    features: NDArray[np.floating[Any]]


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
    except (_PassingError, ForeignError, DamagedError) as error:
        raise _in_words(path, error) from None


def damaged(path: Path, what: str) -> BreedsError:
    """Return what is said of a file that is damaged."""
    return _in_words(path, DamagedError(what))


def _in_words(path: Path, error: Exception) -> BreedsError:
    if isinstance(error, _PassingError):
        return BreedsError(f"{path} {error}")
    if isinstance(error, ForeignError):
        return BreedsError(f"{path} is not a feature store of Breeds: {error}; name another file.")
    aside = f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.damaged')}"
    return BreedsError(
        f"{path} is damaged ({error}); put back a copy, or move it aside (`{aside}`) and run "
        f"{command('extract')} again, which takes what the shards beside it hold and computes the rest."
    )


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
        number = getattr(error, "errno", None) or _errno_in(str(error))
        if number and number not in FAULTS_OF_THE_FILE:
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
        If it is missing, points elsewhere, is not plain (`breeds.plainhdf5.plain_dataset`), has not
        `rows` rows, or a dtype whose kind is not one of `kind`.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"no dataset {name}")
    found = plain_dataset(file[name], name)
    if kind and found.dtype.kind not in kind:
        raise ValueError(f"{name} holds {found.dtype}")
    if found.ndim == 0:
        raise ValueError(f"{name} is a single value")
    if rows is not None and found.shape[0] != rows:
        raise ValueError(f"{name} has {found.shape[0]} rows, not {rows}")
    return found


@_reading()
def read_block(source: h5py.Dataset, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Return the rows of `source` from `start` to before `stop`."""
    return np.asarray(source[start:stop])


def read_numbers(file: h5py.File, name: str, rows: int | None = None) -> NDArray[np.int64]:
    """Return a column of whole numbers."""
    return read_block(dataset(file, name, rows, "i")).astype(np.int64, copy=False)


def read_text(file: h5py.File, name: str, rows: int | None = None) -> Iterator[NDArray[np.bytes_]]:
    """Yield the texts of a column as UTF-8, padded to one length, a block of rows at a time."""
    column = dataset(file, name, rows, "S")
    at_once = max(1, min(_BLOCK, _CHUNK_BYTES // column.dtype.itemsize))
    for start in range(0, len(column), at_once):
        yield read_block(column, start, start + at_once)


def write_text(file: h5py.File | h5py.Group, name: str, values: Sequence[str]) -> None:
    """Write a column of text as UTF-8, padded to the longest, a block of rows in memory at a time."""
    longest = max((len(as_bytes(value)) for value in values), default=0) or 1
    dtype = h5py.string_dtype("utf-8", longest)
    rows = min(len(values), _COLUMN_ROWS, max(1, _CHUNK_BYTES // longest))
    checked = {"chunks": (rows,), "fletcher32": True} if len(values) else {}
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
    packed = bytearray()
    for start in range(0, len(column), _BLOCK):  # a file may claim any number of empty ones
        digits = read_block(column, start, start + _BLOCK).tobytes()
        if digits.translate(None, b"0123456789abcdef"):
            raise DamagedError(f"{name} has values that are not SHA-256 digests")
        packed += bytes.fromhex(digits.decode())
    return Keys(np.frombuffer(packed, dtype=PACKED))


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
    """Create the empty dataset ``features``, (rows, width), with a checksum on every block."""
    chunks = (max(1, min(rows, BLOCK_ROWS)), width)
    return file.create_dataset(
        "features", shape=(rows, width), dtype=np.float32, chunks=chunks, fletcher32=True
    )


def features(file: h5py.File) -> h5py.Dataset:
    """Return the dataset ``features``, checked to be float32 of two dimensions."""
    found = dataset(file, "features")
    if found.dtype != np.float32 or found.ndim != 2:
        raise DamagedError("features is not float32 of two dimensions")
    return found


def block_digests(rows: NDArray[np.floating[Any]]) -> bytes:
    """Return the SHA-256 of every `BLOCK_ROWS` rows of features, 32 bytes each, end to end.

    Parameters
    ----------
    rows
        As they are kept, (n, width), from the first row of a block on.
    """
    return b"".join(
        hashlib.sha256(np.ascontiguousarray(rows[start : start + BLOCK_ROWS]).data).digest()
        for start in range(0, len(rows), BLOCK_ROWS)
    )


def write_digests(file: h5py.File, digests: bytes) -> str:
    """Write what `block_digests` says of all features of `file`; return the SHA-256 of that."""
    write_column(file, "block_sha256", np.frombuffer(digests, dtype=np.uint8))
    return hashlib.sha256(digests).hexdigest()


def read_checked(file: h5py.File, features_sha256: str, rows: Rows | None = None) -> Iterator[Checked]:
    """Yield features a few rows at a time, each block compared with its digest first.

    Parameters
    ----------
    features_sha256
        What `write_digests` returned.
    rows
        Which rows are asked for, sorted; only their blocks are read. None for all.

    Raises
    ------
    DamagedError
        If they do not match, or cannot be read.
    """
    source = features(file)
    blocks = -(-len(source) // BLOCK_ROWS)
    known = read_block(dataset(file, "block_sha256", blocks * 32, "u")).tobytes()
    if hashlib.sha256(known).hexdigest() != features_sha256:
        raise DamagedError("the checksums of the features do not match theirs")
    wanted = np.arange(blocks) if rows is None else np.unique(rows // BLOCK_ROWS)
    most = FEATURE_ROWS // BLOCK_ROWS
    breaks = np.flatnonzero(np.diff(wanted) != 1) + 1
    for run in np.split(wanted, breaks):
        for part in (run[start : start + most] for start in range(0, len(run), most)):
            first, last = int(part[0]), int(part[-1]) + 1
            found = read_block(source, first * BLOCK_ROWS, last * BLOCK_ROWS)
            if block_digests(found) != known[first * 32 : last * 32]:
                raise DamagedError("the features do not match their checksum")
            yield Checked(first * BLOCK_ROWS, found)


def gather(file: h5py.File, features_sha256: str, rows: Rows | None = None) -> NDArray[np.float32]:
    """Return features that were compared with their checksum, float32 (n, width), as `read_checked`.

    Parameters
    ----------
    rows
        Which rows, in any order, repeats included; None for all.
    """
    source = features(file)
    if rows is None:
        rows = np.arange(len(source))
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    if len(rows) and not 0 <= ordered[0] <= ordered[-1] < len(source):
        raise DamagedError("it has fewer features than are counted on")
    found = np.empty((len(rows), source.shape[1]), dtype=np.float32)
    for start, block in read_checked(file, features_sha256, ordered):
        first, last = np.searchsorted(ordered, (start, start + len(block)))
        found[order[first:last]] = block[ordered[first:last] - start]
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


def is_store_of(file: h5py.File, config: FeatureConfig, features_sha256: str) -> bool:
    """Say whether `file` is a store of this config and of features with this checksum."""
    if not has(file, "features_sha256") or read_attribute(file, "features_sha256") != features_sha256:
        return False
    return read_config(file).digest == config.digest


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
