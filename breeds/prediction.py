"""Photos to answers: features at hand or from the network, then the head, in the order of the photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from breeds.backbones import Engine
from breeds.backbones.pipeline import Feature, KeyAndPhoto, Pipeline
from breeds.backbones.resolve import check_computable, open_network, weights_of
from breeds.config import FeatureConfig
from breeds.errors import BreedsError, PhotoError
from breeds.features import FeatureLookup
from breeds.features.cache import CACHE_BYTES, FeatureCache
from breeds.features.columns import Keys
from breeds.heads.explain import Explanation, Neighbour, TrainingPhotos, check_explainable, explanation_of
from breeds.heads.model import Model
from breeds.machine import cores
from breeds.photos import ORIGINAL, Photo
from breeds.text import mention

# Photos that are answered together; rows come this many at a time.
_CHUNK = 128


@dataclass(frozen=True)
class Evidence:
    """Where the network looked, and the training photos most like the photo, if their store is there."""

    explanation: Explanation
    nearest: list[Neighbour]


@dataclass(frozen=True)
class Answer:
    """What a model says of one photo: probabilities, float64 (classes,), or why there are none.

    `unknown` is set for a photo that seems to be of none of the classes. `key` is the photo's, "" if it
    could not be read; `evidence`, if it was asked for, says what the answer rests on, or why not. `path` is
    what was asked for: an address on the web too, and `photo` is what was read for it.
    """

    path: str
    probabilities: NDArray[np.float64] | None
    error: str = ""
    unknown: bool = False
    key: str = ""
    evidence: Evidence | PhotoError | None = None
    photo: Photo | None = None


class Predictor:
    """A model with its networks open, which answers photos, for one call at a time.

    The networks are opened for the first photo whose feature is not at hand, and stay open.

    Parameters
    ----------
    model
        The model; features are computed by its own configs.
    weights
        ``imagenet``, ``random``, a file's path, or None for those the model was trained with, where they are.
    engine
        One of `breeds.backbones.ENGINE_CHOICES`.
    workers
        Threads that read and decode; None for as many as there are cores.
    views
        Augmentations of every photo over which to average, beside the photo as it is.
    cache
        Folder in which features are kept for the next time, or None.
    cache_bytes
        How large the cache may become.
    explain
        Find the evidence for every answer: the network then runs also for photos whose features are at hand.
    opener
        Opens a network as `breeds.backbones.resolve.open_network` does.

    Raises
    ------
    BreedsError
        If the model cannot be computed, or explained, or the weights are not there or not the model's.

    Examples
    --------
    >>> import breeds
    >>> with breeds.Predictor(breeds.load("models/photos.safetensors")) as predictor:
    ...     table = breeds.predict(predictor, [b"no photo"])
    >>> table.error[0][:26]
    'not a photo of a known for'
    """

    def __init__(
        self,
        model: Model,
        *,
        weights: str | None = None,
        engine: str = "auto",
        workers: int | None = None,
        views: Sequence[str] = (),
        cache: Path | None = None,
        cache_bytes: int = CACHE_BYTES,
        explain: bool = False,
        opener: Callable[..., Engine] = open_network,
    ) -> None:
        _check(model, weights)
        if explain:
            check_explainable(model)
        self.model = model
        self._how = weights, engine
        self._opener = opener
        self._views = (ORIGINAL, *views)
        self._explain = explain
        self._single = False
        self._training: TrainingPhotos | None = None
        self._cleanup = ExitStack()
        self._pipelines = [
            self._cleanup.enter_context(Pipeline(partial(self._open, number), workers or cores()))
            for number in range(len(model.parts))
        ]
        self._caches: list[Cache] = []
        if cache is not None:
            self._caches.append(self._cleanup.enter_context(FeatureCache(cache, cache_bytes)))
        self._stores = [
            TrainingFeatures(path) for path in (model.record.get("store", ""), *model.record.get("also", []))
        ]

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.__exit__(kind, error, trace)

    def _open(self, number: int) -> Engine:
        model = self.model
        return self._opener(model, model.parts[number], *self._how, self._single, maps=self._explain)

    def warm(self) -> None:
        """Open the networks, and let each compute something, which takes longer the first time.

        Raises
        ------
        BreedsError
            If that cannot be done.
        """
        for (config, _), pipeline in zip(self.model.parts, self._pipelines, strict=True):
            pipeline.warm(config.size)

    def use(self, model: Model) -> bool:
        """Answer with another model from now on, if it rests on the same networks; else return False."""
        if [config for config, _ in model.parts] != [config for config, _ in self.model.parts]:
            return False
        self.model, self._training = model, None
        return True

    def answers(self, photos: Iterable[Photo | None]) -> Iterator[Answer]:
        """Answer for every photo, in order; memory does not grow with their number.

        Parameters
        ----------
        photos
            None among them is where those before are to be answered without waiting for the next.

        Raises
        ------
        BreedsError
            If the networks cannot be opened.
        """
        for chunk, is_last in _chunks(photos):
            self._single = is_last and len(chunk) == 1 and len(self._views) == 1
            yield from self._answer(chunk)

    def _answer(self, photos: Sequence[Photo]) -> Iterator[Answer]:
        """Answer some photos: features beside each other, probabilities averaged over views."""
        model = self.model
        keyed: dict[int, KeyAndPhoto] = {}
        errors: dict[int, str] = {}
        for i, (photo, key) in enumerate(self._pipelines[0].identify(photos)):
            if isinstance(key, PhotoError):
                errors[i] = str(key)
            else:
                keyed[i] = key, photo
        evidence = self._evidence(keyed.values()) if self._explain else {}
        known = {key: one.explanation.feature for key, one in evidence.items() if isinstance(one, Evidence)}
        total = np.zeros((len(photos), len(model.classes)))
        unknown = np.zeros(len(photos), dtype=bool)
        for view in self._views:
            rows = [i for i in keyed if i not in errors]
            columns = self._features([keyed[i] for i in rows], view, known if view == ORIGINAL else {})
            for column in columns:
                errors |= {i: str(f) for i, f in zip(rows, column, strict=True) if isinstance(f, PhotoError)}
            good = [place for place, i in enumerate(rows) if i not in errors]
            if not good:
                break
            features = np.hstack([np.stack([column[place] for place in good]) for column in columns])  # type: ignore[misc]
            rows = [rows[place] for place in good]
            total[rows] += model.probabilities(features) / len(self._views)
            if view == ORIGINAL and model.unknown is not None:
                unknown[rows] = model.unknown.is_unknown(features)
        for i, photo in enumerate(photos):
            if i in errors:
                yield Answer(photo.name, None, errors[i])
            else:
                key = keyed[i][0]
                yield Answer(photo.name, total[i], "", bool(unknown[i]), key, evidence.get(key), photo)

    def _features(
        self, photos: Sequence[KeyAndPhoto], view: str, known: Mapping[str, Feature]
    ) -> list[list[Feature | PhotoError]]:
        """Return the features of photos for each of the model's configs; stores hold no views."""
        return [
            features_of(
                photos,
                replace(config, view=view),
                pipeline,
                [*self._caches, store] if view == ORIGINAL else self._caches,
                known,
            )
            for (config, _), pipeline, store in zip(
                self.model.parts, self._pipelines, self._stores, strict=True
            )
        ]

    def _evidence(self, photos: Iterable[KeyAndPhoto]) -> dict[str, Evidence | PhotoError]:
        """Return, by key, the evidence for each different photo, or why there is none."""
        if self._training is None:
            self._training = TrainingPhotos(self.model)
        result: dict[str, Evidence | PhotoError] = {}
        explained = {}
        for (key, _), found in self._pipelines[0].maps(dict(photos).items(), self.model.config):
            if isinstance(found, PhotoError):
                result[key] = found
            else:
                explained[key] = explanation_of(self.model, *found)
        if explained:
            nearest = self._training.nearest(np.stack([one.feature for one in explained.values()]))
            for (key, one), alike in zip(explained.items(), nearest, strict=True):
                result[key] = Evidence(one, alike)
        return result


