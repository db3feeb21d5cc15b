"""Photos to features, in order: threads read and decode the next photos while the engine computes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from breeds.backbones import Engine, FeatureAndMap
from breeds.config import FeatureConfig
from breeds.errors import GoneError, PhotoError, attempt
from breeds.machine import run_ahead
from breeds.photos import decode, key_of
from breeds.photos.photo import Photo

R = TypeVar("R")
Pixels = NDArray[np.uint8]
Feature = NDArray[np.float32]
#: A photo's key, and the photo.
KeyAndPhoto = tuple[str, Photo]
P = TypeVar("P", bound=KeyAndPhoto)

#: How many photos are decoded ahead of the engine (0.27 MB each at 299×299), and at least for each worker.
AHEAD, AHEAD_EACH = 32, 4


class Pipeline:
    """An engine, opened when the first photo could be decoded, and the threads that decode for it.

    Parameters
    ----------
    opener
        Opens the engine; called at most once, and only for a photo that could be decoded.
    workers
        Threads that read and decode.
    """

    def __init__(self, opener: Callable[[], Engine], workers: int) -> None:
        self._opener = opener
        self._ahead = max(AHEAD, AHEAD_EACH * workers)
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

    def warm(self, size: int) -> None:
        """Open the engine, and let it compute something, which takes longer the first time."""
        list(self._opened().stream([np.zeros((size, size, 3), dtype=np.uint8)]))

    def _opened(self) -> Engine:
        if self._engine is None:
            self._engine = self._opener()
        return self._engine

    def identify(self, photos: Iterable[Photo]) -> Iterator[tuple[Photo, str | PhotoError]]:
        """Yield every photo, in order, with its key, or why it cannot be read."""

        def key(photo: Photo) -> str | PhotoError:
            return attempt(lambda: key_of(photo.read()))

        return run_ahead(self._threads, key, photos, self._ahead)

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

        def load(photo: P) -> Pixels | PhotoError:
            return attempt(load_pixels, config, photo, self._stop)

        prepared = run_ahead(self._threads, load, photos, self._ahead)
        for photo, pixels in prepared:  # until a photo can be decoded: only that needs an engine
            if isinstance(pixels, PhotoError):
                yield photo, pixels
                continue
            for found in stream(self._opened(), good(chain([(photo, pixels)], prepared))):
                yield from bad()
                yield waiting.popleft()[0], found
            yield from bad()


def load_pixels(config: FeatureConfig, photo: KeyAndPhoto, stop: threading.Event | None = None) -> Pixels:
    """Read and decode one photo as a config says, uint8 (size, size, 3).

    Raises
    ------
    PhotoError
        If it cannot be used.
    """
    key, source = photo
    data = source.read()
    if key_of(data) != key:
        raise GoneError("changed while it was being read; run again")
    return decode(data, config.size, config.resize, config.view, stop)
