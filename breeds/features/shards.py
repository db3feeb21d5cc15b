"""Shards: the small immutable HDF5 files in which extraction commits its features.

A shard's name ends in the SHA-256 of its bytes, so it carries its own checksum; it is written
aside, fsynced and renamed, and never opened for writing again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.features import hdf5
from breeds.features.columns import Keys, Rows, by_value, first_of_each, locate
from breeds.files import UnfitError, commit, open_regular, temporary_beside

#: A killed run loses at most this many photos' features, and those that are under way in the engine,
SHARD_ROWS = 128
#: and no more than it computed in so many seconds.
SHARD_SECONDS = 10
_MOST_IN_SHARD = 2**26
Numbers = NDArray[np.int32]
_NAME = re.compile(r"(\d{6})-([0-9a-f]{64})\.h5")


def shard_folder(store: Path) -> Path:
    """Return the folder that holds a store's shards: beside the file itself where `store` is a link."""
    store = _itself(store)
    return store.parent / f"{store.stem}.shards"


def lock_file(store: Path) -> Path:
    """Return the file to hold while `store` is written, the same by whatever link it is reached."""
    store = _itself(store)
    return store.parent / f".{store.stem}.lock"


def _itself(store: Path) -> Path:
    return Path(os.path.realpath(store)) if store.is_symlink() else store


def list_shards(folder: Path) -> list[Path]:
    """Return the committed shards of `folder`, oldest first."""
    return sorted(path for path in folder.glob("*.h5") if _NAME.fullmatch(path.name))


def read_shard(shard: Path) -> bytes | None:
    """Return a shard's bytes if they match the checksum in its name, None if not.

    Raises
    ------
    OSError
        If they cannot be read, or another program has the shard open to write, which says nothing about them.
    """
    match = _NAME.fullmatch(shard.name)
    try:
        with open_regular(shard, _MOST_IN_SHARD) as file:
            data = file.read(_MOST_IN_SHARD + 1) or b""  # None from a file of the system's
            if match is not None and hashlib.sha256(data).hexdigest() == match[2]:
                return data
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except UnfitError:  # a shard is a small regular file
        pass
    except BlockingIOError:  # HDF5 writes into a file that is open to write, and locks it
        raise OSError(errno.EBUSY, "it is open in another program") from None
    return None


@dataclass(frozen=True)
class _Block:
    """Sorted packed keys, each with the number of its file and its row there."""

    keys: NDArray[np.bytes_]
    file: Numbers
    row: Numbers

    @staticmethod
    def of(keys: NDArray[np.bytes_], file: Numbers, row: Numbers) -> _Block:
        """Sort, keeping the first of equal keys."""
        first = first_of_each(keys)
        return _Block(keys[first], file[first], row[first])

    def and_then(self, later: _Block) -> _Block:
        """Return both in one; where both have a key, this one's place stays."""
        return _Block.of(
            np.concatenate([self.keys, later.keys]),
            np.concatenate([self.file, later.file]),
            np.concatenate([self.row, later.row]),
        )


class Source(NamedTuple):
    """A file of features.

    Attributes
    ----------
    path
        The file.
    features_sha256
        What `hdf5.write_digests` said of them; "" for a shard that is older than that.
    is_store
        Whether it is a store; else it is a shard.
    """

    path: Path
    features_sha256: str
    is_store: bool = False


def read_source(
    source: Source, rows: Rows, config: FeatureConfig, keys: Keys | None = None
) -> NDArray[np.float32]:
    """Return features out of a file if it is still what was counted in, float32 (len(rows), width).

    Parameters
    ----------
    config
        Theirs.
    keys
        Those of the rows, if what they are of is to be compared too.

    Raises
    ------
    BreedsError
        If the file is another by now, or damaged.
    """
    if source.is_store or source.features_sha256:
        with hdf5.open_hdf5(source.path) as file:
            if source.is_store and not hdf5.is_store_of(file, config, source.features_sha256):
                raise replaced(source.path)
            return _rows_of(file, source, rows, keys)
    try:
        data = read_shard(source.path)
    except OSError:
        data = None
    if data is None:
        raise replaced(source.path)
    with hdf5.open_bytes(source.path, data) as file:
        return _rows_of(file, source, rows, keys)


