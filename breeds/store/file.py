"""The store file: one HDF5 file with a row for each photo, put together from shards."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
from breeds.store.shards import FeatureIndex, is_intact, list_shards, shard_folder
from breeds.store.table import Table

_FORMAT = "breeds store 1"
# Rows of features in memory at a time; 2 MB of Xception's.
_BLOCK = 256


@dataclass(frozen=True)
class Store:
    """A store opened for reading; the features of the stores `also` follow in the same rows."""

    path: Path
    recipe: Recipe
    engine: str
    created: str
    features_sha256: str
    table: Table
    also: tuple[Store, ...] = ()

    @staticmethod
    def open(path: Path) -> Store:
        """Read a store's table; its features are read when asked for.

        Raises
        ------
        BreedsError
            If it is missing, not a store, or damaged.
        """
        with hdf5.open_hdf5(path) as file:
            if not hdf5.has(file, "format"):
                raise hdf5.ForeignError("it is an HDF5 file of something else")
            if (found := hdf5.read_attribute(file, "format")) != _FORMAT:
                raise hdf5.ForeignError(f"its format is {found!r}, and this version reads {_FORMAT!r}")
            engine, created, digest = (
                hdf5.read_attribute(file, n) for n in ("engine", "created", "features_sha256")
            )
            return Store(path, hdf5.read_recipe(file), engine, created, digest, _read_table(file))

    def features(self, rows: NDArray[np.intp] | None = None) -> NDArray[np.float32]:
        """Return the features of `rows` (all by default), float32 (n, width).

        Raises
        ------
        BreedsError
            If the file is damaged, or a feature is not finite.
        """
        with hdf5.open_hdf5(self.path) as file:
            if not hdf5.holds(file, self.table.key):
                raise BreedsError(f"{self.path} was replaced while it was being read; run the command again.")
            source = hdf5.features(file)
            found = hdf5.read_block(source) if rows is None else hdf5.read_rows(source, np.asarray(rows))
        bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if len(bad):
            row = bad[0] if rows is None else rows[bad[0]]
            raise BreedsError(
                f"{self.path} has features that are not finite numbers, first those of "
                f"{self.table.path[row]}; extract again, into another --store, with sound weights."
            )
        if not self.also:
            return found
        keys = self.table.key if rows is None else self.table.key.take(rows)
        return np.hstack([found, *(other.features_of(keys) for other in self.also)])

    def features_of(self, keys: Sequence[str]) -> NDArray[np.float32]:
        """Return the features of the photos with these keys, float32 (len(keys), width).

        Raises
        ------
        BreedsError
            If the store lacks one of them.
        """
        own = self.table.key.packed
        order = np.argsort(own, kind="stable")
        at = locate(own[order], Keys.of(keys).packed)
        missing = int((at < 0).sum())
        if missing:
            raise BreedsError(
                f"{self.path} lacks {missing} of the {len(keys)} photos asked for; extract the same "
                f"photos into every store."
            )
        return self.features(order[at])

    @staticmethod
    def open_beside(paths: Sequence[Path]) -> Store:
        """Open a store with the features of others, if any, after its own in every row."""
        store, *others = [Store.open(path) for path in paths]
        return replace(store, also=tuple(others))

    def parts(self) -> list[tuple[Recipe, str]]:
        """Return the recipes whose features make up a row, in order, each with its weights' path."""
        return [(store.recipe, store.table.weights_path) for store in (self, *self.also)]


def _read_table(file: h5py.File) -> Table:
    """Read the table of a store; stores written before bad keys were remembered have none."""
    rows = len(hdf5.features(file))
    paths, reasons = (
        [os.fsdecode(text) for text in hdf5.read_text(file, f"quarantine_{column}")]
        for column in ("path", "reason")
    )
    if len(paths) != len(reasons):
        raise hdf5.DamagedError("quarantine_path and quarantine_reason have different lengths")
    return Table(
        root=hdf5.read_attribute(file, "root"),
        weights_path=hdf5.read_attribute(file, "weights_path"),
        key=hdf5.read_keys(file, rows=rows),
        path=Texts.of_bytes(hdf5.read_text(file, "path", rows)),
        label=Names.of(map(os.fsdecode, hdf5.read_text(file, "label", rows))),
        split=Names.of(map(os.fsdecode, hdf5.read_text(file, "split", rows))),
        size=hdf5.read_numbers(file, "size", rows),
        mtime_ns=hdf5.read_numbers(file, "mtime_ns", rows),
        quarantine=list(zip(paths, reasons, strict=True)),
        bad_keys=hdf5.read_keys(file, "bad_key") if hdf5.has(file, "bad_key") else Keys.of([]),
    )


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
        for start in range(0, len(table), _BLOCK):
            block = index.read(table.key[start : start + _BLOCK])
            features[start : start + len(block)] = block
            digest.update(block.tobytes())
        hdf5.write_attribute(file, "features_sha256", digest.hexdigest())


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
            if not (is_intact(part) if part.suffix == ".h5" else is_whole(part)):
                yield f"{part}: the bytes do not match the checksum in the name"
        except OSError as error:
            yield f"{part}: cannot be read ({error.strerror or error}), which says nothing about its bytes"
    store = Store.open(path)
    digest = hashlib.sha256()
    with hdf5.open_hdf5(path) as file:
        features = hdf5.features(file)
        for start in range(0, len(features), _BLOCK):
            digest.update(hdf5.read_block(features, start, start + _BLOCK).tobytes())
    if digest.hexdigest() != store.features_sha256:
        yield f"{path}: the features do not match their checksum"
