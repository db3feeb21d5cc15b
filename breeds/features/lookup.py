"""Features by key, wherever they are: in a store's rows, in its unused ones, and in its journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from breeds.config import FeatureConfig, Network
from breeds.errors import BreedsError
from breeds.features.columns import Keys, Rows, by_value
from breeds.features.journal import (
    SHARD_ROWS,
    SHARD_SECONDS,
    Writer,
    check_config,
    journal_folder,
    list_shards,
    load_network,
    lock_file,
    open_shard,
    shard_features,
)
from breeds.features.store import Store
from breeds.files import hold

# Others hold the store while they commit, which takes a moment; an extraction holds it as long as it runs.
_PATIENCE = 60

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
        self._add(keys, lambda rows: shard_features(shard)[rows])

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


class KeptFeatures:
    """A store's features and those in its journal, which new ones are added to.

    Parameters
    ----------
    store
        The store's file, which need not be there.
    engine
        What to call the engine that computed what is added.
    """

    def __init__(self, store: Path, engine: str) -> None:
        self._store = store
        self._engine = engine
        self._rows: dict[str, NDArray[np.float32]] = {}
        self._since = time.monotonic()
        self._found: tuple[object, FeatureLookup] | None = None

    def get(self, config: FeatureConfig, keys: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Return the features of the photos `keys` that are here and intact, float32 (width,) each.

        Raises
        ------
        BreedsError
            If the store is of another config, damaged, or cannot be read just now.
        """
        wanted = list(keys)
        lookup = self._lookup(config)
        there = [wanted[row] for row in np.flatnonzero(~lookup.lacks(Keys.of(wanted)))]
        return dict(zip(there, lookup.read(there), strict=True)) if there else {}

    def _lookup(self, config: FeatureConfig) -> FeatureLookup:
        """Return what finds features in the files as they are now; they are read again if they changed."""
        now: list[object] = [config.digest, list_shards(journal_folder(self._store))]
        with suppress(FileNotFoundError):
            status = self._store.stat()
            now += [status.st_ino, status.st_mtime_ns]
        if self._found is None or self._found[0] != now:
            self._found = now, FeatureLookup(self._store, config)
        return self._found[1]

    def add(self, config: FeatureConfig, key: str, feature: NDArray[np.float32]) -> None:
        """Keep the feature of a photo, float32 (width,); some are committed together.

        Raises
        ------
        BreedsError
            As `commit` does.
        """
        self._rows[key] = feature
        due = time.monotonic() - self._since >= SHARD_SECONDS
        if due or len(self._rows) >= SHARD_ROWS:
            self.commit(config)

    def commit(self, config: FeatureConfig) -> None:
        """Commit what has been added; from then on it survives a kill at any instant.

        Raises
        ------
        BreedsError
            If another process has held the store for a minute, or it cannot be written.
        """
        self._since = time.monotonic()
        if not self._rows:
            return
        with hold(lock_file(self._store), str(self._store), _PATIENCE):
            # Others may have added the same meanwhile.
            lacking = self._lookup(config).lacks(Keys.of(self._rows))
            writer = Writer(journal_folder(self._store), config)
            for lacks, (key, feature) in zip(lacking, self._rows.items(), strict=True):
                if lacks:
                    writer.add(key, feature, self._engine)
            writer.commit(self._engine)
        self._rows.clear()
