"""The one engine that all requests share: a fair queue, threads that decode, a thread that computes.

Photos wait in a bounded queue and are taken in turn between the requests. What is decoded waits for the
engine, only a few at a time, so that a newcomer is not behind many; the engine takes one after the other
without a pause as long as there are any. A photo that takes long to decode holds up nobody but the thread
that decodes it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import tee
from typing import Any

import numpy as np

from breeds.app.turns import FullError, Turns
from breeds.backbones import Engine
from breeds.backbones.pipeline import KeyAndPath, Pixels, load_pixels
from breeds.backbones.resolve import check_computable, open_network
from breeds.errors import BreedsError, PhotoError, attempt
from breeds.heads.explain import Explanation, check_explainable, explanation_of
from breeds.heads.model import Model
from breeds.machine import cores
from breeds.photos import FilePhoto
from breeds.prediction import Answer, answer_of
from breeds.text import say

#: How many photos may wait, over all requests.
MOST_WAITING = 1024
# With so few cores, all of them on one photo are as fast as each on its own, and the first answer is sooner.
_FEW_CORES = 4
# How many decoded photos wait for the engine, at least.
_AHEAD = 4


class BusyError(Exception):
    """Too many photos wait already; `seconds` says when to come again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Too many photos wait already; try again in {seconds} seconds.")
        self.seconds = seconds


@dataclass(frozen=True)
class Answered:
    """An answer, the model that gave it, and what it rests on, if that was asked for and can be told."""

    answer: Answer
    model: Model
    explanation: Explanation | None = None


@dataclass(eq=False)
class _Network:
    """The networks that a model rests on, and others of the same configs; opened when they are needed."""

    model: Model
    engine: str
    opened: list[Engine] = field(default_factory=list)
    #: Whether they give maps too.
    maps: bool = False

    def fits(self, model: Model) -> bool:
        """Whether another model rests on the same networks."""
        return [config for config, _ in model.parts] == [config for config, _ in self.model.parts]

    def open(self) -> list[Engine]:
        """Open them, unless they are open.

        Raises
        ------
        BreedsError
            If that cannot be done.
        """
        if not self.opened:
            for config, _ in self.model.parts:
                check_computable(config)
            try:
                check_explainable(self.model)
                self.opened, self.maps = [self._open(0, maps=True)], True
            except BreedsError:  # several networks, or one without a map: answered, but not explained
                self.opened = [self._open(number) for number in range(len(self.model.parts))]
        return self.opened

    def _open(self, number: int, maps: bool = False) -> Engine:
        single = cores() <= _FEW_CORES
        return open_network(self.model, self.model.parts[number], None, self.engine, single, maps)


@dataclass(frozen=True)
class _Setup:
    """A model and the networks that it rests on."""

    model: Model
    network: _Network


@dataclass(eq=False)
class _Job:
    """A photo on its way to an answer."""

    photo: KeyAndPath
    explain: bool
    future: Future[Answered] = field(default_factory=Future)
    given_up: threading.Event = field(default_factory=threading.Event)
    setup: _Setup | None = None
    #: Pixels for each of the networks.
    pixels: list[Pixels] = field(default_factory=list)


class Asked:
    """The photos of one request.

    Attributes
    ----------
    futures
        Of each photo, in the order asked: an `Answered`, or the BreedsError that stopped the engine.
    """

    def __init__(self, turns: Turns[_Job], jobs: list[_Job]) -> None:
        self._turns, self._jobs = turns, jobs
        self._number = turns.add(jobs)
        self.futures = [job.future for job in jobs]

    def give_up(self) -> None:
        """Nobody wants the answers any more: what has not begun never will, and decoding ends."""
        for job in self._jobs:
            job.given_up.set()
        self._turns.drop(self._number)
        for job in self._jobs:
            job.future.cancel()


