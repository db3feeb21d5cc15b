"""A store's file in HDF5: written aside and renamed, read a few rows at a time, compared with its SHA-256.

Columns have a SHA-256 each, features one for every few rows. What is there already is copied by the kernel.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from breeds.config import FeatureConfig, Network
from breeds.features import hdf5
from breeds.features.columns import PACKED, Keys, Names, Rows, Texts
from breeds.features.table import Table
from breeds.files import write_aside

if TYPE_CHECKING:
    from breeds.features.store import Store

#: What a store's file says that it is.
FORMAT = "breeds store 1"
#: Rows of features that have a digest together (128 kB of Xception's): any few are compared without the rest.
BLOCK_ROWS = 16
#: Rows of features that are compared, and written, at a time (2 MB of Xception's).
ROWS_AT_ONCE = 256
# Rows of a column's chunk, and of a column in memory at a time.
_CHUNK_ROWS, _COLUMN_ROWS = 1024, 65536
# Bytes of a chunk of text, unless a single text is longer.
_CHUNK_BYTES = 2**22


class Rowwise(Protocol):
    """Rows of numbers that may lie anywhere: slices of them are read."""

    def __getitem__(self, rows: slice, /) -> NDArray[np.float32]: ...


def write_store(
    path: Path,
    table: Table,
    config: FeatureConfig,
    features: Rowwise,
    engine: str,
    unused: tuple[Keys, Rowwise] | None = None,
    network: Network | None = None,
) -> None:
    """Write the store `path`, a few rows in memory at a time.

    Parameters
    ----------
    features
        Of each row of `table`: sliced, float32 (n, width).
    engine
        What computed them.
    unused
        Keys and features of photos that are not in the table.
    network
        The network of int8.

    Raises
    ------
    BreedsError
        If what is read is damaged, or `path` cannot be written.
    """
    with write_aside(path) as aside, hdf5.write_hdf5(aside) as file:
        hdf5.write_attribute(file, "format", FORMAT)
        if network is not None:
            for name in ("xml", "bin"):
                file.create_dataset(f"network/{name}", data=getattr(network, name))
        digests = {"block_sha256": write_features(file, len(table), features)}
        if unused is not None and len(unused[0]):
            keys, rows = unused
            group = file.create_group("unused")
            digests["unused/key"] = write_column(group, "key", key_blocks(keys), len(keys))
            digests["unused/block_sha256"] = write_features(group, len(keys), rows)
        _write_table(file, table, config, engine, len(unused[0]) if unused else 0, digests)


def extend_store(store: Store, table: Table, features: Rowwise, engine: str) -> None:
    """Write a store anew whose first rows are of the same photos: their features are copied as they are.

    Parameters
    ----------
    table
        As it shall be; labels, paths and all else may be others.
    features
        Of each row of `table`, of which only the last are read.

    Raises
    ------
    BreedsError
        If what is read is damaged, or the file cannot be written.
    """
    with store.opened() as file:
        known = read_digests(file, len(store), store.about["digests"]["block_sha256"])
    whole = len(store) // BLOCK_ROWS
    with write_aside(store.path) as aside:
        _copy(Path(os.path.realpath(store.path)), aside)
        with hdf5.write_hdf5(aside, "r+") as file:
            if hdf5.read_attribute(file, "sha256") != store.sha256:
                raise hdf5.replaced(store.path)
            digests = {name: digest for name, digest in store.about["digests"].items() if "/" in name}
            digests["block_sha256"] = write_features(
                file, len(table), features, whole * BLOCK_ROWS, known[: 32 * whole]
            )
            _write_table(file, table, store.config, engine, store.about["unused"], digests)


def _copy(source: Path, target: Path) -> None:
    """Copy a file's bytes into one that is there; where the file system can, they are shared."""
    with open(source, "rb") as old, open(target, "r+b") as new:
        rest = os.fstat(old.fileno()).st_size
        with suppress(OSError):  # not every file system can
            while rest and (copied := os.copy_file_range(old.fileno(), new.fileno(), rest)):
                rest -= copied
    if rest:
        shutil.copyfile(source, target)


