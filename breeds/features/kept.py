"""Features kept in the shards of a store by programs that know photos, but no folder: many, in turn."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from breeds.config import FeatureConfig
from breeds.features.shards import (
    SHARD_ROWS,
    SHARD_SECONDS,
    FeatureIndex,
    ShardWriter,
    lock_file,
    shard_folder,
)
from breeds.files import hold

# Others hold the store while they commit, which takes a moment; an extraction holds it as long as it runs.
_PATIENCE = 60


class KeptFeatures:
    """The shards of a store, read and added to; its table is left to extraction, which takes what is here.

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

    def get(self, config: FeatureConfig, keys: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Return the features of the photos `keys` that are here and intact, float32 (width,) each.

        Raises
        ------
        BreedsError
            If the shards are of another config, or cannot be read just now.
        """
        index = FeatureIndex(config)
        index.add_shards(shard_folder(self._store))
        there = [key for key in keys if key in index]
        return dict(zip(there, index.read(there), strict=True)) if there else {}

    def add(self, config: FeatureConfig, key: str, feature: NDArray[np.float32]) -> None:
        """Keep the feature of a photo, float32 (width,); some are committed together.

        Raises
        ------
        BreedsError
            As `commit` does.
        """
        self._rows[key] = feature
        if len(self._rows) >= SHARD_ROWS or time.monotonic() - self._since >= SHARD_SECONDS:
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
            index = FeatureIndex(config)
            index.add_shards(shard_folder(self._store))  # others may have added the same meanwhile
            writer = ShardWriter(shard_folder(self._store), config, index)
            for key, feature in self._rows.items():
                writer.add(key, "", feature, self._engine)
            writer.commit(self._engine)
        self._rows.clear()