def predict(
    model: Model, photos: Iterable[Photo | None], weights: str | None = None, cache: Path | None = None,
    **options: Any,
) -> Iterator[Answer]:  # fmt: skip
    """Answer for every photo, in order, with a `Predictor` that these options make."""
    with Predictor(model, weights=weights, cache=cache, **options) as predictor:
        yield from predictor.answers(photos)


def _check(model: Model, weights: str | None) -> None:
    """Refuse what this version cannot compute, and weights that are none of the model's."""
    for config, _ in model.parts:
        check_computable(config)
    if weights is None:
        return
    if len(model.parts) > 1:
        raise BreedsError(
            "--weights names one file, but this model rests on several networks; leave it out, and "
            "keep the weights where they were at training."
        )
    weights_of(model.parts[0], weights)


def _chunks(photos: Iterable[Photo | None]) -> Iterator[tuple[list[Photo], bool]]:
    """Yield photos together, as many as are there at once, and whether these are known to be the last."""
    chunk: list[Photo] = []
    for photo in photos:
        if photo is not None:
            chunk.append(photo)
        if chunk and (photo is None or len(chunk) >= _CHUNK):
            yield chunk, False
            chunk = []
    if chunk:
        yield chunk, True


class Cache(Protocol):
    """Features by config and photo, as `breeds.features.cache.FeatureCache` keeps them."""

    def get(self, config: FeatureConfig, keys: Iterable[str]) -> dict[str, Feature]:
        """Return the features of the photos `keys` that are here, float32 (width,) each."""
        ...

    def add(self, config: FeatureConfig, key: str, feature: Feature) -> None:
        """Keep the feature of a photo, float32 (width,)."""
        ...


