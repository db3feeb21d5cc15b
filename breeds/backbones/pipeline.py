"""Photos to features, in order: workers read and decode the next ones while the engine computes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from types import TracebackType
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from breeds.backbones import Engine, FeatureAndMap
from breeds.config import FeatureConfig
from breeds.errors import GoneError, PhotoError
from breeds.photos import decode, key_of
from breeds.photos.photo import Photo

T = TypeVar("T")
R = TypeVar("R")
Pixels = NDArray[np.uint8]
Feature = NDArray[np.float32]
#: A photo's key and where its file is.
KeyAndPath = tuple[str, str]
#: A photo's key, and the photo.
KeyAndPhoto = tuple[str, Photo]
P = TypeVar("P", bound=KeyAndPhoto)


class Ahead(Protocol):
    """Yields every item, in order, with what a function gives for it, somewhere else and ahead of time."""

    def __call__(
        self, function: Callable[[T], R], items: Iterable[T], /
    ) -> Iterator[tuple[T, R | PhotoError]]:
        """Begin."""
        ...


#: How many photos are decoded ahead of the engine (0.27 MB each at 299×299), and at least for each worker.
AHEAD, AHEAD_EACH = 32, 4


class Pipeline:
    """An engine, opened when the first photo could be decoded, and the workers that decode for it.

    Parameters
    ----------
    opener
        Opens the engine; called at most once, and only for a photo that could be decoded.
    workers
        Threads that read and decode.
    """

    def __init__(self, opener: Callable[[], Engine], workers: int) -> None:
        self._opener = opener
        self._workers = workers
        self._engine: Engine | None = None
        self._threads = ThreadPoolExecutor(workers)
        self._stop = threading.Event()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # such as Ctrl-C: nobody wants what is being decoded, which may take a minute
            self._stop.set()
        self._threads.shutdown(cancel_futures=True)

    @property
    def name(self) -> str:
        """The engine's name, "" before it is opened."""
        return self._engine.name if self._engine else ""

    def features(
        self, photos: Iterable[P], config: FeatureConfig
    ) -> Iterator[tuple[P, Feature | PhotoError]]:
        """Yield every photo, in order, with its feature, float32 (width,), or why there is none.

        Parameters
        ----------
        photos
            Key of each, and the photo; one whose bytes are not the key's any more gives none.
        config
            Size, resize rule and view of the pixels; the rest is the engine's.

        Raises
        ------
        BreedsError
            If the engine cannot be opened.
        """
        return self._run(photos, config, lambda engine, pixels: engine.stream(pixels))

    def maps(
        self, photos: Iterable[P], config: FeatureConfig
    ) -> Iterator[tuple[P, FeatureAndMap | PhotoError]]:
        """Do as `features` does, and yield with every feature the map that it is the mean of."""
        return self._run(photos, config, lambda engine, pixels: engine.stream_maps(pixels))

    def _run(
        self,
        photos: Iterable[P],
        config: FeatureConfig,
        stream: Callable[[Engine, Iterable[Pixels]], Iterator[R]],
    ) -> Iterator[tuple[P, R | PhotoError]]:
        """Yield every photo, in order, with what `stream` of the engine gives for it, or why it is bad."""
        # An engine takes pixels and gives features, both in order, and knows nothing of keys or of bad
        # photos. So what it is given is noted here, bad photos in between, and taken off again as
        # features come: that keeps the order, however many photos an engine holds at once.
        waiting: deque[tuple[P, PhotoError | None]] = deque()

        def good(prepared: Iterable[tuple[P, Pixels | PhotoError]]) -> Iterator[Pixels]:
            for photo, pixels in prepared:
                if isinstance(pixels, PhotoError):
                    waiting.append((photo, pixels))
                else:
                    waiting.append((photo, None))
                    yield pixels

        def bad() -> Iterator[tuple[P, PhotoError]]:
            while waiting and waiting[0][1] is not None:
                photo, error = waiting.popleft()
                yield photo, error  # type: ignore[misc]

        photos = iter(photos)
        load = partial(load_pixels, config, stop=self._stop)
        ahead = max(AHEAD, AHEAD_EACH * self._workers)
        while block := list(islice(photos, ahead)):  # until a photo can be decoded: that needs an engine
            prepared = run_ahead(self._threads, load, block, ahead)
            for photo, pixels in prepared:
                if isinstance(pixels, PhotoError):
                    yield photo, pixels
                    continue
                if self._engine is None:
                    self._engine = self._opener()
                following = chain([(photo, pixels)], prepared, run_ahead(self._threads, load, photos, ahead))
                for found in stream(self._engine, good(following)):
                    yield from bad()
                    yield waiting.popleft()[0], found
                yield from bad()


def load_pixels(
    config: FeatureConfig, photo: KeyAndPhoto, stop: threading.Event | None = None
) -> Pixels | PhotoError:
    """Read and decode one photo as a config says, uint8 (size, size, 3), or say why not."""
    key, source = photo
    failed: type[PhotoError] = PhotoError
    try:
        data = source.read()
        if key_of(data) != key:
            return GoneError("changed while it was being read; run again")
        return decode(data, config.size, config.resize, config.view, stop)
    except PhotoError as error:
        failed, reason = type(error), str(error)
    return failed(reason)  # a new one: the traceback of the one that was caught keeps the photo's bytes


def run_ahead(
    pool: Executor, function: Callable[[T], R], items: Iterable[T], window: int
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
