"""Photos to answers: features from the cache or the engine, then the head, in the order asked."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from breeds.backbone import BACKBONES, DECODE_RULE, LARGEST_SIZE, Recipe, Weights
from breeds.durable import check_writable, hold
from breeds.engines import Engine, get_weights, open_engine
from breeds.errors import BreedsError, PhotoError
from breeds.heads.saved import Model
from breeds.photos import ORIGINAL, RESIZES, decode, key_of, read, walk_photos
from breeds.pipeline import Feature, LazyEngine, Pixels, stream_features
from breeds.store import FeatureIndex, ShardWriter, Store

#: Photos that are answered together; rows come this many at a time.
_CHUNK = 128


@dataclass(frozen=True)
class Answer:
    """What a model says of one photo: probabilities, float64 (classes,), or why there are none.

    `unknown` is set for a photo that seems to be of none of the classes.
    """

    path: str
    probabilities: NDArray[np.float64] | None
    error: str = ""
    unknown: bool = False


@dataclass
class _Photo:
    path: str
    key: str = ""


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
                for inside in walk_photos(Path(path))[0]:
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
        Threads that read and decode.
    engine
        One of `breeds.engines.ENGINES`.
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
    with ExitStack() as stack:
        opened = [
            LazyEngine(partial(_open, part, weights, engine, len(chunk) == 1 and not views))
            for part in _parts(model, weights)
        ]
        sources = [
            [_Source(replace(part[0], view=view), opened[i], workers) for i, part in enumerate(model.parts)]
            for view in (ORIGINAL, *views)
        ]
        for source in sources[0]:
            source.use_store(Path(str(model.record.get("store", ""))))
        for source in (source for of_view in sources for source in of_view):
            if cache is not None:
                source.use_cache(cache / f"features-{source.recipe.digest[:12]}.shards", stack)
        while chunk:
            yield from _answers(model, sources, chunk)
            chunk = list(islice(paths, _CHUNK))


class _Source:
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


def _answers(model: Model, sources: list[list[_Source]], paths: Sequence[str]) -> Iterator[Answer]:
    """Answer for a chunk of photos: features beside each other, probabilities averaged over views."""
    errors: dict[int, str] = {}
    total: NDArray[np.float64] | None = None
    unknown: NDArray[np.bool_] | None = None
    for of_view in sources:
        columns = [source.features(paths) for source in of_view]
        for column in columns:
            errors |= {i: str(found) for i, found in enumerate(column) if isinstance(found, PhotoError)}
        good = [i for i in range(len(paths)) if i not in errors]
        if not good:
            break
        features = np.hstack([np.stack([column[i] for i in good]) for column in columns])  # type: ignore[misc]
        answers = model.probabilities(features) / len(sources)
        total = answers if total is None else total + answers
        if unknown is None and model.unknown is not None:
            unknown = model.unknown.is_unknown(features)
    number = 0
    for i, path in enumerate(paths):
        if i in errors or total is None:
            yield Answer(path, None, errors[i])
            continue
        yield Answer(path, total[number], unknown=bool(unknown is not None and unknown[number]))
        number += 1


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


def _open(part: tuple[Recipe, str], spec: str | None, engine: str, single: bool) -> Engine:
    return open_engine(part[0], lambda: _weights(part, spec), engine, single=single)


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
