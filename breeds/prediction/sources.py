"""Where the features of photos to predict come from: the cache, a store, or the engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from breeds.backbones.pipeline import Feature, KeyAndPhoto, Pipeline
from breeds.config import FeatureConfig
from breeds.errors import BreedsError, PhotoError
from breeds.features import FeatureLookup
from breeds.features.columns import Keys
from breeds.text import mention


class Cache(Protocol):
    """Features by config and photo, as `breeds.prediction.cache.FeatureCache` keeps them."""

    def get(self, config: FeatureConfig, keys: Iterable[str]) -> dict[str, Feature]:
        """Return the features of the photos `keys` that are here, float32 (width,) each."""
        ...

    def add(self, config: FeatureConfig, key: str, feature: Feature) -> None:
        """Keep the feature of a photo, float32 (width,)."""
        ...


class FeatureSource:
    """Features of one config: from the cache, the store that a model was trained on, or the engine.

    Parameters
    ----------
    config, pipeline
        What to compute, and by what.
    cache
        What was computed for photos before, or None.
    store
        The store of the training photos; opened when something is asked for that the cache lacks,
        and done without if it is not there any more, or is of another config. None if there is none.
    """

    def __init__(
        self, config: FeatureConfig, pipeline: Pipeline, cache: Cache | None, store: Path | None
    ) -> None:
        self._config = config
        self._pipeline = pipeline
        self._cache = cache
        self._store = store
        self._looked = False
        self._lookup: FeatureLookup | None = None

    def features(
        self, photos: Sequence[KeyAndPhoto], known: Mapping[str, Feature] | None = None
    ) -> list[Feature | PhotoError]:
        """Return the feature of every photo, float32 (width,), or why there is none.

        `known` has, by key, what the same engine has just computed for some of them.
        """
        paths = dict(photos)
        found: dict[str, Feature | PhotoError] = {}
        if self._cache is not None:
            found |= self._cache.get(self._config, paths)
        if len(found) < len(paths):
            found |= self._from_store(key for key in paths if key not in found)
        for key, feature in (known or {}).items():
            if key not in found:
                found[key] = feature
                self._keep(key, feature)
        missing = [(key, path) for key, path in paths.items() if key not in found]
        for (key, _), computed in self._pipeline.features(missing, self._config):
            found[key] = computed
            if isinstance(computed, np.ndarray):
                self._keep(key, computed)
        return [found[key] for key, _ in photos]

    def _keep(self, key: str, feature: Feature) -> None:
        if self._cache is not None:
            self._cache.add(self._config, key, feature)

    def _from_store(self, keys: Iterable[str]) -> dict[str, Feature]:
        """Read what the store has; one that is damaged, or was replaced meanwhile, is done without."""
        wanted = list(keys)
        if not self._looked and self._store is not None:
            with suppress(BreedsError):  # not there any more, or of another config
                self._lookup = FeatureLookup(self._store, self._config)
        self._looked = True
        if self._lookup is None:
            return {}
        there = [wanted[row] for row in np.flatnonzero(~self._lookup.lacks(Keys.of(wanted)))]
        try:
            return dict(zip(there, self._lookup.read(there), strict=True)) if there else {}
        except BreedsError as error:
            mention(f"{self._store} is not read any more, its photos are computed again: {error}")
        self._lookup = None
        return {}