def _rows_of(file: h5py.File, source: Source, rows: Rows, keys: Keys | None) -> NDArray[np.float32]:
    if keys is not None and not hdf5.holds(file, keys, rows):
        raise replaced(source.path)
    if hdf5.has(file, "block_sha256") and source.features_sha256:
        return hdf5.gather(file, source.features_sha256, rows)
    return np.asarray(hdf5.read_rows(hdf5.features(file), rows), dtype=np.float32)


class FeatureIndex:
    """Where the feature of each key is: in which file, in which row; 40 bytes a photo.

    All files hold features of one config. Damaged shards are renamed to ``*.damaged`` and listed
    in `damaged`: their photos count as not extracted. What is read is what was counted in: a shard's bytes
    are checked against its name each time, and a store against its config and checksum.

    Parameters
    ----------
    config
        The config that every file must have.
    """

    def __init__(self, config: FeatureConfig) -> None:
        self.config = config
        self.damaged: list[Path] = []
        self._files: list[Source] = []
        # Each block at least twice the next: few to look through, and no key is sorted often.
        self._blocks: list[_Block] = []

    def __contains__(self, key: str) -> bool:
        return not self.lacks(Keys.of([key]))[0]

    def lacks(self, keys: Keys) -> NDArray[np.bool_]:
        """Say of each key whether no file has its feature, bool (n,)."""
        return self._find(keys)[0] < 0

    def _find(self, keys: Keys) -> tuple[Numbers, Numbers]:
        """Return the number of each key's file, -1 where there is none, and its row."""
        file, row = (np.full(len(keys), -1, dtype=np.int32) for _ in range(2))
        for block in reversed(self._blocks):  # the oldest have the last word
            at = locate(block.keys, keys.packed)
            there = at >= 0
            file[there], row[there] = block.file[at[there]], block.row[at[there]]
        return file, row

    def add_file(self, path: Path, keys: Sequence[str], features_sha256: str) -> None:
        """Count in the features of a store whose row i is of ``keys[i]``; what is known stays."""
        self._add(Source(path, features_sha256, is_store=True), Keys.of(keys))

    def add_shard(self, shard: Source, keys: Keys) -> None:
        """Count in the features of a shard whose row i is of ``keys[i]``; what is known stays."""
        self._add(shard, keys)

    def _add(self, source: Source, keys: Keys) -> None:
        file = np.full(len(keys), len(self._files), dtype=np.int32)
        block = _Block.of(keys.packed, file, np.arange(len(keys), dtype=np.int32))
        self._files.append(source)
        while self._blocks and len(self._blocks[-1].keys) < 2 * len(block.keys):
            block = self._blocks.pop().and_then(block)
        self._blocks.append(block)

    def add_shards(self, folder: Path) -> None:
        """Count in every intact shard of `folder`.

        Raises
        ------
        BreedsError
            If a shard is of another config, or cannot be read just now.
        """
        for shard in list_shards(folder):
            try:
                data = read_shard(shard)
            except OSError as error:
                raise BreedsError(
                    f"Cannot read {shard}: {error.strerror or error}; nothing was changed; look to the "
                    f"file's permissions and the disk, and run the command again."
                ) from None
            if data is None:
                shard.rename(shard.with_suffix(".damaged"))
                self.damaged.append(shard)
                continue
            with hdf5.open_bytes(shard, data) as file:
                check_config(shard, hdf5.read_config(file), self.config)
                known = hdf5.has(file, "features_sha256")
                digest = hdf5.read_attribute(file, "features_sha256") if known else ""
                keys = hdf5.read_keys(file, rows=len(hdf5.features(file)))
            self.add_shard(Source(shard, digest), keys)

    def read(self, keys: Sequence[str]) -> NDArray[np.float32]:
        """Return the features of `keys`, float32 (len(keys), width), in their order.

        Raises
        ------
        BreedsError
            If a file is damaged.
        KeyError
            If no file has the feature of one of them.
        ValueError
            If there are no keys.
        """
        wanted = Keys.of(keys)
        numbers, rows = self._find(wanted)
        if (numbers < 0).any():
            raise KeyError(wanted[int(numbers.argmin())])
        parts = by_value(numbers)
        if not parts:
            raise ValueError("no keys to read")
        sources = [self._files[numbers[part[0]]] for part in parts]
        blocks = (
            read_source(source, rows[part].astype(np.intp), self.config, wanted.take(part))
            for source, part in zip(sources, parts, strict=True)
        )
        return scattered(parts, blocks, len(wanted))


