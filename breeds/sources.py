"""Where the features of photos to predict come from: a store, the cache, or the engine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from breeds.backbone import Recipe
from breeds.durable import check_writable, hold
from breeds.errors import BreedsError, PhotoError
from breeds.photos import decode, key_of, read
from breeds.pipeline import Feature, LazyEngine, Pixels, stream_features
from breeds.store import FeatureIndex, ShardWriter, Store


@dataclass
class _Photo:
    path: str
    key: str = ""


class FeatureSource:
    """Where features of one recipe come from: a store, the cache, or the engine."""

    def __init__(self, recipe: Recipe, engine: LazyEngine, workers: int) -> None:
        self.recipe = recipe
        self._engine = engine
        self._workers = workers
        self._index = FeatureIndex(recipe)
        self._writer: ShardWriter | None = None

    def use_store(self, path: Path) -> None:
        """Let the store that a model was trained on, if it is still there, answer for its photos."""
        try:
            store = Store.open(path)
        except BreedsError:
            return
        if store.recipe.digest == self.recipe.digest:
            self._index.add_file(path, store.table.key)

    def use_cache(self, folder: Path, stack: ExitStack) -> None:
        """Read the cache and lock it for writing; without the lock, go on without writing."""
        try:
            check_writable(folder / "shard.h5")
            stack.enter_context(hold(folder / ".lock", f"The cache {folder}"))
            self._index.add_shards(folder)
        except BreedsError as error:
            print(f"features of this run are not kept: {error}", file=sys.stderr)
            return
        self._writer = ShardWriter(folder, self.recipe, self._index)
        stack.callback(self._commit)

    def _commit(self) -> None:
        if self._writer is not None:
            self._writer.commit(self._engine.name)

    def features(self, paths: Sequence[str]) -> list[Feature | PhotoError]:
        """Return the feature of every photo, float32 (width,), or why there is none."""
        photos = [_Photo(path) for path in paths]
        found: list[Feature | PhotoError | None] = []
        for photo, feature in stream_features(photos, self._prepare, self._engine, self._workers):
            if self._writer is not None and isinstance(feature, np.ndarray):
                self._writer.add(photo.key, photo.path, feature, self._engine.name)
            found.append(feature)
        cached = [photo.key for photo, feature in zip(photos, found, strict=True) if feature is None]
        from_cache = iter(self._index.read(cached) if cached else ())
        return [next(from_cache) if feature is None else feature for feature in found]

    def _prepare(self, photo: _Photo) -> Pixels | PhotoError | None:
        try:
            data = read(photo.path)
            photo.key = key_of(data)
            if photo.key in self._index:
                return None
            return decode(data, self.recipe.size, self.recipe.resize, self.recipe.view)
        except PhotoError as error:
            return error
