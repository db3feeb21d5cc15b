"""Work ahead of a slow step: threads read and decode photos while the engine computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from breeds.engines import Engine
from breeds.errors import PhotoError

T = TypeVar("T")
R = TypeVar("R")
Pixels = NDArray[np.uint8]
Feature = NDArray[np.float32]

#: How many photos are decoded ahead of the engine (0.27 MB each at 299×299).
AHEAD = 32


class LazyEngine:
    """An engine that is opened when it is first needed."""

    def __init__(self, opener: Callable[[], Engine]) -> None:
        self._opener = opener
        self._engine: Engine | None = None

    @property
    def name(self) -> str:
        """The engine's name, "" before it is opened."""
        return self._engine.name if self._engine else ""

    def __call__(self) -> Engine:
        """Return the engine, opening it the first time."""
        self._engine = self._engine or self._opener()
        return self._engine


def run_ahead(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], window: int
) -> Iterator[tuple[T, R]]:
    """Yield every item with its result, in order, with at most `window` of them under way."""
    under_way: deque[tuple[T, Future[R]]] = deque()
    try:
        for item in items:
            under_way.append((item, pool.submit(function, item)))
            if len(under_way) == window:
                first, future = under_way.popleft()
                yield first, future.result()
        while under_way:
            first, future = under_way.popleft()
            yield first, future.result()
    finally:
        for _, future in under_way:
            future.cancel()


def stream_features(
    items: Iterable[T],
    prepare: Callable[[T], Pixels | PhotoError | None],
    engine: Callable[[], Engine],
    workers: int,
) -> Iterator[tuple[T, Feature | PhotoError | None]]:
    """Yield every item, in order, with its feature, computed while threads prepare the next ones.

    Parameters
    ----------
    prepare
        Called in threads: gives an item's pixels, uint8 (size, size, 3), or None if its feature is
        already known, or why there are none; the latter two come back in the feature's place.
    engine
        Gives the engine, and is called only if any pixels come.
    """
    waiting: deque[tuple[T, PhotoError | None, bool]] = deque()

    def pixels() -> Iterator[Pixels]:
        for item, prepared in run_ahead(pool, prepare, items, AHEAD):
            if isinstance(prepared, np.ndarray):
                waiting.append((item, None, True))
                yield prepared
            else:
                waiting.append((item, prepared, False))

    def settled() -> Iterator[tuple[T, PhotoError | None]]:
        while waiting and not waiting[0][2]:
            item, answer, _ = waiting.popleft()
            yield item, answer

    with ThreadPoolExecutor(workers) as pool:
        source = pixels()
        first = next(source, None)
        if first is None:
            yield from settled()
            return
        for feature in engine().stream(chain([first], source)):
            yield from settled()
            item, _, _ = waiting.popleft()
            yield item, feature
        yield from settled()
