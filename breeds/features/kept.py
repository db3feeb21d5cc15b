"""Features added to a store's journal by programs that know photos, but no folder: many, in turn."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from breeds.config import FeatureConfig
from breeds.features import journal
from breeds.features.columns import Keys
from breeds.features.journal import journal_folder, list_shards, lock_file
from breeds.features.lookup import FeatureLookup
from breeds.files import hold

# Others hold the store while they commit, which takes a moment; an extraction holds it as long as it runs.
_PATIENCE = 60


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
        due = time.monotonic() - self._since >= journal.SHARD_SECONDS
        if due or len(self._rows) >= journal.SHARD_ROWS:
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
            writer = journal.Writer(journal_folder(self._store), config)
            for lacks, (key, feature) in zip(lacking, self._rows.items(), strict=True):
                if lacks:
                    writer.add(key, feature, self._engine)
            writer.commit(self._engine)
        self._rows.clear()
