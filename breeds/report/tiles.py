"""Photos as a page shows them: small pictures with their names, and lists that are cut."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from breeds.errors import PhotoError
from breeds.photos import photo_at
from breeds.report.render import link
from breeds.report.survey import Seen
from breeds.report.thumbs import LONGEST, Thumbnail, thumbnails

T = TypeVar("T")


@dataclass(frozen=True)
class Cut(Generic[T]):
    """The first of a list, and how many more there are."""

    shown: Sequence[T]
    more: int


def cut(items: Sequence[T], most: int) -> Cut[T]:
    """Return at most so many of a list."""
    return Cut(items[:most], max(0, len(items) - most))


@dataclass(frozen=True)
class Tile:
    """A photo on the page.

    Attributes
    ----------
    name, label, split, size
        Its path, its label and part of the split ("" for none), and width × height.
    link
        Its file's address as seen from the page.
    thumbnail, missing
        Its picture, or why there is none.
    """

    name: str
    label: str
    split: str
    size: str
    link: str
    thumbnail: Thumbnail | None = None
    missing: str = ""


class Tiles:
    """Makes tiles of photos; the pictures of all that are wanted are made at once, in parallel.

    Parameters
    ----------
    seen
        The photos.
    root
        The folder that their paths start from.
    page
        Where the page will be.
    """

    def __init__(self, seen: Seen, root: Path, page: Path) -> None:
        self._seen, self._root, self._page = seen, root, page
        self._made: dict[int, Thumbnail | PhotoError] = {}

    def make(self, rows: Iterable[int]) -> None:
        """Make the pictures of photos, those that there are already excepted."""
        wanted = sorted({row for row in rows if row not in self._seen.bad} - self._made.keys())
        self._made |= zip(wanted, self.pictures(wanted), strict=True)

    def pictures(self, rows: Iterable[int], longest: int = LONGEST) -> Iterable[Thumbnail | PhotoError]:
        """Return pictures of photos, in their order, that are not kept."""
        return thumbnails(((self._seen.key[row], photo_at("", self.path(row))) for row in rows), longest)

    def path(self, row: int) -> str:
        """Return the path that opens a photo."""
        return os.path.join(self._root, self._seen.path[row])

    def tile(self, row: int, picture: Thumbnail | PhotoError | None = None) -> Tile:
        """Return a photo's tile, with its own picture or another."""
        picture = picture or self._made.get(row) or PhotoError(self._seen.bad.get(row, "not shown"))
        gone = isinstance(picture, PhotoError)
        return Tile(
            name=self._seen.path[row],
            label=self._seen.label[row],
            split=self._seen.split[row],
            size=f"{self._seen.width[row]}×{self._seen.height[row]}" if self._seen.width[row] else "",
            link=link(self.path(row), self._page),
            thumbnail=None if isinstance(picture, PhotoError) else picture,
            missing=str(picture) if gone else "",
        )