def scattered(
    parts: Sequence[Rows], blocks: Iterable[NDArray[np.float32]], total: int
) -> NDArray[np.float32]:
    """Put features out of several files into one array, float32 (total, width).

    Parameters
    ----------
    parts
        The rows of each block, all of 0 to total - 1 between them.
    blocks
        float32 (len(part), width), in the order of `parts`.

    Raises
    ------
    BreedsError
        If they are of different widths.
    """
    result = np.empty((total, 0), dtype=np.float32)
    for part, block in zip(parts, blocks, strict=True):
        if not result.shape[1]:
            result = np.empty((total, block.shape[1]), dtype=np.float32)
        if block.shape[1] != result.shape[1]:
            raise BreedsError(
                f"Of the features of one config some have {block.shape[1]} numbers a photo, and others "
                f"{result.shape[1]}; extract again, into another --store."
            )
        result[part] = block
    return result


def replaced(path: Path) -> BreedsError:
    """Return what is said of a file that is another than was opened."""
    return BreedsError(f"{path} was replaced while it was being read; run the command again.")


class ShardWriter:
    """Collects features and commits them as shards; `commit` commits the rest.

    Parameters
    ----------
    folder
        Where the shards go; the caller holds the lock.
    config, index
        The config of the features, and the index that learns where they are.
    """

    def __init__(self, folder: Path, config: FeatureConfig, index: FeatureIndex) -> None:
        self._folder = folder
        self.config = config
        self._index = index
        self._rows: dict[str, tuple[str, NDArray[np.float32]]] = {}
        self._waiting_since = 0.0
        names = [_NAME.fullmatch(path.with_suffix(".h5").name) for path in folder.glob("*-*.*")]
        self._number = 1 + max((int(name[1]) for name in names if name), default=0)

    def add(self, key: str, path: str, feature: NDArray[np.float32], engine: str) -> None:
        """Add the feature of one photo, float32 (width,); one that the index knows is not kept again.

        Every `SHARD_ROWS` of them are committed, and what there is when the first of them has waited for
        `SHARD_SECONDS`.
        """
        if not self._rows:
            self._waiting_since = time.monotonic()
        self._rows[key] = (path, feature)
        if len(self._rows) == SHARD_ROWS:
            self.commit(engine)
        self.commit_if_due(engine)

    def commit_if_due(self, engine: str) -> None:
        """Commit what has been waiting for `SHARD_SECONDS`."""
        if self._rows and time.monotonic() - self._waiting_since >= SHARD_SECONDS:
            self.commit(engine)

    def commit(self, engine: str) -> None:
        """Commit what has been added since the last shard."""
        keys = Keys.of(self._rows)
        fresh = np.flatnonzero(self._index.lacks(keys))  # of all at once: one by one would take longer
        if not len(fresh):
            self._rows.clear()
            return
        keys, added = keys.take(fresh), [*self._rows.values()]
        rows = [added[row] for row in fresh]
        block = np.stack([feature for _, feature in rows]).astype(np.float32, copy=False)
        with temporary_beside(self._folder / "shard.h5") as aside:
            with hdf5.create_hdf5(aside) as file:
                hdf5.write_provenance(file, self.config, engine)
                hdf5.write_keys(file, keys)
                hdf5.write_text(file, "path", [path for path, _ in rows])
                hdf5.create_features(file, len(keys), block.shape[1])[:] = block
                features_sha256 = hdf5.write_digests(file, hdf5.block_digests(block))
                hdf5.write_attribute(file, "features_sha256", features_sha256)
            with h5py.File(aside, "r") as file:
                if not np.array_equal(hdf5.features(file)[:], block, equal_nan=True):
                    raise OSError("the disk gave back other bytes than were written")
            with open(aside, "rb") as raw:
                digest = hashlib.file_digest(raw, "sha256").hexdigest()
            shard = self._folder / f"{self._number:06d}-{digest}.h5"
            commit(aside, shard)
        self._index.add_shard(Source(shard, features_sha256), keys)
        self._number += 1
        self._rows.clear()


def check_config(path: Path, found: FeatureConfig, wanted: FeatureConfig) -> None:
    """Refuse features of another config, naming both.

    Raises
    ------
    BreedsError
        If the configs differ.
    """
    if found.digest != wanted.digest:
        raise BreedsError(
            f"{path} holds features of another config ({found}) than the one asked for ({wanted}); "
            f"name another --store, or ask for the same config."
        )