class Desk:
    """Answers the photos of all requests with one model, which can be exchanged at any time.

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
    """

    def __init__(
        self, model: Model, engine: str = "auto", workers: int = 2, most_waiting: int = MOST_WAITING
    ) -> None:
        self._engine = engine
        self._setup = _Setup(model, _Network(model, engine))
        self._turns: Turns[_Job] = Turns(most_waiting)
        self._ready: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._seconds = 0.1  # for a photo, as the last ones took
        self.failure = ""
        self._threads = [threading.Thread(target=self._decode, daemon=True) for _ in range(workers)]
        self._threads.append(threading.Thread(target=self._compute, daemon=True))

    def start(self) -> None:
        """Begin: the networks are opened at once, in the background."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End soon, whatever still waits."""
        self._stop.set()
        self._turns.close()
        with self._changed:
            self._changed.notify_all()

    @property
    def model(self) -> Model:
        """The model that answers."""
        return self._setup.model

    @property
    def warm(self) -> bool:
        """Whether the networks are open, so that the next photo need not wait for them."""
        return bool(self._setup.network.opened)

    @property
    def waiting(self) -> int:
        """How many photos wait."""
        return len(self._turns) + len(self._ready)

    def use(self, model: Model) -> None:
        """Answer with another model from now on; the networks stay open if they are the same."""
        network = self._setup.network
        self._setup = _Setup(model, network if network.fits(model) else _Network(model, self._engine))
        with self._changed:
            self._changed.notify_all()

    def check_room(self, photos: int = 1) -> None:
        """Make sure that so many photos could wait.

        Raises
        ------
        BusyError
            If not.
        """
        if self._turns.room() < photos:
            raise BusyError(self._seconds_to_wait())

    def ask(self, photos: Sequence[KeyAndPath], explain: bool = False) -> Asked:
        """Let photos wait for their answers; this returns at once.

        Parameters
        ----------
        photos
            Key and path of each; the files have to stay until they are answered or given up.
        explain
            Give the explanations too, where the model has any.

        Raises
        ------
        BusyError
            If too many wait already.
        """
        try:
            return Asked(self._turns, [_Job(photo, explain) for photo in photos])
        except FullError:
            raise BusyError(self._seconds_to_wait()) from None

    def _seconds_to_wait(self) -> int:
        return max(1, min(600, round(self.waiting * self._seconds)))

    # The threads that decode

    def _decode(self) -> None:
        while (job := self._turns.take()) is not None:
            if job.given_up.is_set() or not job.future.set_running_or_notify_cancel():
                continue
            try:
                self._load(job)
            except Exception as error:  # a defect of ours: the thread goes on with the next
                job.future.set_exception(error)

    def _load(self, job: _Job) -> None:
        """Decode a photo for each network, and let it wait for them; a bad one is answered here."""
        setup = job.setup = self._setup
        for config, _ in setup.model.parts:
            key, path = job.photo
            pixels = attempt(load_pixels, config, (key, FilePhoto(path)), job.given_up)
            if isinstance(pixels, PhotoError):
                job.future.set_result(Answered(Answer(path, None, str(pixels), key=key), setup.model))
                return
            job.pixels.append(pixels)
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < self._ahead() or self._stop.is_set())
            self._ready.append(job)
            self._changed.notify_all()

    def _ahead(self) -> int:
        return max(_AHEAD, cores())

    # The thread that computes

    def _compute(self) -> None:
        tried: _Network | None = None
        while not self._stop.is_set():
            network = self._setup.network
            if network is not tried:
                tried = network
                self._warm_up(network)
            with self._changed:
                while not (self._ready or self._stop.is_set() or self._setup.network is not tried):
                    self._changed.wait()
            job = self._next()
            if job is not None:
                self._run(job)

    def _warm_up(self, network: _Network) -> None:
        """Open the networks and let each compute something, which takes longer the first time."""
        try:
            for engine, (config, _) in zip(network.open(), network.model.parts, strict=True):
                blank = np.zeros((config.size, config.size, 3), dtype=np.uint8)
                list(engine.stream([blank]))
            self.failure = ""
        except Exception as error:  # whatever it is, the thread goes on: another model may be used
            self.failure = str(error) or type(error).__name__
            say(f"no photo can be answered: {self.failure}", file=sys.stderr)

    def _next(self, network: _Network | None = None) -> _Job | None:
        """Return what is ready, if anything is, and it is for that network."""
        with self._changed:
            while self._ready and (network is None or self._ready[0].setup.network is network):  # type: ignore[union-attr]
                job = self._ready.popleft()
                self._changed.notify_all()
                if not job.given_up.is_set():
                    return job
                job.pixels.clear()
        return None

    def _run(self, first: _Job) -> None:
        """Answer `first`, and what becomes ready meanwhile, without a pause."""
        assert first.setup is not None
        network = first.setup.network
        under_way: deque[_Job] = deque()

        def jobs() -> Iterator[_Job]:
            job: _Job | None = first
            while job is not None:
                under_way.append(job)
                yield job
                job = self._next(network)

        try:
            engines = network.open()
            self.failure = ""
            streams = [
                _outputs(engine, copy, number, network.maps)
                for number, (engine, copy) in enumerate(zip(engines, tee(jobs(), len(engines)), strict=True))
            ]
            started = time.perf_counter()
            for found in zip(*streams, strict=True):
                job = under_way.popleft()
                try:
                    job.future.set_result(self._answered(job, found))
                except Exception as error:  # of the head, which says nothing about the next photo
                    job.future.set_exception(error)
                now = time.perf_counter()
                self._seconds += 0.1 * (now - started - self._seconds)
                started = now
        except Exception as error:
            self.failure = str(error) or type(error).__name__
            for job in under_way or [first]:
                job.future.set_exception(error)

    def _answered(self, job: _Job, found: Sequence[Any]) -> Answered:
        """Return the answer: the head on the features of all networks beside each other."""
        assert job.setup is not None
        model, (key, path) = job.setup.model, job.photo
        job.pixels.clear()
        parts = zip(found, model.parts, strict=True)
        feature = np.hstack([one[0] for one, _ in parts])
        answer = answer_of(model, path, key, feature)
        explanation = None
        if job.explain and job.setup.network.maps:
            explanation = explanation_of(model, feature, found[0][1])
        return Answered(answer, model, explanation)


def _outputs(engine: Engine, jobs: Iterable[_Job], number: int, maps: bool) -> Iterator[tuple[Any, ...]]:
    """Yield the feature of each photo by one network, with its map where that was opened for it."""
    pixels = (job.pixels[number] for job in jobs)
    if maps:
        return engine.stream_maps(pixels)
    return ((feature,) for feature in engine.stream(pixels))
