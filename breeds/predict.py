"""Photos to answers: features from the cache or the engine, then the head, in the order asked."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from breeds.backbone import BACKBONES, Weights
from breeds.durable import check_writable, hold
from breeds.engines import get_weights, open_engine
from breeds.errors import BreedsError, PhotoError
from breeds.heads.saved import Model
from breeds.photos import decode, key_of, read, walk_photos
from breeds.pipeline import Feature, LazyEngine, Pixels, stream_features
from breeds.store import FeatureIndex, ShardWriter, Store

_BLOCK = 64


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
) -> Iterator[Answer]:
    """Answer for every photo, in order; memory does not grow with their number.

    Parameters
    ----------
    model
        The model; features are computed by its own recipe.
    weights
        ``imagenet``, ``random``, a file's path, or None for those the model was trained with,
        where they are.
    cache
        Folder where the features are kept for the next time, or None.
    workers
        Threads that read and decode.
    engine
        One of `breeds.engines.ENGINES`.

    Raises
    ------
    BreedsError
        If the weights are not there or not the model's.
    """
    chosen = _weights(model, weights) if weights else None
    first = list(islice(paths := iter(paths), 2))
    opened = LazyEngine(
        lambda: open_engine(
            model.recipe, lambda: chosen or _weights(model, None), engine, single=len(first) == 1
        )
    )
    index = FeatureIndex(model.recipe)
    _add_training_store(model, index)
    with ExitStack() as stack:
        writer = _open_cache(cache, index, stack) if cache else None
        if writer is not None:
            stack.callback(lambda: writer.commit(opened.name))
        items = map(_Photo, chain(first, paths))
        block: list[tuple[_Photo, Feature | PhotoError | None]] = []
        for photo, feature in stream_features(items, _preparer(model, index), opened, workers):
            if writer is not None and isinstance(feature, np.ndarray):
                writer.add(photo.key, photo.path, feature, opened.name)
            block.append((photo, feature))
            if len(block) == _BLOCK:
                yield from _answers(model, index, block)
                block = []
        yield from _answers(model, index, block)


def _preparer(model: Model, index: FeatureIndex) -> Callable[[_Photo], Pixels | PhotoError | None]:
    def prepare(photo: _Photo) -> Pixels | PhotoError | None:
        try:
            data = read(photo.path)
            photo.key = key_of(data)
            return None if photo.key in index else decode(data, model.recipe.size, model.recipe.resize)
        except PhotoError as error:
            return error

    return prepare


def _answers(
    model: Model, index: FeatureIndex, block: list[tuple[_Photo, Feature | PhotoError | None]]
) -> Iterator[Answer]:
    """Turn a block of features, read from the cache where they are None, into answers."""
    cached = [photo.key for photo, feature in block if feature is None]
    from_cache = iter(index.read(cached)) if cached else iter(())
    known = [
        next(from_cache) if feature is None else feature
        for _, feature in block
        if not isinstance(feature, PhotoError)
    ]
    features = np.stack(known) if known else np.empty((0, len(model.mean)), dtype=np.float32)
    unknown = model.unknown.is_unknown(features) if model.unknown else [False] * len(features)
    rows = zip(model.probabilities(features), unknown, strict=True) if known else iter(())
    for photo, feature in block:
        if isinstance(feature, PhotoError):
            yield Answer(photo.path, None, str(feature))
        else:
            probabilities, refused = next(rows)
            yield Answer(photo.path, probabilities, unknown=bool(refused))


def _weights(model: Model, spec: str | None) -> Weights:
    """Find the weights of a model's recipe, and refuse others, naming both."""
    recipe = model.recipe
    if spec is None:
        spec = recipe.weights if recipe.weights in ("imagenet", "random") else model.weights_path
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


def _add_training_store(model: Model, index: FeatureIndex) -> None:
    """Let the store that a model was trained on, if it is still there, answer for its photos."""
    path = Path(str(model.record.get("store", "")))
    try:
        store = Store.open(path)
    except BreedsError:
        return
    if store.recipe.digest == model.recipe.digest:
        index.add_file(path, store.table.key)


def _open_cache(folder: Path, index: FeatureIndex, stack: ExitStack) -> ShardWriter | None:
    """Read the cache and lock it for writing; without the lock, go on without writing."""
    try:
        check_writable(folder / "shard.h5")
        stack.enter_context(hold(folder / ".lock", f"The cache {folder}"))
        index.add_shards(folder)
        return ShardWriter(folder, index.recipe, index)
    except BreedsError as error:
        print(f"features of this run are not kept: {error}", file=sys.stderr)
        return None
