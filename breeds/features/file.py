"""The store file: one HDF5 file with a row for each photo, put together from shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from breeds.backbones.network import is_whole, list_networks
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.features import hdf5
from breeds.features.columns import Keys, Rows
from breeds.features.corrections import Corrections, corrections_path
from breeds.features.shards import (
    FeatureIndex,
    list_shards,
    read_shard,
    replaced,
    shard_folder,
)
from breeds.features.table import COLUMNS, Table
from breeds.features.tablefile import FORMAT, read_about, read_table, write_table
from breeds.files import write_aside

#: No network gives numbers of this size, and no arithmetic of a head survives them.
LARGEST_FEATURE = 1e9


@dataclass(frozen=True)
class Store:
    """A store opened for reading; the features of the stores `also` follow in the same rows.

    `table` has the labels as they came, `corrected` the same with the words of people applied, if they were
    asked for: training is on the latter, which photos it has is decided by the former.
    """

    path: Path
    config: FeatureConfig
    engine: str
    created: str
    features_sha256: str
    table: Table
    also: tuple[Store, ...] = ()
    corrections: Corrections = field(default_factory=Corrections)
    # Whether the features have been compared with their checksum: what it says of `damage`.
    _known: list[str] = field(default_factory=list, repr=False, compare=False)

    @staticmethod
    def open(path: Path) -> Store:
        """Read a store's table; its features are read when asked for.

        Raises
        ------
        BreedsError
            If it is missing, not a store, or damaged.
        """
        with hdf5.open_hdf5(path) as file:
            return _read_store(path, file)

    def with_corrections(self, corrections: Corrections) -> Store:
        """Return the store with these corrections, instead of those that it has."""
        return replace(self, corrections=corrections)

    @cached_property
    def corrected(self) -> Table:
        """The table with labels as corrected: "" for a photo that is left out."""
        return self.corrections.apply(self.table)

    def damage(self) -> str:
        """Say what is wrong with the features, "" if they are what was written; read only the first time.

        Raises
        ------
        BreedsError
            If they cannot be read just now, or the file was replaced since it was opened.
        """
        if not self._known:
            with self._opened() as file:
                self._known.append(_damage(file, self.features_sha256))
        return self._known[0]

    def features(self, rows: Rows | None = None) -> NDArray[np.float32]:
        """Return the features of `rows` (all by default), float32 (n, width).

        They are compared with their checksum.

        Raises
        ------
        BreedsError
            If the file is damaged, or was replaced since it was opened, or a feature is not finite or
            absurdly large.
        """
        found = self._alone(None if rows is None else np.asarray(rows, dtype=np.intp))
        if not self.also:
            return found
        keys = self.table.key if rows is None else self.table.key.take(rows)
        return np.hstack([found, *(other.features_of(keys) for other in self.also)])

    def width(self) -> int:
        """Return how many features a photo has in this store alone.

        Raises
        ------
        BreedsError
            If it cannot be read just now, or was replaced since it was opened.
        """
        with self._opened() as file:
            return int(hdf5.features(file).shape[1])

    def blocks(self, size: int) -> Iterator[NDArray[np.float32]]:
        """Yield the features of all rows, in order, `size` rows in memory at a time: float32 (size, width).

        Raises
        ------
        BreedsError
            As `features` does.
        """
        columns = [(self, np.arange(len(self.table)))]
        columns += [(other, other.rows_of(self.table.key)) for other in self.also]
        for start in range(0, len(self.table), size):
            yield np.hstack([one._alone(rows[start : start + size]) for one, rows in columns])

    def _alone(self, rows: Rows | None) -> NDArray[np.float32]:
        """Return the features of this store alone, refused if they are no numbers of a network."""
        found = self._read(rows)
        largest = np.maximum(found.max(axis=1, initial=0), -found.min(axis=1, initial=0))
        bad = np.flatnonzero(~(largest < LARGEST_FEATURE))  # also what is not a number
        if len(bad):
            row = bad[0] if rows is None else rows[bad[0]]
            raise BreedsError(
                f"{self.path} has features that are not finite numbers, or as large as none are, first those "
                f"of {self.table.path[row]}; extract again, into another --store, with sound weights."
            )
        return found

    def _read(self, rows: Rows | None) -> NDArray[np.float32]:
        """Return the features of this store alone, compared with their checksums."""
        with self._opened() as file:
            return hdf5.gather(file, self.features_sha256, rows)

    @contextmanager
    def _opened(self) -> Iterator[h5py.File]:
        """Open the file again, if it is still the same store."""
        with hdf5.open_hdf5(self.path) as file:
            if not hdf5.is_store_of(file, self.config, self.features_sha256):
                raise replaced(self.path)
            yield file

    def count_in(self, index: FeatureIndex) -> None:
        """Let an index know where the features are."""
        index.add_file(self.path, self.table.key, self.features_sha256)

    def features_of(self, keys: Sequence[str]) -> NDArray[np.float32]:
        """Return the features of the photos with these keys, float32 (len(keys), width).

        Raises
        ------
        BreedsError
            If the store lacks one of them.
        """
        return self.features(self.rows_of(keys))

    def rows_of(self, keys: Sequence[str]) -> Rows:
        """Return the row of each of these keys, intp (len(keys),).

        Raises
        ------
        BreedsError
            If the store lacks one of them.
        """
        rows = self.table.key.rows_of(Keys.of(keys))
        missing = int((rows < 0).sum())
        if missing:
            raise BreedsError(
                f"{self.path} lacks {missing} of the {len(keys)} photos asked for; extract the same "
                f"photos into every store."
            )
        return rows

    @staticmethod
    def open_beside(paths: Sequence[Path], corrected: bool = False) -> Store:
        """Open a store with the features of others, if any, after its own in every row.

        Labels are those of the first, and so are the corrections, which are read with `corrected`.
        """
        store, *others = [Store.open(path) for path in paths]
        corrections = Corrections.load(corrections_path(paths[0])) if corrected else Corrections()
        return replace(store, also=tuple(others), corrections=corrections)

    def parts(self) -> list[tuple[FeatureConfig, str]]:
        """Return the configs whose features make up a row, in order, each with its weights' path."""
        return [(store.config, store.table.weights_path) for store in (self, *self.also)]