def _write_table(
    file: h5py.File, table: Table, config: FeatureConfig, engine: str, unused: int, digests: dict[str, str]
) -> None:
    """Write all but the features, in place of what is there, and what binds everything."""
    hdf5.write_attribute(file, "created", time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    hdf5.write_provenance(file, config, engine)
    digests["key"] = write_column(file, "key", key_blocks(table.key), len(table))
    rejected = {
        "rejected_path": Texts.of(path for path, _ in table.rejected),
        "rejected_reason": Texts.of(reason for _, reason in table.rejected),
    }
    texts = {name: getattr(table, name) for name in ("path", "label", "split")} | rejected
    for name, values in texts.items():
        digests[name] = write_column(file, name, text_blocks(values), len(values))
    for name in ("size", "mtime_ns"):
        digests[name] = write_column(file, name, as_blocks(getattr(table, name)), len(table))
    about = {
        "rows": len(table),
        "unused": unused,
        "root": table.root,
        "weights_path": table.weights_path,
        "digests": digests,
    }
    text = json.dumps(about, sort_keys=True)
    hdf5.write_attribute(file, "about", text)
    hdf5.write_attribute(file, "sha256", identity(text, config))


def identity(about: str, config: FeatureConfig) -> str:
    """Return the SHA-256 over what a store says of itself, checksums of its parts included, and config."""
    return hashlib.sha256(f"{about} {config.to_json()}".encode()).hexdigest()


def read_column(column: h5py.Dataset, sha256: str) -> Iterator[NDArray[Any]]:
    """Yield a column a block of rows at a time; at its end all of it is compared with its SHA-256.

    Raises
    ------
    DamagedError
        If it does not match, or cannot be read.
    """
    total = hashlib.sha256()
    at_once = max(1, min(_COLUMN_ROWS, 16 * _CHUNK_BYTES // column.dtype.itemsize))
    for start in range(0, len(column), at_once):
        block = hdf5.read_block(column, start, start + at_once)
        total.update(np.ascontiguousarray(block).view(np.uint8).data)
        yield block
    if total.hexdigest() != sha256:
        raise hdf5.DamagedError(f"{column.name.strip('/')} does not match its checksum")


def write_column(group: h5py.Group, name: str, blocks: Iterable[NDArray[Any]], rows: int) -> str:
    """Write a column, which comes in blocks of rows, in place of what is there; return its SHA-256."""
    total, start, column = hashlib.sha256(), 0, None
    if name in group:
        del group[name]
    for block in blocks:
        if column is None:
            chunk = min(rows, _CHUNK_ROWS, max(1, _CHUNK_BYTES // block.dtype.itemsize))
            column = group.create_dataset(name, (rows,), block.dtype, chunks=(chunk,) if rows else None)
        column[start : start + len(block)] = block
        total.update(block.view(np.uint8).data)
        start += len(block)
    return total.hexdigest()


def as_blocks(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield an array a block of rows at a time, of none too, as `write_column` takes them."""
    return (values[start : start + _COLUMN_ROWS] for start in range(0, len(values) or 1, _COLUMN_ROWS))


def text_blocks(values: Texts | Names) -> Iterator[NDArray[Any]]:
    """Yield texts as UTF-8, padded to the longest, a block of rows in memory at a time."""
    for block in values.padded(4 * _CHUNK_BYTES):
        yield block.view(h5py.string_dtype("utf-8", block.shape[1]))[:, 0]


def read_keys(blocks: Iterable[NDArray[Any]]) -> Keys:
    """Return a column of keys, which a file holds as 64 hexadecimal digits each."""
    packed = bytearray()
    for block in blocks:
        digits = block.tobytes()
        if block.dtype != np.dtype("S64") or digits.translate(None, b"0123456789abcdef"):
            raise hdf5.DamagedError("it has keys that are not SHA-256 digests")
        packed += bytes.fromhex(digits.decode())
    return Keys(np.frombuffer(packed, dtype=PACKED))


def key_blocks(keys: Keys) -> Iterator[NDArray[Any]]:
    """Yield keys as files hold them."""
    return as_blocks(keys.hexadecimal())


def write_features(
    group: h5py.Group, rows: int, features: Rowwise, start: int = 0, known: bytes = b""
) -> str:
    """Write ``features``, a few rows in memory at a time, and ``block_sha256``; return the SHA-256 of that.

    Parameters
    ----------
    rows
        How many there are.
    features
        Sliced, it gives float32 (n, width).
    start, known
        The first row to write where those before are there already, a multiple of `BLOCK_ROWS`, and the
        digests of those.
    """
    digests, target = bytearray(known), None
    for first in range(start, rows, ROWS_AT_ONCE):
        block = np.ascontiguousarray(features[first : min(first + ROWS_AT_ONCE, rows)], dtype=np.float32)
        if target is None:
            target = _sized(group, rows, block.shape[1])
        target[first : first + len(block)] = block
        for row in range(0, len(block), BLOCK_ROWS):
            digests += hashlib.sha256(block[row : row + BLOCK_ROWS].data).digest()
    write_column(group, "block_sha256", as_blocks(np.frombuffer(digests, dtype=np.uint8)), len(digests))
    return hashlib.sha256(digests).hexdigest()


def _sized(group: h5py.Group, rows: int, width: int) -> h5py.Dataset:
    if "features" not in group:
        how = {"maxshape": (None, width), "chunks": (BLOCK_ROWS, width), "dtype": np.float32}
        return group.create_dataset("features", shape=(rows, width), **how)
    group["features"].resize(rows, axis=0)
    return group["features"]


def read_digests(group: h5py.Group, rows: int, sha256: str) -> bytes:
    """Return the SHA-256 of every `BLOCK_ROWS` rows of features, 32 bytes each, compared with theirs."""
    column = hdf5.dataset(group, "block_sha256", -(-rows // BLOCK_ROWS) * 32, "u")
    return b"".join(block.tobytes() for block in read_column(column, sha256))


def checked(
    group: h5py.Group, sha256: str, rows: Rows | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield features a few rows at a time, with the first one's row, each block compared with its digest.

    Parameters
    ----------
    sha256
        What `write_features` returned.
    rows
        Which rows are asked for, sorted; only their blocks are read. None for all.

    Raises
    ------
    DamagedError
        If they do not match, or cannot be read.
    """
    source = hdf5.features_of(group)
    known = read_digests(group, len(source), sha256)
    blocks = np.arange(-(-len(source) // BLOCK_ROWS)) if rows is None else np.unique(rows // BLOCK_ROWS)
    most = ROWS_AT_ONCE // BLOCK_ROWS
    for run in np.split(blocks, np.flatnonzero(np.diff(blocks) != 1) + 1):
        for part in (run[start : start + most] for start in range(0, len(run), most)):
            first = int(part[0]) * BLOCK_ROWS
            found = hdf5.read_block(source, first, (int(part[-1]) + 1) * BLOCK_ROWS)
            for number, row in zip(part, range(0, len(found), BLOCK_ROWS), strict=True):
                digest = hashlib.sha256(np.ascontiguousarray(found[row : row + BLOCK_ROWS]).data).digest()
                if digest != known[32 * number : 32 * number + 32]:
                    raise hdf5.DamagedError("the features do not match their checksum")
            yield first, found


def gather(group: h5py.Group, sha256: str, rows: Rows | None = None) -> NDArray[np.float32]:
    """Return features that were compared with their checksum, float32 (n, width), as `checked`.

    Parameters
    ----------
    rows
        Which rows, in any order, repeats included; None for all.
    """
    source = hdf5.features_of(group)
    if rows is None:
        rows = np.arange(len(source))
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    if len(rows) and not 0 <= ordered[0] <= ordered[-1] < len(source):
        raise hdf5.DamagedError("it has fewer features than are counted on")
    found = np.empty((len(rows), source.shape[1]), dtype=np.float32)
    for start, block in checked(group, sha256, ordered):
        first, last = np.searchsorted(ordered, (start, start + len(block)))
        found[order[first:last]] = block[ordered[first:last] - start]
    return found
