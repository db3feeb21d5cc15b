"""The inference service: one engine for all requests, which wait in a queue and are answered in order."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from breeds.app.uploads import RefusedError
from breeds.backbones import Engine
from breeds.backbones.resolve import open_network
from breeds.errors import BreedsError
from breeds.heads.explain import Explanation, check_explainable
from breeds.heads.model import Model
from breeds.machine import cores
from breeds.photos import Photo
from breeds.prediction import Answer, Evidence, Predictor
from breeds.text import say

#: How many photos may wait, over all requests.
MOST_WAITING = 1024
# With so few cores, all of them on one photo are as fast as each on its own, and the first answer is sooner.
_FEW_CORES = 4
# Photos that are decoded beside the engine; who leaves waits for no more than these.
_TOGETHER = 16
# Photos of the store whose answers are kept, for several pictures of each; each takes 800 bytes for every
# class and more for large photos: 12 MB for 120 breeds.
_KEPT = 128


@dataclass(frozen=True)
class Answered:
    """An answer, with its evidence where the model has any, and the model that gave it."""

    answer: Answer
    model: Model

    @property
    def explanation(self) -> Explanation | None:
        """Where the network looked, None if that is not known."""
        evidence = self.answer.evidence
        return evidence.explanation if isinstance(evidence, Evidence) else None


class InferenceService:
    """Answers the photos of all requests with one model, which can be exchanged at any time.

    One thread computes: its queue is the queue of requests. Who leaves takes with them what has not begun.

    Attributes
    ----------
    model
        The model that answers.
    warm, failure
        Whether its networks are open; why no photo can be answered, "" if that is not known.
    waiting
        How many photos wait.

    Parameters
    ----------
    model
        The first model.
    engine
        One of `breeds.backbones.ENGINE_CHOICES`.
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
        self.warm = False
        self.waiting = 0
        self._engine, self._workers, self._opener = engine, workers, opener
        self._most_waiting = most_waiting
        self._predictor: Predictor | None = None
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

    def use(self, model: Model) -> None:
        """Answer with another model from now on; the networks stay open if they are the same."""
        self.model = model
        self.start()

    def check_room(self, photos: int = 1) -> None:
        """Make sure that so many photos can wait.

        Raises
        ------
        RefusedError
            If not.
        """
        if self.waiting + photos > self._most_waiting:
            seconds = 1 + self.waiting // 10
            sentence = f"Too many photos wait already; try again in {seconds} seconds."
            raise RefusedError(503, sentence, seconds)

    async def answers(self, photos: Sequence[Photo]) -> list[Answered]:
        """Answer for photos, in order; when this is cancelled, nothing more of it is computed.

        One that cannot be read is answered with its reason.

        Raises
        ------
        RefusedError
            If too many wait already.
        BreedsError
            If the network cannot be opened.
        """
        self.check_room(len(photos))
        stop = threading.Event()
        self.waiting += len(photos)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._answered, photos, stop)
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
                (found,) = self._answered([photo], self._stop)
            self._kept[key] = found  # as the newest
            while len(self._kept) > _KEPT:
                self._kept.pop(next(iter(self._kept)))
            return found

        return await asyncio.get_running_loop().run_in_executor(self._thread, answer)

    # In the thread that computes

    def _answered(self, photos: Sequence[Photo], stop: threading.Event) -> list[Answered]:
        def wanted() -> Iterator[Photo | None]:
            for number, photo in enumerate(photos, 1):
                if stop.is_set() or self._stop.is_set():
                    return
                yield photo
                if number % _TOGETHER == 0:
                    yield None

        try:
            predictor = self._opened()
            found = [Answered(answer, predictor.model) for answer in predictor.answers(wanted())]
            self.failure, self.warm = "", True
        except BreedsError as error:
            self.failure = str(error)
            raise
        return found

    def _opened(self) -> Predictor:
        """Return what answers with the model in use; its networks stay open where the models share them."""
        model, predictor = self.model, self._predictor
        if predictor is not None and (predictor.model is model or predictor.use(model)):
            return predictor
        if predictor is not None:
            predictor.__exit__(None, None, None)
        self._predictor, self.warm = None, False
        self._predictor = Predictor(
            model,
            engine=self._engine,
            workers=self._workers,
            explain=not why_unexplained(model),
            opener=self._open,
        )
        return self._predictor

    def _open(self, *arguments: Any, maps: bool) -> Engine:
        *others, single = arguments
        return self._opener(*others, single or cores() <= _FEW_CORES, maps=maps)

    def _warm_up(self) -> None:
        try:
            predictor = self._opened()
            if not self.warm:
                predictor.warm()
            self.failure, self.warm = "", True
        except Exception as error:  # whatever it is, the thread goes on: another model may be used
            self.failure = str(error) or type(error).__name__
            say(f"no photo can be answered: {self.failure}", file=sys.stderr)


def why_unexplained(model: Model) -> str:
    """Say why where the network looked cannot be shown, "" if it can."""
    try:
        check_explainable(model)
    except BreedsError as error:
        return str(error)
    return ""
