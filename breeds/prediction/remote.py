"""Photos from the web among those to predict: fetched a few ahead, and files as long as they are needed."""

from __future__ import annotations

import os
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Protocol

from breeds.errors import PhotoError, attempt
from breeds.photos import Photo, photo_at, picture, read
from breeds.photos.addresses import is_url
from breeds.photos.photo import RejectedPhoto

#: Photos from the web that are answered together, and that are fetched ahead of these meanwhile: twice so
#: many files are there at once, of at most 20 MB each.
AHEAD = 16
_THREADS = 8
_NO_NETWORK = PhotoError("is on the web, and the network is not to be used (--no-network)")


class Fetch(Protocol):
    """What gives the bytes of a photo from the web, such as `breeds.photos.web.fetch`."""

    def __call__(self, url: str, *, stop: threading.Event) -> bytes:
        """Return the bytes, or raise `PhotoError`."""


@dataclass(slots=True)
class Asked:
    """A photo that was asked for: by which name, and the file that it is in, or why there is none.

    A photo that is no file of its own here is its own file.
    """

    name: str
    file: str | Photo | PhotoError
    label: str = ""
    split: str = ""
    group: str = ""

    def read(self) -> bytes:
        """Return its bytes, as `Photo.read` does."""
        if isinstance(self.file, PhotoError):
            return RejectedPhoto(self.name, str(self.file)).read()
        return (photo_at("", self.file) if isinstance(self.file, str) else self.file).read()


def local(photos: Iterable[str | Asked | None]) -> Iterator[Asked | None]:
    """Yield files as what they are; nothing is fetched."""
    for photo in photos:
        if photo is None or isinstance(photo, Asked):
            yield photo
        else:
            yield Asked(photo, _NO_NETWORK if is_url(photo) else photo)


class Remote:
    """Fetches photos from the web into a folder that nobody else can open, and that is removed at the end.

    Parameters
    ----------
    fetch
        What fetches; `breeds.photos.web.fetch` if it is None, loaded for the first address.
    keep_small
        Keep each photo, when it is answered, at the size of a thumbnail, for a page at the end.
    """

    def __init__(self, fetch: Fetch | None = None, keep_small: bool = False) -> None:
        self._fetch = fetch
        self._keep_small = keep_small
        self._pool = ThreadPoolExecutor(_THREADS)
        self._stop = threading.Event()
        self._number = count()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        if self._folder is not None:
            self._folder.cleanup()

    def files(self, names: Iterable[str | Asked | None]) -> Iterator[Asked | None]:
        """Yield each name with its file, in order, and None where so many are fetched as may be there.

        After None nobody needs the files any more that came before.
        """
        there: list[str] = []
        for photo in self._files(names):
            yield photo
            if photo is not None and is_url(photo.name) and isinstance(photo.file, str):
                there.append(photo.file)
            if len(there) >= AHEAD:
                yield None
            if photo is None or len(there) >= AHEAD:
                self._release(there)
                there.clear()

    def _files(self, names: Iterable[str | Asked | None]) -> Iterator[Asked | None]:
        """Yield each name with its file, in order; before None, all that were named are waited for."""
        waiting: deque[tuple[str | Asked, Future[str] | None]] = deque()
        for name in names:
            if name is not None:
                wanted = isinstance(name, str) and is_url(name)
                fetched = self._pool.submit(self._save, str(name), self._start()) if wanted else None
                waiting.append((name, fetched))
            # What is a file already waits for nobody but those before it.
            while waiting and (name is None or waiting[0][1] is None or len(waiting) > AHEAD):
                yield self._asked(*waiting.popleft())
            if name is None:
                yield None
        while waiting:
            yield self._asked(*waiting.popleft())

    def _start(self) -> str:
        """Return the folder; it is made, and what fetches is loaded, when something is to be fetched."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="breeds-")
        if self._fetch is None:
            from breeds.photos.web import fetch

            self._fetch = fetch
        return self._folder.name

    def _save(self, url: str, folder: str) -> str:
        assert self._fetch is not None
        data = self._fetch(url, stop=self._stop)
        path = os.path.join(folder, str(next(self._number)))
        try:
            with open(path, "xb") as file:
                file.write(data)
        except OSError as error:
            with suppress(OSError):
                os.unlink(path)
            raise PhotoError(f"cannot be kept in {folder}: {error.strerror}") from None
        return path

    def _asked(self, name: str | Asked, fetched: Future[str] | None) -> Asked:
        if isinstance(name, Asked):
            return name
        if fetched is None:
            return Asked(name, name)
        return Asked(name, attempt(fetched.result))

    def _release(self, paths: Iterable[str]) -> None:
        """Let go of the files of photos that are answered."""
        for path in paths:
            if self._keep_small:
                self._shrink(path)
            else:
                os.unlink(path)

    def _shrink(self, path: str) -> None:
        from breeds.report.photos import LONGEST  # pages are loaded where one is asked for

        try:
            picture(read(path), LONGEST).save(path, "PNG")
        except (PhotoError, OSError):  # the page says that nothing is there
            os.unlink(path)
