"""What an answer rests on: where the network looked, and which training photos are most like the photo."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from breeds.backbones.pipeline import KeyAndPhoto
from breeds.errors import BreedsError, PhotoError
from breeds.features import Store
from breeds.heads.explain import Explanation, explain_with, open_maps
from breeds.heads.model import Model
from breeds.heads.neighbours import NEAREST, Neighbour, Neighbours
from breeds.text import mention


@dataclass(frozen=True)
class Evidence:
    """Where the network looked, and the training photos most like the photo, if their store is there."""

    explanation: Explanation
    nearest: list[Neighbour]


class Explainer:
    """Finds the evidence for a model's answers.

    Parameters
    ----------
    model, weights, engine, workers
        As `breeds.heads.explain.explain` takes them.

    Raises
    ------
    BreedsError
        If the model's answers cannot be explained, or its weights are not there.
    """

    def __init__(self, model: Model, weights: str | None, engine: str = "auto", workers: int = 2) -> None:
        self._model = model
        self._pipeline = open_maps(model, weights, engine, workers)
        self._training = TrainingPhotos(model)

    def __enter__(self) -> Explainer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipeline.__exit__(kind, error, trace)

    def explain(self, photos: Iterable[KeyAndPhoto]) -> dict[str, Evidence | PhotoError]:
        """Return, by key, the evidence for each different photo, or why there is none."""
        paths = dict(photos)
        found = dict(zip(paths, explain_with(self._pipeline, self._model, paths.items()), strict=True))
        good = {key: one for key, one in found.items() if isinstance(one, Explanation)}
        nearest = dict(zip(good, self._nearest(list(good.values())), strict=True))
        return {
            key: Evidence(one, nearest[key]) if isinstance(one, Explanation) else one
            for key, one in found.items()
        }

    def _nearest(self, explanations: list[Explanation]) -> list[list[Neighbour]]:
        if not explanations:
            return []
        return self._training.nearest(np.stack([one.feature for one in explanations]))


class TrainingPhotos:
    """The photos that a model was trained on, as long as their store is there; else it says so once.

    Parameters
    ----------
    model
        The model.
    store
        Its store, if that is open already; by default, where it was at training.
    """

    def __init__(self, model: Model, store: Store | None = None) -> None:
        self._neighbours: Neighbours | None = None
        path = str(model.record.get("store", ""))
        try:
            store = store or Store(Path(path), corrected=True)
            if store.config.digest == model.config.digest:
                self._neighbours = Neighbours(store, model.seen_keys())
            else:
                self._do_without(f"{path} is of another config now.")
        except BreedsError as error:
            self._do_without(str(error))

    def nearest(self, features: NDArray[np.float32], k: int = NEAREST) -> list[list[Neighbour]]:
        """Return, for each feature, float32 (n, width), the `k` training photos most like it, or none."""
        if self._neighbours is not None:
            try:
                return self._neighbours.nearest(features, k)
            except BreedsError as error:
                self._do_without(str(error))
        return [[] for _ in features]

    def _do_without(self, reason: str) -> None:
        self._neighbours = None
        mention(f"the nearest training photos are left out: {reason}")
