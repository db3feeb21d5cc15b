"""Where computed features are found by key: in a store's rows, in its unused ones, and in its journal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from breeds.config import FeatureConfig, Network
from breeds.errors import BreedsError
from breeds.features.columns import Keys, Rows, by_value
from breeds.features.journal import check_config, journal_folder, list_shards, open_shard, shard_features
from breeds.features.network import load_network
from breeds.features.store import Store

Read = Callable[[Rows], NDArray[np.float32]]


class FeatureLookup:
    """Finds features by key: in a store's rows, in its unused ones, and in its journal; 40 bytes a photo.

    Parameters
    ----------
    path
        The store's file, which need not be there.
    config
        The config that everything must have.
    store
        The store, if it is open already.
    journal
        Whether to look into the journal, which is read for that as a whole.

    Attributes
    ----------
    config
        As it was given.
    shards
        Those of the journal.
    damaged
        Those that do not match the checksum in their names: their photos count as not computed.

    Raises
    ------
    BreedsError
        If something is there of another config, or cannot be read just now, or the store is damaged.
    """

    def __init__(
        self, path: Path, config: FeatureConfig, store: Store | None = None, journal: bool = True
    ) -> None:
        self.config = config
        self.shards: list[Path] = []
        self.damaged: list[Path] = []
        self._keys: list[Keys] = []
        self._reads: list[Read] = []
        self._all: Keys | None = None
        if store is None and path.exists():
            store = Store(path, corrected=False)
        if store is not None:
            check_config(store.path, store.config, config)
            self._add(store.table.key, store.read)
            if len(store.unused):
                self._add(store.unused, store.read_unused)
        for shard in list_shards(journal_folder(path)) if journal else ():
            keys = open_shard(shard, config)
            if keys is None:
                self.damaged.append(shard)
            else:
                self.add_shard(shard, keys)

    def add_shard(self, shard: Path, keys: Keys) -> None:
        """Find these keys in the rows of a shard, too; what is known stays."""
        self.shards.append(shard)
        self._add(keys, partial(_shard_rows, shard))

    def _add(self, keys: Keys, read: Read) -> None:
        self._keys.append(keys)
        self._reads.append(read)
        self._all = None

    def keys(self) -> Keys:
        """All keys, repeats included."""
        if self._all is None:
            packed = [keys.packed for keys in self._keys] or [Keys.of([]).packed]
            self._all = Keys(np.concatenate(packed))
        return self._all

    def lacks(self, keys: Keys) -> NDArray[np.bool_]:
        """Say of each key whether its feature is nowhere, bool (n,)."""
        missing: NDArray[np.bool_] = self.keys().rows_of(keys) < 0
        return missing

    def read(self, keys: Sequence[str]) -> NDArray[np.float32]:
        """Return the features of `keys`, float32 (len(keys), width), in their order.

        Raises
        ------
        BreedsError
            If something is damaged, or was replaced since the lookup was made.
        KeyError
            If one of them is nowhere.
        """
        return self.rows(Keys.of(keys))[:]

    def rows(self, keys: Keys) -> Found:
        """Return the features of `keys` to be read in slices; errors are those of `read`."""
        at = self.keys().rows_of(keys)
        if (at < 0).any():
            raise KeyError(keys[int(at.argmin())])
        return Found(at, [len(part) for part in self._keys], self._reads)


class Found:
    """Features wherever they are; slices of them are read, float32 (n, width)."""

    def __init__(self, at: Rows, lengths: Sequence[int], reads: Sequence[Read]) -> None:
        self._at = at
        self._starts = np.cumsum([0, *lengths])
        self._reads = reads

    def __getitem__(self, rows: slice, /) -> NDArray[np.float32]:
        at = self._at[rows]
        sources = np.searchsorted(self._starts, at, side="right") - 1
        result = np.empty((len(at), 0), dtype=np.float32)
        for part in by_value(sources):
            source = sources[part[0]]
            found = self._reads[source](at[part] - self._starts[source])
            if not result.shape[1]:
                result = np.empty((len(at), found.shape[1]), dtype=np.float32)
            if found.shape[1] != result.shape[1]:
                raise BreedsError(
                    f"Of the features of one config some have {found.shape[1]} numbers a photo, and others "
                    f"{result.shape[1]}; extract again, into another --store."
                )
            result[part] = found
        return result


def _shard_rows(shard: Path, rows: Rows) -> NDArray[np.float32]:
    return shard_features(shard)[rows]


def find_network(digest: str, stores: Sequence[Path]) -> Network:
    """Return the int8 network of this digest: out of one of `stores`, or its journal.

    Raises
    ------
    BreedsError
        If it is in none of them, or cannot be read just now.
    """
    for path in stores:
        try:
            found = load_network(journal_folder(path), digest)
        except OSError as error:
            raise BreedsError(
                f"Cannot read {error.filename}: {error.strerror}; run the command again."
            ) from None
        if found is None and path.exists():
            found = Store(path, corrected=False).networks().get(digest)
        if found is not None:
            return found
    raise BreedsError(
        f"The int8 network {digest[:12]} of {stores[0]} is not in {journal_folder(stores[0])}: it was lost; "
        f"extract into another --store."
    )
