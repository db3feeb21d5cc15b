"""The store file: one HDF5 file with a row for each photo, put together from shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from breeds.backbones.network import is_whole, list_networks
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.features import hdf5
from breeds.features.columns import Keys, Rows, Texts
from breeds.features.corrections import Corrections, corrections_path
from breeds.features.shards import (
    FeatureIndex,
    Places,
    Source,
    is_shard_name,
    list_shards,
    read_shard,
    replaced,
    shard_folder,
)
from breeds.features.table import COLUMNS, Table, digest_of
from breeds.features.tablefile import (
    FIRST,
    FORMAT,
    FORMATS,
    first_table,
    read_about,
    read_column,
    read_table,
    write_table,
)
from breeds.files import write_aside

#: No network gives numbers of this size, and no arithmetic of a head survives them.
LARGEST_FEATURE = 1e9


@dataclass(frozen=True)
class Store:
    """A store opened for reading; the features of the stores `also` follow in the same rows.

    `table` has the labels as they came, `corrected` the same with the words of people applied, if they were
    asked for: training is on the latter, which photos it has is decided by the former. `shards` says where
    the features are, if they are not in the store's own file.
    """

    path: Path
    config: FeatureConfig
    engine: str
    created: str
    features_sha256: str
    table: Table
    also: tuple[Store, ...] = ()
    corrections: Corrections = field(default_factory=Corrections)
    shards: Places | None = None
    is_first: bool = False
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

        Features in shards are compared when they are read; of these it is said only which are gone.

        Raises
        ------
        BreedsError
            If they cannot be read just now, or the file was replaced since it was opened.
        """
        if not self._known:
            if self.shards is not None:
                self._known.append(self.shards.gone())
            else:
                with self._opened() as file:
                    self._known.append(_damage(file, self.features_sha256, self.is_first))
        return self._known[0]

    def features(self, rows: Rows | None = None) -> NDArray[np.float32]:
        """Return the features of `rows` (all by default), float32 (n, width).

        They are compared with their checksum: of a store of the first format all, the first time.

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
        if self.shards is not None:
            return int(self.shards.read(np.zeros(1, dtype=np.intp)).shape[1])
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
        if self.shards is not None:
            return self.shards.read(np.arange(len(self.table)) if rows is None else rows)
        if self.is_first and self.damage():
            raise hdf5.damaged(self.path, self.damage())
        with self._opened() as file:
            if not self.is_first:
                return hdf5.gather(file, self.features_sha256, rows)
            source = hdf5.features(file)
            return hdf5.read_block(source) if rows is None else hdf5.read_rows(source, rows)

    @contextmanager
    def _opened(self) -> Iterator[h5py.File]:
        """Open the file again, if it is still the same store."""
        with hdf5.open_hdf5(self.path) as file:
            same = hdf5.is_store_of(file, self.config, self.features_sha256)
            if not (same and (not self.is_first or hdf5.holds(file, self.table.key))):
                raise replaced(self.path)
            yield file

    def count_in(self, index: FeatureIndex) -> None:
        """Let an index know where the features are."""
        if self.shards is not None:
            index.add_places(self.shards.sources, self.table.key, self.shards.file, self.shards.row)
        else:
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
    if (found := hdf5.read_attribute(file, "format")) not in FORMATS:
        raise hdf5.ForeignError(f"its format is {found!r}, and this version reads {FORMAT!r}")
    engine, created, digest = (hdf5.read_attribute(file, n) for n in ("engine", "created", "features_sha256"))
    config = hdf5.read_config(file)
    if found == FIRST:
        return Store(path, config, engine, created, digest, first_table(file, config, digest), is_first=True)
    about = read_about(file, config, digest)
    table = read_table(path, file, about)
    shards = _places(path, file, about, config) if "shard" in about["columns"] else None
    if shards is None and len(hdf5.features(file)) != len(table):
        raise hdf5.DamagedError("it has not as many features as photos")
    return Store(path, config, engine, created, digest, table, shards=shards)


def _places(path: Path, file: h5py.File, about: dict[str, Any], config: FeatureConfig) -> Places:
    """Return where the features of a store are that has none in its own file."""
    names, digests = (Texts.of_padded(hdf5.read_text(file, name)) for name in ("shard_name", "shard_sha256"))
    known = about["columns"]
    if (digest_of(names), digest_of(digests)) != (known.get("shard_name"), known.get("shard_sha256")):
        raise hdf5.DamagedError("the table does not match its checksum")
    if not all(map(is_shard_name, names)) or len(names) != len(digests):
        raise hdf5.DamagedError("it names files that are no shards")
    folder = shard_folder(path)
    sources = tuple(Source(folder / name, digest) for name, digest in zip(names, digests, strict=True))
    number, row = (read_column(path, file, about, name) for name in ("shard", "shard_row"))
    return Places(path, config, sources, number, row)


def _damage(file: h5py.File, features_sha256: str, is_first: bool) -> str:
    """Say what is wrong with the features in `file`, "" if nothing is."""
    try:
        if not is_first:
            for _ in hdf5.read_checked(file, features_sha256):
                pass
        elif hdf5.digest(hdf5.features(file)) != features_sha256:
            return "the features do not match their checksum"
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
    with write_aside(path) as aside, hdf5.create_hdf5(aside) as file:
        width = index.read(table.key[:1]).shape[1]
        features, digests = hdf5.create_features(file, len(table), width, "float32"), bytearray()
        for start in range(0, len(table), hdf5.FEATURE_ROWS):
            block = index.read(table.key[start : start + hdf5.FEATURE_ROWS])
            features[start : start + len(block)] = block
            digests += hdf5.block_digests(block)
        write_table(file, table, index.config, engine, hdf5.write_digests(file, bytes(digests)), {})


def refer(path: Path, table: Table, index: FeatureIndex, engine: str) -> None:
    """Write the store `path` without features: the rows of `table`, and in which shard each one's are.

    Raises
    ------
    BreedsError
        If `path` cannot be written.
    ValueError
        If `index` has a feature elsewhere than in the shards of `path`.
    """
    sources, file_numbers, rows = index.places(table.key)
    used, shard = np.unique(file_numbers, return_inverse=True)
    shards = [sources[number] for number in used]
    if any(source.is_store or source.path.parent != shard_folder(path) for source in shards):
        raise ValueError("features that are in no shard")
    columns: dict[str, NDArray[np.int64] | Texts] = {
        "shard": shard.astype(np.int64),
        "shard_row": rows.astype(np.int64),
        "shard_name": Texts.of(source.path.name for source in shards),
        "shard_sha256": Texts.of(source.features_sha256 for source in shards),
    }
    features_sha256 = hashlib.sha256(" ".join(map(digest_of, columns.values())).encode()).hexdigest()
    with write_aside(path) as aside, hdf5.create_hdf5(aside) as file:
        write_table(file, table, index.config, engine, features_sha256, columns)


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
        damage = store.damage() if store.shards else _damage(file, store.features_sha256, store.is_first)
    if damage:
        yield f"{path}: {damage}"
