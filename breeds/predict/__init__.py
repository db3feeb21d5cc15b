"""Photos to answers: features from the cache or the engine, then the head, in the order asked."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from breeds.engines import Engine
from breeds.engines.backbones import BACKBONES, LARGEST_SIZE
from breeds.engines.choose import open_engine
from breeds.engines.pipeline import Pipeline, run_ahead
from breeds.engines.weights import Weights, get_weights
from breeds.errors import BreedsError, PhotoError
from breeds.heads.model import Model
from breeds.photos import ORIGINAL, RESIZES, key_of, read, walk_photos
from breeds.predict.sources import FeatureSource
from breeds.recipe import DECODE_RULE, Recipe
from breeds.store.calibration import recorded_sample

#: Photos that are answered together; rows come this many at a time. A GPU wants several batches at once.
_CHUNK, _GPU_CHUNK = 128, 2048


@dataclass(frozen=True)
class Answer:
    """What a model says of one photo: probabilities, float64 (classes,), or why there are none.

    `unknown` is set for a photo that seems to be of none of the classes.
    """

    path: str
    probabilities: NDArray[np.float64] | None
    error: str = ""
    unknown: bool = False


def list_inputs(arguments: Sequence[str], stdin: Iterable[str]) -> Iterator[str]:
    """Give the path of every photo that the arguments name, in their order.

    Parameters
    ----------
    arguments
        Files (whatever they are called), folders (their photos, at any depth), patterns such as
        ``*.jpg``, or ``-`` for a list of files and folders, one on each line of `stdin`.

    Raises
    ------
    BreedsError
        At once, if something named on the command line is not there.
    """
    plan = [(name, _matches(name)) for name in arguments]

    def walk() -> Iterator[str]:
        for name, matches in plan:
            for path in (line.rstrip("\r\n") for line in stdin) if name == "-" else matches:
                if not os.path.isdir(path):
                    yield from [path] if path else []
                    continue
                for inside in walk_photos(Path(path), list_unreadable=True)[0]:
                    yield os.path.join(path, inside)

    return walk()


def _matches(name: str) -> list[str]:
    if name == "-" or os.path.exists(name):
        return [name]
    found = sorted(glob.glob(name, recursive=True))
    if not found:
        raise BreedsError(f"No such file or folder: {name}; nothing was predicted.")
    return found


def predict(
    model: Model,
    paths: Iterable[str],
    weights: str | None,
    cache: Path | None,
    workers: int = 2,
    engine: str = "auto",
    views: Sequence[str] = (),
) -> Iterator[Answer]:
    """Answer for every photo, in order; memory does not grow with their number.

    Parameters
    ----------
    model
        The model; features are computed by its own recipes.
    weights
        ``imagenet``, ``random``, a file's path, or None for those the model was trained with,
        where they are.
    cache
        Folder in which the features are kept for the next time, a folder for each recipe, or None.
    workers
        Threads that read and decode, or processes beside a GPU.
    engine
        One of `breeds.engines.choose.ENGINES`.
    views
        Views of every photo over which to average, beside the photo as it is.

    Raises
    ------
    BreedsError
        If the weights are not there or not the model's.
    """
    for recipe, _ in model.parts:
        _check_computable(recipe)
    paths = iter(paths)
    chunk = list(islice(paths, _CHUNK))
    single = len(chunk) == 1 and not views
    stores = [Path(str(path)) for path in (model.record.get("store", ""), *model.record.get("also", []))]
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        pipelines = [
            stack.enter_context(Pipeline(partial(_open, part, store, weights, engine, single), workers))
            for part, store in zip(_parts(model, weights), stores, strict=True)
        ]
        sources = [
            [FeatureSource(replace(part[0], view=view), pipelines[i]) for i, part in enumerate(model.parts)]
            for view in (ORIGINAL, *views)
        ]
        for source, store in zip(sources[0], stores, strict=True):
            source.use_store(store)
        for source in (source for of_view in sources for source in of_view):
            if cache is not None:
                source.use_cache(cache / f"features-{source.recipe.digest[:12]}.shards", stack)
        while chunk:
            keys = [key for _, key in run_ahead(pool, _key, chunk, window=64)]
            yield from _answers(model, sources, chunk, keys)
            fast = any(pipeline.outruns_threads for pipeline in pipelines)
            chunk = list(islice(paths, _GPU_CHUNK if fast else _CHUNK))


def _key(path: str) -> str | PhotoError:
    try:
        return key_of(read(path))
    except PhotoError as error:
        return error


def _answers(
    model: Model, sources: list[list[FeatureSource]], paths: Sequence[str], keys: Sequence[str | PhotoError]
) -> Iterator[Answer]:
    """Answer for a chunk of photos: features beside each other, probabilities averaged over views."""
    errors = {i: str(key) for i, key in enumerate(keys) if isinstance(key, PhotoError)}
    total = np.zeros((len(paths), len(model.classes)))
    unknown = np.zeros(len(paths), dtype=bool)
    for number, of_view in enumerate(sources):
        good = [i for i in range(len(paths)) if i not in errors]
        columns = [source.features([(str(keys[i]), paths[i]) for i in good]) for source in of_view]
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
    for i, path in enumerate(paths):
        if i in errors:
            yield Answer(path, None, errors[i])
        else:
            yield Answer(path, total[i], unknown=bool(unknown[i]))


def _parts(model: Model, spec: str | None) -> list[tuple[Recipe, str]]:
    """Return the model's recipes with their weights; check what the user names at once."""
    if spec is not None:
        if len(model.parts) > 1:
            raise BreedsError(
                "--weights names one file, but this model rests on several networks; leave it out, and "
                "keep the weights where they were at training."
            )
        _weights(model.parts[0], spec)
    return model.parts


def _check_computable(recipe: Recipe) -> None:
    """Refuse a recipe that this version of Breeds cannot follow to the letter."""
    backbone = BACKBONES.get(recipe.backbone)
    if (
        backbone is None
        or not backbone.smallest <= recipe.size <= LARGEST_SIZE
        or recipe.resize not in RESIZES
        or recipe.view != ORIGINAL
        or recipe.decode_rule != DECODE_RULE
    ):
        raise BreedsError(
            f"The model was trained on a recipe that this version of Breeds does not know ({recipe}); "
            f"extract and train again."
        )


def _open(part: tuple[Recipe, str], store: Path, spec: str | None, engine: str, single: bool) -> Engine:
    sample = recorded_sample(store, part[0]) if part[0].precision == "int8" else None
    return open_engine(part[0], lambda: _weights(part, spec), engine, sample, single)


def _weights(part: tuple[Recipe, str], spec: str | None) -> Weights:
    """Find the weights of a model's recipe, and refuse others, naming both."""
    recipe, path = part
    if spec is None:
        spec = recipe.weights if recipe.weights in ("imagenet", "random") else path
        if not spec or (recipe.weights not in ("imagenet", "random") and not os.path.isfile(spec)):
            raise BreedsError(
                f"The weights {recipe.weights} ({recipe.weights_sha256[:12]}) that the model was trained "
                f"with are not at {spec or 'a known place'} any more; say where with --weights PATH."
            )
    found = get_weights(spec, BACKBONES[recipe.backbone])
    if found.sha256 != recipe.weights_sha256:
        raise BreedsError(
            f"The model was trained on the weights {recipe.weights} ({recipe.weights_sha256[:12]}), but "
            f"--weights {spec} is {found.name} ({found.sha256[:12]}); name the same weights."
        )
    return found
