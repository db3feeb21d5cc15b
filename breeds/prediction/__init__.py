"""Photos to answers: features from the cache or the engine, then the head, in the order asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from breeds.backbones import Engine
from breeds.backbones.pipeline import Feature, KeyAndPhoto, Pipeline, run_ahead
from breeds.backbones.resolve import check_computable, open_network, weights_of
from breeds.config import FeatureConfig
from breeds.errors import BreedsError, PhotoError
from breeds.heads.model import Model
from breeds.photos import ORIGINAL, key_of
from breeds.prediction.cache import CACHE_BYTES, FeatureCache
from breeds.prediction.evidence import Evidence, Explainer
from breeds.prediction.inputs import in_chunks
from breeds.prediction.remote import AHEAD, Asked, Remote, local
from breeds.prediction.sources import FeatureSource

#: Photos that are answered together; rows come this many at a time.
_CHUNK = 128


@dataclass(frozen=True)
class Answer:
    """What a model says of one photo: probabilities, float64 (classes,), or why there are none.

    `unknown` is set for a photo that seems to be of none of the classes. `key` is the photo's, "" if it
    could not be read; `evidence`, if it was asked for, says what the answer rests on, or why not. `path` is
    what was asked for: an address on the web too, and then `file` is where the photo is for now, or "".
    """

    path: str
    probabilities: NDArray[np.float64] | None
    error: str = ""
    unknown: bool = False
    key: str = ""
    evidence: Evidence | PhotoError | None = None
    file: str = ""


def predict(
    model: Model,
    paths: Iterable[str | Asked | None],
    weights: str | None,
    cache: Path | None,
    workers: int = 2,
    engine: str = "auto",
    views: Sequence[str] = (),
    cache_size: int = CACHE_BYTES,
    explainer: Explainer | None = None,
    remote: Remote | None = None,
    opener: Callable[..., Engine] = open_network,
) -> Iterator[Answer]:
    """Answer for every photo, in order; memory does not grow with their number.

    Parameters
    ----------
    model
        The model; features are computed by its own configs.
    paths
        Photos, and None where those before are to be answered without waiting for the next, as
        `breeds.prediction.inputs.list_inputs` yields them; `Asked` is taken as it is.
    weights
        ``imagenet``, ``random``, a file's path, or None for those the model was trained with,
        where they are.
    cache
        Folder in which the features are kept for the next time, or None.
    workers
        Threads that read and decode.
    engine
        One of `breeds.backbones.registry.ENGINE_CHOICES`.
    views
        Views of every photo over which to average, beside the photo as it is.
    cache_size
        How large the cache may become, in bytes.
    explainer
        Finds the evidence for every answer; the network then runs also for photos that are known.
    remote
        Fetches the photos whose paths are addresses on the web, where all are named by their paths; without
        it they have no answer.
    opener
        Opens a network as `breeds.backbones.resolve.open_network` does.

    Raises
    ------
    BreedsError
        If the weights are not there or not the model's.
    """
    for config, _ in model.parts:
        check_computable(config)
    parts = _parts(model, weights)
    stores = [Path(str(path)) for path in (model.record.get("store", ""), *model.record.get("also", []))]
    pipelines: list[Pipeline] = []

    def largest() -> int:
        if remote is not None and remote.held:  # while these are answered, as many are fetched
            return AHEAD
        return _CHUNK

    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        kept = stack.enter_context(FeatureCache(cache, cache_size)) if cache is not None else None
        sources: list[list[FeatureSource]] = []
        for chunk, last in in_chunks(remote.files(paths) if remote else local(paths), largest):
            if not sources:
                single = last and len(chunk) == 1 and not views
                pipelines += [
                    stack.enter_context(
                        Pipeline(partial(opener, model, part, weights, engine, single), workers)
                    )
                    for part in parts
                ]
                sources = _sources(model, pipelines, kept, stores, views)
            keys = [key for _, key in run_ahead(pool, _key, chunk, window=64)]
            evidence = explainer.explain(_found(zip(keys, chunk, strict=True))) if explainer else {}
            yield from _answers(model, sources, chunk, keys, evidence)
            if remote:
                remote.release(chunk)


def _sources(
    model: Model,
    pipelines: list[Pipeline],
    cache: FeatureCache | None,
    stores: list[Path],
    views: Sequence[str],
) -> list[list[FeatureSource]]:
    """Return, for each view, the source of each of the model's configs; stores hold no views."""
    return [
        [
            FeatureSource(replace(config, view=view), pipeline, cache, store if view == ORIGINAL else None)
            for (config, _), pipeline, store in zip(model.parts, pipelines, stores, strict=True)
        ]
        for view in (ORIGINAL, *views)
    ]


def _key(photo: Asked) -> str | PhotoError:
    try:
        return key_of(photo.photo().read())
    except PhotoError as error:
        reason = str(error)
    return PhotoError(reason)


def _found(photos: Iterable[tuple[str | PhotoError, Asked]]) -> list[KeyAndPhoto]:
    """Return key and file of the photos that could be read."""
    return [(key, photo.photo()) for key, photo in photos if isinstance(key, str)]


def _answers(
    model: Model,
    sources: list[list[FeatureSource]],
    asked: Sequence[Asked],
    keys: Sequence[str | PhotoError],
    evidence: Mapping[str, Evidence | PhotoError],
) -> Iterator[Answer]:
    """Answer for a chunk of photos: features beside each other, probabilities averaged over views."""
    errors = {i: str(key) for i, key in enumerate(keys) if isinstance(key, PhotoError)}
    total = np.zeros((len(asked), len(model.classes)))
    unknown = np.zeros(len(asked), dtype=bool)
    known = {key: one.explanation.feature for key, one in evidence.items() if isinstance(one, Evidence)}
    for number, of_view in enumerate(sources):
        good = [i for i in range(len(asked)) if i not in errors]
        photos = _found((keys[i], asked[i]) for i in good)
        columns = [source.features(photos, {} if number else known) for source in of_view]
        for column in columns:
            errors |= {
                i: str(found) for i, found in zip(good, column, strict=True) if isinstance(found, PhotoError)
            }
        kept = [place for place, i in enumerate(good) if i not in errors]
        if not kept:
            break
        features = np.hstack([np.stack([column[place] for place in kept]) for column in columns])  # type: ignore[misc]
        rows = [good[place] for place in kept]
        total[rows] += model.probabilities(features) / len(sources)
        if number == 0 and model.unknown is not None:
            unknown[rows] = model.unknown.is_unknown(features)
    for i, photo in enumerate(asked):
        if i in errors:
            yield Answer(photo.name, None, errors[i])
        else:
            key, file = str(keys[i]), photo.file
            yield Answer(
                photo.name, total[i], "", bool(unknown[i]), key, evidence.get(key),
                file if isinstance(file, str) and file != photo.name else "",
            )  # fmt: skip


def answer_of(model: Model, path: str, key: str, feature: Feature) -> Answer:
    """Return the answer for one photo by its feature, float32 (width,), of all the model's configs."""
    row = feature[None]
    unknown = model.unknown is not None and bool(model.unknown.is_unknown(row)[0])
    return Answer(path, model.probabilities(row)[0], unknown=unknown, key=key)


def _parts(model: Model, spec: str | None) -> list[tuple[FeatureConfig, str]]:
    """Return the model's configs with their weights; check what the user names at once."""
    if spec is not None:
        if len(model.parts) > 1:
            raise BreedsError(
                "--weights names one file, but this model rests on several networks; leave it out, and "
                "keep the weights where they were at training."
            )
        weights_of(model.parts[0], spec)
    return model.parts
