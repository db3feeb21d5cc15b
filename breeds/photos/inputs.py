"""Which photos to predict: files, folders, patterns, addresses, and lists on stdin, answered as they come."""

from __future__ import annotations

import glob
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Protocol, TypeVar

from breeds.errors import BreedsError, PhotoError
from breeds.photos import FilePhoto, Photo, find_streamed, photo_at, walk_folders, walk_photos
from breeds.photos.addresses import is_url
from breeds.photos.photo import MemoryPhoto, ObjectPhoto, RejectedPhoto, WebPhoto
from breeds.selection import is_address, is_container, shown

T = TypeVar("T")

#: Photos that wait to be answered take so many bytes at most, and one that is larger is not held.
HELD_BYTES, HELD_EACH = 64 * 2**20, 4 * 2**20
#: Photos that are fetched ahead from other machines; of the web, each has at most 20 MB.
AHEAD = 16
_END = MemoryPhoto(b"")  # comes after the last one
# A line of a list that is longer is no path, but a stream of something else.
_LONGEST_LINE = 2**16


class Fetch(Protocol):
    """What gives the bytes of a photo from the web, such as `breeds.photos.web.fetch`."""

    def __call__(self, url: str, *, stop: threading.Event) -> bytes:
        """Return the bytes, or raise `PhotoError`."""


def list_inputs(
    arguments: Sequence[str], stdin: Iterable[str] = (), network: bool = True, fetch: Fetch | None = None
) -> Generator[Photo | None, None, None]:
    """Give every photo that the arguments name, in their order.

    Those on other machines are fetched a few ahead; who leaves early closes this, which ends that.

    Parameters
    ----------
    arguments
        Files (whatever they are called), folders (their photos, at any depth), patterns such as
        ``*.jpg``, addresses of http and https, what `breeds.photos.find_streamed` takes, or ``-`` for a
        list of files, folders and addresses of http and https, one on each line of `stdin`.
    network
        Whether addresses may be among the arguments.
    fetch
        What fetches from the web; `breeds.photos.web.fetch` if it is None, loaded for the first address.

    Yields
    ------
    Photo or None
        None where what came before can be answered: the next line of `stdin` is still to come, or enough is
        held in memory.

    Raises
    ------
    BreedsError
        At once, if something named on the command line is not there, or is on the web and may not be.
    """
    for name in arguments:
        if is_address(name) and not network:
            raise BreedsError(
                f"{shown(name)} is on the web, and --no-network is given; nothing was predicted."
            )
    stop = threading.Event()

    def ask(url: str) -> bytes:
        if fetch is not None:
            return fetch(url, stop=stop)
        from breeds.photos.web import fetch as from_web  # who asks for nothing from there does not load it

        return from_web(url, stop=stop)

    plan: list[Iterable[Photo | None]] = []
    for name in arguments:
        if (photos := photos_in(name)) is not None:
            plan.append(photos)
        else:
            paths = _lines(stdin) if name == "-" else _matches(name)
            plan.append(_of_paths(paths, ask if network else None))
    return _fetched_ahead((photo for photos in plan for photo in photos), stop)


def photos_in(name: str) -> Iterator[Photo] | None:
    """Return the photos of what is read as a stream, named from here, in order; None if it is none such.

    Raises
    ------
    BreedsError
        If it is not there.
    """
    if name == "-" or (is_url(name) and not is_container(shown(name))):
        return None
    listing = find_streamed(name)
    return None if listing is None else _named_from_here(listing.photos, listing.root)


def _named_from_here(photos: Iterable[Photo], root: str) -> Iterator[Photo]:
    for photo in photos:
        photo.name = os.path.join(root, photo.name)
        yield photo


def _of_paths(paths: Iterable[str | None], fetch: Callable[[str], bytes] | None) -> Iterator[Photo | None]:
    """Yield the photos of files, folders, and addresses on the web, and None as it comes."""
    for path in paths:
        if path is None:
            yield None
        elif is_url(path) and fetch is None:
            yield RejectedPhoto(path, "is on the web, and the network is not to be used (--no-network)")
        elif is_url(path) and fetch is not None:
            yield WebPhoto(path, fetch)
        elif is_address(path):
            yield RejectedPhoto(path, "is no file here; name it on the command line")
        elif os.path.isdir(path):
            for inside in walk_photos(Path(path), list_unreadable=True)[0]:
                yield FilePhoto(os.path.join(path, inside))
        elif path:
            yield photo_at("", path)


def _fetched_ahead(
    photos: Iterable[Photo | None], stop: threading.Event
) -> Generator[Photo | None, None, None]:
    """Yield photos, those on other machines in memory, and None where enough is, so that it is answered."""
    waiting: deque[tuple[Photo, Future[Photo] | None]] = deque()
    held = fetched = 0
    with ThreadPoolExecutor(AHEAD) as pool:
        try:
            for photo in chain(photos, [_END]):
                if photo is not None and photo is not _END:
                    is_far = isinstance(photo, WebPhoto | ObjectPhoto)
                    waiting.append((photo, pool.submit(_in_memory, photo) if is_far else None))
                # What is here already waits for nobody but those before it.
                while waiting and (
                    photo is None or photo is _END or waiting[0][1] is None or len(waiting) > AHEAD
                ):
                    first, future = waiting.popleft()
                    first = first if future is None else future.result()
                    yield first
                    held, fetched = held + len(getattr(first, "data", None) or b""), fetched + bool(future)
                    if held > HELD_BYTES or fetched >= AHEAD:
                        yield None
                        held = fetched = 0
                if photo is None:
                    yield None
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _in_memory(photo: Photo) -> Photo:
    """Return a photo with its bytes; an object that is large is read when it is its turn, each time anew."""
    if isinstance(photo, ObjectPhoto) and photo.file.size > HELD_EACH:
        return photo
    try:
        return MemoryPhoto(photo.read(), photo.name)
    except PhotoError as error:
        return RejectedPhoto(photo.name, str(error))


def _matches(name: str) -> list[str]:
    if is_url(name) or os.path.exists(name):
        return [name]
    found = sorted(set(_expand(name)))
    if not found:
        raise BreedsError(f"No such file or folder: {name}; nothing was predicted.")
    return found


def _expand(pattern: str) -> Iterator[str]:
    """Yield what a pattern fits, as `glob.iglob` does, but that ``**`` enters each folder once.

    Two links that lead back to their own folder would else make paths without end.
    """
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    at = parts.index("**")
    head, tail = os.sep.join([*parts[:at], ""]), os.sep.join(parts[at + 1 :]) or "*"
    for base in glob.iglob(head) if head else [os.curdir + os.sep]:
        for folder, _ in walk_folders(base):
            inside = tail if folder == os.curdir + os.sep else os.path.join(glob.escape(folder), tail)
            yield from _expand(inside if head else inside.removeprefix(os.curdir + os.sep))


def _lines(stdin: Iterable[str]) -> Iterator[str | None]:
    """Yield the lines of `stdin`, and None each time before waiting for more."""
    try:
        handle = stdin.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):  # lines of something that is no file: no waiting
        yield from (line.rstrip("\r\n") for line in stdin)
        return
    rest = b""
    while True:
        if not select.select([handle], [], [], 0)[0]:
            yield None
            select.select([handle], [], [])
        block = os.read(handle, _LONGEST_LINE)
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise BreedsError("A line on stdin is too long for a path; give one path on each line.")
        if not block:
            lines.append(rest)
        yield from (os.fsdecode(line.rstrip(b"\r")) for line in lines)
        if not block:
            return
