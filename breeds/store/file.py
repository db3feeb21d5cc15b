"""The store file: one HDF5 file with a row for each photo, put together from shards."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from breeds.engines.network import is_whole, list_networks
from breeds.errors import BreedsError
from breeds.files import write_aside
from breeds.recipe import Recipe
from breeds.store import hdf5
from breeds.store.columns import Keys, Names, Texts, locate
from breeds.store.corrections import Corrections, corrections_path
from breeds.store.shards import FeatureIndex, list_shards, read_shard, shard_folder
from breeds.store.table import Table

_FORMAT = "breeds store 1"
#: No network gives numbers of this size, and no arithmetic of a head survives them.
LARGEST_FEATURE = 1e9


@dataclass(frozen=True)
class Store:
    """A store opened for reading; the features of the stores `also` follow in the same rows.

    `table` has the labels as they came, `corrected` the same with the words of people applied, if they were
    asked for: training is on the latter, which photos it has is decided by the former.
    """

    path: Path
    recipe: Recipe
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

    def features(self, rows: NDArray[np.intp] | None = None) -> NDArray[np.float32]:
        """Return the features of `rows` (all by default), float32 (n, width).

        The first time all of them are compared with their checksum.

        Raises
        ------
        BreedsError
            If the file is damaged, or was replaced since it was opened, or a feature is not finite or
            absurdly large.
        """
        with self._opened() as file:
            if not self._known:
                self._known.append(_damage(file, self.features_sha256))
            if self._known[0]:
                raise hdf5.DamagedError(self._known[0])
            source = hdf5.features(file)
            found = hdf5.read_block(source) if rows is None else hdf5.read_rows(source, np.asarray(rows))
        self._check_finite(found, range(len(found)) if rows is None else rows)
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
        columns = [self._blocks(np.arange(len(self.table)), size)]
        columns += [other._blocks(other._rows_of(self.table.key), size) for other in self.also]
        for parts in zip(*columns, strict=True):
            yield np.hstack(parts) if self.also else parts[0]

    def _blocks(self, rows: NDArray[np.intp], size: int) -> Iterator[NDArray[np.float32]]:
        """Yield this store's own features of `rows`, opened once."""
        with self._opened() as file:
            if not self._known:
                self._known.append(_damage(file, self.features_sha256))
            if self._known[0]:
                raise hdf5.DamagedError(self._known[0])
            source = hdf5.features(file)
            for start in range(0, len(rows), size):
                wanted = rows[start : start + size]
                found = hdf5.read_rows(source, wanted)
                self._check_finite(found, wanted)
                yield found

    def _check_finite(self, found: NDArray[np.float32], rows: Sequence[int] | NDArray[np.intp]) -> None:
        """Refuse features of `rows`, float32 (n, width), that are no numbers of a network."""
        largest = np.maximum(found.max(axis=1, initial=0), -found.min(axis=1, initial=0))
        bad = np.flatnonzero(~(largest < LARGEST_FEATURE))  # also what is not a number
        if len(bad):
            raise BreedsError(
                f"{self.path} has features that are not finite numbers, or as large as none are, first "
                f"those of {self.table.path[rows[bad[0]]]}; extract again, into another --store, with sound "
                f"weights."
            )

    @contextmanager
    def _opened(self) -> Iterator[h5py.File]:
        """Open the file again, if it is still the same store."""
        with hdf5.open_hdf5(self.path) as file:
            same = hdf5.is_store_of(file, self.recipe, self.features_sha256)
            if not (same and hdf5.holds(file, self.table.key)):
                raise BreedsError(f"{self.path} was replaced while it was being read; run the command again.")
            yield file

    def features_of(self, keys: Sequence[str]) -> NDArray[np.float32]:
        """Return the features of the photos with these keys, float32 (len(keys), width).

        Raises
        ------
        BreedsError
            If the store lacks one of them.
        """
        return self.features(self._rows_of(keys))

    def _rows_of(self, keys: Sequence[str]) -> NDArray[np.intp]:
        """Return the rows of the photos with these keys, intp (len(keys),)."""
        own = self.table.key.packed
        order = np.argsort(own, kind="stable")
        at = locate(own[order], Keys.of(keys).packed)
        missing = int((at < 0).sum())
        if missing:
            raise BreedsError(
                f"{self.path} lacks {missing} of the {len(keys)} photos asked for; extract the same "
                f"photos into every store."
            )
        return np.asarray(order[at])

    @staticmethod
    def open_beside(paths: Sequence[Path], corrected: bool = False) -> Store:
        """Open a store with the features of others, if any, after its own in every row.

        Labels are those of the first, and so are the corrections, which are read with `corrected`.
        """
        store, *others = [Store.open(path) for path in paths]
        corrections = Corrections.load(corrections_path(paths[0])) if corrected else Corrections()
        return replace(store, also=tuple(others), corrections=corrections)

    def parts(self) -> list[tuple[Recipe, str]]:
        """Return the recipes whose features make up a row, in order, each with its weights' path."""
        return [(store.recipe, store.table.weights_path) for store in (self, *self.also)]


