"""Photos to predict that are read as a stream: in order, once, with a bounded share of memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from breeds.errors import PhotoError, attempt
from breeds.machine import run_ahead
from breeds.photos import FilePhoto, MemoryPhoto
from breeds.photos.addresses import is_url
from breeds.photos.cloud import ObjectPhoto, Remote
from breeds.photos.endings import CONTAINERS
from breeds.photos.sources import Streamed, streamed
from breeds.photos.tars import KEPT_BYTES
from breeds.places import shown
from breeds.prediction.remote import Asked

#: Photos that wait to be answered take so many bytes at most; larger ones are read again instead.
HELD_BYTES = 64 * 2**20
#: Photos that are fetched ahead, each a file of its own on another machine.
AT_ONCE = 16


def find_streamed(name: str) -> Streamed | None:
    """Return what an argument names if its photos are read as a stream, else None.

    Raises
    ------
    BreedsError
        If it is not there.
    """
    if name == "-" or (is_url(name) and not shown(name).lower().endswith(CONTAINERS)):
        return None
    return streamed(name)


def asked_of(source: Streamed) -> Iterator[Asked | None]:
    """Yield the photos of a source in order, and None where enough is in memory to be answered first.

    Raises
    ------
    BreedsError
        If something cannot be read just now.
    """
    held = 0
    for photo in _asked(source):
        yield photo
        if isinstance(photo.file, MemoryPhoto):
            held += len(photo.file.data)
        if held > HELD_BYTES:
            yield None
            held = 0


def _asked(source: Streamed) -> Iterator[Asked]:
    for _, found in source.found():
        name = os.path.join(source.root, found.path)
        if found.error or found.photo is None:
            yield Asked(name, PhotoError(found.error))
        else:
            yield Asked(name, found.photo if found.data is None else MemoryPhoto(found.data))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for (photo, _), file in run_ahead(pool, _fetch, source.objects, window=AT_ONCE):
            yield Asked(f"{source.root}/{photo.name}", file)


def _fetch(item: tuple[FilePhoto, Remote]) -> ObjectPhoto | MemoryPhoto | PhotoError:
    photo, file = item
    if file.size > KEPT_BYTES:
        return ObjectPhoto(photo.name, file)
    data = attempt(file.read_whole)
    return data if isinstance(data, PhotoError) else MemoryPhoto(data)
