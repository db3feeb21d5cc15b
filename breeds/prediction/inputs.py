"""Which photos to predict: files, folders, patterns, and lists on stdin that are answered as they come."""

from __future__ import annotations

import glob
import os
import select
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from breeds.errors import BreedsError, PhotoError
from breeds.photos import walk_folders, walk_photos
from breeds.photos.addresses import is_url
from breeds.photos.sources import Streamed
from breeds.places import is_address, shown
from breeds.prediction.remote import Asked
from breeds.prediction.streams import asked_of, find_streamed

T = TypeVar("T")

# A line of a list that is longer is no path, but a stream of something else.
_LONGEST_LINE = 2**16


def list_inputs(
    arguments: Sequence[str], stdin: Iterable[str], network: bool = True
) -> Iterator[str | Asked | None]:
    """Give the path, or the address on the web, of every photo that the arguments name, in their order.

    Parameters
    ----------
    arguments
        Files (whatever they are called), folders (their photos, at any depth), patterns such as
        ``*.jpg``, addresses of http and https, what `breeds.photos.sources.streamed` takes, or ``-`` for a
        list of files, folders and addresses of http and https, one on each line of `stdin`.
    network
        Whether addresses may be among the arguments.

    Yields
    ------
    path
        None where the next line of `stdin` is still to come: what came before can be answered.

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
    plan = [(name, found, [] if found else _matches(name)) for name, found in _streamed(arguments)]

    def walk() -> Iterator[str | Asked | None]:
        for name, found, matches in plan:
            if found is not None:
                yield from asked_of(found)
            for path in _lines(stdin) if name == "-" else matches:
                if path is not None and is_address(path) and not is_url(path):
                    yield Asked(path, PhotoError("is no file here; name it on the command line"))
                    continue
                if path is None or is_url(path) or not os.path.isdir(path):
                    yield from [] if path == "" else [path]
                    continue
                for inside in walk_photos(Path(path), list_unreadable=True)[0]:
                    yield os.path.join(path, inside)

    return walk()


def _streamed(names: Sequence[str]) -> list[tuple[str, Streamed | None]]:
    return [(name, find_streamed(name)) for name in names]


def _matches(name: str) -> list[str]:
    if name == "-" or is_url(name) or os.path.exists(name):
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
