"""The inference service: one engine for all requests, which wait in a queue and are answered in order."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from breeds.backbones import Engine
from breeds.backbones.pipeline import Pipeline
from breeds.backbones.resolve import check_computable, open_network
from breeds.errors import BreedsError, PhotoError
from breeds.heads.explain import Explanation, check_explainable, explanation_of
from breeds.heads.model import Model
from breeds.machine import cores
from breeds.photos import MemoryPhoto, Photo, key_of
from breeds.prediction import Answer, answer_of
from breeds.text import say

#: How many photos may wait, over all requests.
MOST_WAITING = 1024
# With so few cores, all of them on one photo are as fast as each on its own, and the first answer is sooner.
_FEW_CORES = 4
# Photos of the store whose answers are kept, for several pictures of each; each takes 800 bytes for every
# class and more for large photos: 12 MB for 120 breeds.
_KEPT = 128


class BusyError(Exception):
    """Too many photos wait already; `seconds` says when to come again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Too many photos wait already; try again in {seconds} seconds.")
        self.seconds = seconds


@dataclass(frozen=True)
class Answered:
    """An answer, the model that gave it, and what it rests on, if that can be told."""

    answer: Answer
    model: Model
    explanation: Explanation | None = None


class InferenceService:
    """Answers the photos of all requests with one model, which can be exchanged at any time.

    One thread computes: its queue is the queue of requests. Who leaves takes with them what has not begun.

    Parameters
    ----------
    model
        The first model.
    engine
        One of `breeds.backbones.registry.ENGINE_CHOICES`.
    workers
        Threads that read and decode.
    most_waiting
        How many photos may wait, over all requests.
    opener
        Opens a network as `breeds.backbones.resolve.open_network` does.
    """

    def __init__(
        self,
        model: Model,
        engine: str = "auto",
        workers: int = 2,
        most_waiting: int = MOST_WAITING,
        opener: Callable[..., Engine] = open_network,
    ) -> None:
        self.model = model
        self.failure = ""
        self.waiting = 0
        self._open = partial(_Networks, engine=engine, workers=workers, opener=opener)
        self._most_waiting = most_waiting
        self._networks: _Networks | None = None
        self._thread = ThreadPoolExecutor(1)
        self._kept: dict[str, Answered] = {}
        self._stop = threading.Event()

    def start(self) -> Future[None]:
        """Open the networks in the background, and let them compute once, which takes longer at first."""
        return self._thread.submit(self._warm_up)

    def close(self) -> None:
        """End soon, whatever still waits."""
        self._stop.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def warm(self) -> bool:
        """Whether the networks are open, so that the next photo need not wait for them."""
        return self._networks is not None and self._networks.warm

    def use(self, model: Model) -> None:
        """Answer with another model from now on; the networks stay open if they are the same."""
        self.model = model
        self.start()

    def check_room(self, photos: int = 1) -> None:
        """Make sure that so many photos can wait.

        Raises
        ------
        BusyError
            If not.
        """
        if self.waiting + photos > self._most_waiting:
            raise BusyError(1 + self.waiting // 10)

    async def answers(self, photos: Sequence[Photo], explain: bool = False) -> list[Answered]:
        """Answer for photos, in order; when this is cancelled, nothing more of it is computed.

        Parameters
        ----------
        photos
            One that cannot be read is answered with its reason.
        explain
            Give the explanations too, where the model has any.

        Raises
        ------
        BusyError
            If too many wait already.
        BreedsError
            If the network cannot be opened.
        """
        self.check_room(len(photos))
        stop = threading.Event()
        self.waiting += len(photos)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._answered, photos, explain, stop)
        finally:
            stop.set()
            self.waiting -= len(photos)

    async def explained(self, key: str, photo: Photo) -> Answered:
        """Answer for a photo of the store with an explanation: computed once for all pictures of it.

        Raises
        ------
        BreedsError
            If the network cannot be opened.
        """

        def answer() -> Answered:
            found = self._kept.pop(key, None)
            if found is None or found.model is not self.model or found.explanation is None:
                (found,) = self._answered([photo], True, self._stop)
            self._kept[key] = found  # as the newest
            while len(self._kept) > _KEPT:
                self._kept.pop(next(iter(self._kept)))
            return found

        return await asyncio.get_running_loop().run_in_executor(self._thread, answer)

    # In the thread that computes

    def _answered(self, photos: Sequence[Photo], explain: bool, stop: threading.Event) -> list[Answered]:
        found = []
        try:
            for answer in self._opened().answers(self.model, photos, explain):
                found.append(answer)
                if stop.is_set() or self._stop.is_set():
                    break
            self.failure = ""
        except BreedsError as error:
            self.failure = str(error)
            raise
        return found

    def _opened(self) -> _Networks:
        networks = self._networks
        if networks is None or not networks.fits(self.model):
            if networks is not None:
                networks.close()
            networks = self._networks = self._open(self.model)
        return networks

    def _warm_up(self) -> None:
        try:
            if not self.warm or not self._opened().fits(self.model):
                self._answered([_blank()], False, self._stop)
        except Exception as error:  # whatever it is, the thread goes on: another model may be used
            self.failure = str(error) or type(error).__name__
            say(f"no photo can be answered: {self.failure}", file=sys.stderr)


class _Networks:
    """The networks that a model rests on, and others of the same configs; opened for the first photo."""

    def __init__(self, model: Model, engine: str, workers: int, opener: Callable[..., Engine]) -> None:
        self._configs = [config for config, _ in model.parts]
        for config in self._configs:
            check_computable(config)
        try:
            check_explainable(model)
            self._maps = True
        except BreedsError:  # several networks, or one without a map: answered, but not explained
            self._maps = False
        single = cores() <= _FEW_CORES
        self._pipelines = [
            Pipeline(partial(opener, model, part, None, engine, single, self._maps), workers)
            for part in model.parts
        ]

    @property
    def warm(self) -> bool:
        return all(pipeline.name for pipeline in self._pipelines)

    def fits(self, model: Model) -> bool:
        return [config for config, _ in model.parts] == self._configs

    def close(self) -> None:
        for pipeline in self._pipelines:
            pipeline.__exit__(None, None, None)

    def answers(self, model: Model, photos: Sequence[Photo], explain: bool) -> Iterator[Answered]:
        """Yield an answer for every photo, in order."""
        keys = [_key(photo) for photo in photos]
        keyed = [(key, photo) for key, photo in zip(keys, photos, strict=True) if isinstance(key, str)]
        streams = [
            pipeline.maps(keyed, config) if self._maps else pipeline.features(keyed, config)
            for pipeline, config in zip(self._pipelines, self._configs, strict=True)
        ]
        rows = zip(*streams, strict=True)
        for photo, key in zip(photos, keys, strict=True):
            found: list[Any] = [part for _, part in next(rows)] if isinstance(key, str) else [key]
            errors = [str(part) for part in found if isinstance(part, PhotoError)]
            if errors or isinstance(key, PhotoError):
                yield Answered(Answer(photo.name, None, errors[0]), model)
                continue
            feature = np.hstack([part[0] if self._maps else part for part in found])
            map_ = found[0][1] if self._maps and explain else None
            yield Answered(
                answer_of(model, photo.name, key, feature),
                model,
                None if map_ is None else explanation_of(model, feature, map_),
            )


def _key(photo: Photo) -> str | PhotoError:
    try:
        return key_of(photo.read())
    except PhotoError as error:
        return PhotoError(str(error))


def _blank() -> MemoryPhoto:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "BMP")
    return MemoryPhoto(file.getvalue())