def _read_store(path: Path, file: h5py.File) -> Store:
    """Read everything but the features, and of a large table but its columns."""
    if not hdf5.has(file, "format"):
        raise hdf5.ForeignError("it is an HDF5 file of something else")
    if (found := hdf5.read_attribute(file, "format")) != FORMAT:
        raise hdf5.ForeignError(f"its format is {found!r}, and this version reads {FORMAT!r}")
    engine, created, digest = (hdf5.read_attribute(file, n) for n in ("engine", "created", "features_sha256"))
    config = hdf5.read_config(file)
    about = read_about(file, config, digest)
    table = read_table(path, file, about)
    if len(hdf5.features(file)) != len(table):
        raise hdf5.DamagedError("it has not as many features as photos")
    return Store(path, config, engine, created, digest, table)


def _damage(file: h5py.File, features_sha256: str) -> str:
    """Say what is wrong with the features in `file`, "" if nothing is."""
    try:
        for _ in hdf5.read_checked(file, features_sha256):
            pass
    except hdf5.DamagedError as error:
        return f"its features cannot be read: {error}"
    return ""


def assemble(path: Path, table: Table, index: FeatureIndex, engine: str) -> None:
    """Write the store `path`: the rows of `table`, with their features out of `index`.

    Memory holds one block of features at a time.

    Raises
    ------
    BreedsError
        If a source is damaged or `path` cannot be written.
    """
    starts = range(0, len(table), hdf5.FEATURE_ROWS)
    blocks = (index.read(table.key[start : start + hdf5.FEATURE_ROWS]) for start in starts)
    _write(path, table, index.config, blocks, engine)


def write_store(
    path: Path, table: Table, config: FeatureConfig, features: NDArray[np.float32], engine: str
) -> None:
    """Write the store `path` of features that are at hand, (n, width), a row for each of `table`.

    Raises
    ------
    BreedsError
        If `path` cannot be written.
    """
    starts = range(0, len(table), hdf5.FEATURE_ROWS)
    _write(path, table, config, (features[start : start + hdf5.FEATURE_ROWS] for start in starts), engine)


def _write(
    path: Path, table: Table, config: FeatureConfig, blocks: Iterable[NDArray[np.float32]], engine: str
) -> None:
    with write_aside(path) as aside, hdf5.create_hdf5(aside) as file:
        features, digests, start = None, bytearray(), 0
        for block in blocks:
            if features is None:
                features = hdf5.create_features(file, len(table), block.shape[1])
            features[start : start + len(block)] = block
            digests += hdf5.block_digests(block)
            start += len(block)
        write_table(file, table, config, engine, hdf5.write_digests(file, bytes(digests)))


def verify(path: Path) -> Iterator[str]:
    """Yield a sentence for everything in a store and beside it that does not match its checksum.

    The shards and int8's network come first: the shards can mend a store that is damaged.

    Raises
    ------
    BreedsError
        If the store cannot be read at all.
    """
    folder = shard_folder(path)
    for part in [*list_shards(folder), *list_networks(folder)]:
        try:
            if not (read_shard(part) if part.suffix == ".h5" else is_whole(part)):
                yield f"{part}: the bytes do not match the checksum in the name"
        except OSError as error:
            yield f"{part}: cannot be read ({error.strerror or error}), which says nothing about its bytes"
    with hdf5.open_hdf5(path) as file:  # once: it may be replaced meanwhile
        store = _read_store(path, file)
        for name in (*COLUMNS, "bad_keys"):
            getattr(store.table, name)
        damage = _damage(file, store.features_sha256)
    if damage:
        yield f"{path}: {damage}"