def _read_store(path: Path, file: h5py.File) -> Store:
    """Read everything but the features; stores written before the table had a checksum have none."""
    if not hdf5.has(file, "format"):
        raise hdf5.ForeignError("it is an HDF5 file of something else")
    if (found := hdf5.read_attribute(file, "format")) != _FORMAT:
        raise hdf5.ForeignError(f"its format is {found!r}, and this version reads {_FORMAT!r}")
    engine, created, digest = (hdf5.read_attribute(file, n) for n in ("engine", "created", "features_sha256"))
    recipe, table = hdf5.read_recipe(file), _read_table(file)
    known = hdf5.read_attribute(file, "table_sha256") if hdf5.has(file, "table_sha256") else ""
    if known and known != _table_digest(table, recipe, digest):
        raise hdf5.DamagedError("the table does not match its checksum")
    return Store(path, recipe, engine, created, digest, table)


def _table_digest(table: Table, recipe: Recipe, features_sha256: str) -> str:
    """Return the SHA-256 that binds a table to its recipe and to the features of its rows."""
    return hashlib.sha256(f"{table.digest()} {recipe.to_json()} {features_sha256}".encode()).hexdigest()


def _damage(file: h5py.File, features_sha256: str) -> str:
    """Say what is wrong with the features in `file`, "" if nothing is."""
    try:
        same = hdf5.digest(hdf5.features(file)) == features_sha256
    except hdf5.DamagedError as error:
        return f"its features cannot be read: {error}"
    return "" if same else "the features do not match their checksum"


def _read_table(file: h5py.File) -> Table:
    """Read the table of a store; stores written before bad keys were remembered have none."""
    rows = len(hdf5.features(file))
    quarantine = _read_quarantine(file)
    return Table(
        root=hdf5.read_attribute(file, "root"),
        weights_path=hdf5.read_attribute(file, "weights_path"),
        key=hdf5.read_keys(file, rows=rows),
        path=Texts.of_bytes(hdf5.read_text(file, "path", rows)),
        label=Names.of(map(os.fsdecode, hdf5.read_text(file, "label", rows))),
        split=Names.of(map(os.fsdecode, hdf5.read_text(file, "split", rows))),
        size=hdf5.read_numbers(file, "size", rows),
        mtime_ns=hdf5.read_numbers(file, "mtime_ns", rows),
        quarantine=quarantine,
        bad_keys=hdf5.read_keys(file, "bad_key") if hdf5.has(file, "bad_key") else Keys.of([]),
    )


def _read_quarantine(file: h5py.File) -> list[tuple[str, str]]:
    found = []
    columns = [hdf5.read_text(file, f"quarantine_{column}") for column in ("path", "reason")]
    for path, reason in zip_longest(*columns):
        if not path or not reason:  # a file may claim any number of empty ones
            raise hdf5.DamagedError("quarantine_path and quarantine_reason do not fit each other")
        found.append((os.fsdecode(path), os.fsdecode(reason)))
    return found


def assemble(path: Path, table: Table, index: FeatureIndex, engine: str) -> None:
    """Write the store `path`: the rows of `table`, with their features out of `index`.

    Memory holds one block of features at a time.

    Raises
    ------
    BreedsError
        If a source is damaged or `path` cannot be written.
    """
    width = index.read(table.key[:1]).shape[1]
    digest = hashlib.sha256()
    with write_aside(path) as aside, hdf5.create_hdf5(aside) as file:
        hdf5.write_attribute(file, "format", _FORMAT)
        hdf5.write_attribute(file, "root", table.root)
        hdf5.write_attribute(file, "weights_path", table.weights_path)
        hdf5.write_attribute(file, "created", time.strftime("%Y-%m-%dT%H:%M:%S%z"))
        hdf5.write_provenance(file, index.recipe, engine)
        hdf5.write_keys(file, table.key)
        for name in ("path", "label", "split"):
            hdf5.write_text(file, name, getattr(table, name))
        for name in ("size", "mtime_ns"):
            hdf5.write_column(file, name, getattr(table, name))
        hdf5.write_text(file, "quarantine_path", [path for path, _ in table.quarantine])
        hdf5.write_text(file, "quarantine_reason", [reason for _, reason in table.quarantine])
        hdf5.write_keys(file, table.bad_keys, "bad_key")
        features = hdf5.create_features(file, len(table), width)
        for start in range(0, len(table), hdf5.FEATURE_ROWS):
            block = index.read(table.key[start : start + hdf5.FEATURE_ROWS])
            features[start : start + len(block)] = block
            digest.update(block.tobytes())
        hdf5.write_attribute(file, "features_sha256", digest.hexdigest())
        hdf5.write_attribute(file, "table_sha256", _table_digest(table, index.recipe, digest.hexdigest()))


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
        damage = _damage(file, _read_store(path, file).features_sha256)
    if damage:
        yield f"{path}: {damage}"
