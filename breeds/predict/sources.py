"""Where the features of photos to predict come from: a store, the cache, or the engine."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from breeds.engines.pipeline import Feature, KeyAndPath, Pipeline
from breeds.errors import BreedsError, PhotoError
from breeds.files import check_writable, hold
from breeds.recipe import Recipe
from breeds.store import FeatureIndex, ShardWriter, Store


class FeatureSource:
    """Where features of one recipe come from: a store, the cache, or the engine."""

    def __init__(self, recipe: Recipe, pipeline: Pipeline) -> None:
        self.recipe = recipe
        self._pipeline = pipeline
        self._store = FeatureIndex(recipe)
        self._cache = FeatureIndex(recipe)
        self._writer: ShardWriter | None = None

    def use_store(self, path: Path) -> None:
        """Let the store that a model was trained on, if it is still there, answer for its photos."""
        try:
            store = Store.open(path)
        except BreedsError:
            return
        if store.recipe.digest == self.recipe.digest:
            self._store.add_file(path, store.table.key)

    def use_cache(self, folder: Path, stack: ExitStack) -> None:
        """Read the cache and lock it for writing; without the lock, go on without writing."""
        try:
            check_writable(folder / "shard.h5")
            stack.enter_context(hold(folder / ".lock", f"The cache {folder}"))
            self._cache.add_shards(folder)
        except BreedsError as error:
            print(f"features of this run are not kept: {error}", file=sys.stderr)
            return
        self._writer = ShardWriter(folder, self.recipe, self._cache)
        stack.callback(self._commit)

    def _commit(self) -> None:
        if self._writer is not None:
            self._writer.commit(self._pipeline.name)

    def features(self, photos: Sequence[KeyAndPath]) -> list[Feature | PhotoError]:
        """Return the feature of every photo, float32 (width,), or why there is none."""
        paths = dict(photos)
        found = self._from_store(paths) | self._from_cache(paths)
        missing = [(key, path) for key, path in paths.items() if key not in found]
        for (key, path), feature in self._pipeline.features(missing, self.recipe):
            if self._writer is not None and isinstance(feature, np.ndarray):
                self._writer.add(key, path, feature, self._pipeline.name)
            found[key] = feature
        return [found[key] for key, _ in photos]

    def _from_store(self, keys: Iterable[str]) -> dict[str, Feature | PhotoError]:
        """Read what the store has; one that was replaced or removed meanwhile is done without."""
        cached = [key for key in keys if key in self._store]
        try:
            return dict(zip(cached, self._store.read(cached), strict=True)) if cached else {}
        except BreedsError:
            self._store = FeatureIndex(self.recipe)
            return {}

    def _from_cache(self, keys: Iterable[str]) -> dict[str, Feature | PhotoError]:
        cached = [key for key in keys if key in self._cache]
        return dict(zip(cached, self._cache.read(cached), strict=True)) if cached else {}