def features_of(
    photos: Sequence[KeyAndPhoto],
    config: FeatureConfig,
    pipeline: Pipeline,
    caches: Sequence[Cache],
    known: Mapping[str, Feature] | None = None,
) -> list[Feature | PhotoError]:
    """Return the feature of every photo, float32 (width,), or why there is none; none is computed twice.

    Parameters
    ----------
    caches
        Are asked one after the other, and are given what was computed.
    known
        By key, what the same network has just computed for some of the photos.
    """
    different = dict(photos)
    found: dict[str, Feature | PhotoError] = {}
    for cache in caches:
        if len(found) < len(different):
            found |= cache.get(config, [key for key in different if key not in found])
    new = {key: feature for key, feature in (known or {}).items() if key not in found}
    missing = [photo for photo in different.items() if photo[0] not in found and photo[0] not in new]
    for key, feature in new.items():
        found[key] = _kept(feature, key, config, caches)
    for (key, _), computed in pipeline.features(missing, config):
        found[key] = computed if isinstance(computed, PhotoError) else _kept(computed, key, config, caches)
    return [found[key] for key, _ in photos]


def _kept(feature: Feature, key: str, config: FeatureConfig, caches: Sequence[Cache]) -> Feature:
    for cache in caches:
        cache.add(config, key, feature)
    return feature


class TrainingFeatures:
    """The features of the store that a model was trained on, as a cache that keeps nothing.

    Parameters
    ----------
    path
        The store; opened when something is asked for, and done without if it is not there any more, is of
        another config, or damaged. "" if there is none.
    """

    def __init__(self, path: str) -> None:
        self._path = str(path)
        self._looked = False
        self._lookup: FeatureLookup | None = None

    def get(self, config: FeatureConfig, keys: Iterable[str]) -> dict[str, Feature]:
        """Return what the store has; one that is damaged, or was replaced meanwhile, is done without."""
        if not self._looked and self._path:
            with suppress(BreedsError):  # it is not there any more, or of another config
                self._lookup = FeatureLookup(Path(self._path), config)
        self._looked = True
        if self._lookup is None:
            return {}
        wanted = list(keys)
        try:
            there = [wanted[row] for row in np.flatnonzero(~self._lookup.lacks(Keys.of(wanted)))]
            return dict(zip(there, self._lookup.read(there), strict=True)) if there else {}
        except BreedsError as error:
            mention(f"{self._path} is not read any more, its photos are computed again: {error}")
        self._lookup = None
        return {}

    def add(self, config: FeatureConfig, key: str, feature: Feature) -> None:
        """Keep nothing: the store is left as it is."""
