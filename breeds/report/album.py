"""The photos of a store as a page shows them: name, link, and a thumbnail or the reason for none."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from breeds.errors import PhotoError
from breeds.features import Store
from breeds.photos import photo_at
from breeds.report.render import link
from breeds.report.thumbs import Thumbnail, thumbnails


class Photos(Protocol):
    """Photos of a store, by their rows, as a page shows them."""

    def photo(self, row: int, alt: str, longest: int = 0, **more: Any) -> dict[str, Any]:
        """Return what a template needs of a photo.

        Parameters
        ----------
        alt
            What the picture shows, for those who do not see it.
        longest
            Longest side of its thumbnail in pixels, if it is to be smaller than the others.
        **more
            What else the template shows with it.
        """


def out_of(shown: int, total: int, things: str) -> str:
    """Say how many things there are, and how many of them are not shown."""
    more = f"; {total - shown:,} more are not shown" if total > shown else ""
    things = things.removesuffix("s") if total == 1 else things
    return f"{total:,} {things}{more}"


class Album:
    """The photos of a store that a page from disk shows, each opened once.

    Parameters
    ----------
    store
        Whose photos; their files must still have the bytes that their keys say.
    page
        Where the page will lie; links start from there.
    """

    def __init__(self, store: Store, page: Path) -> None:
        self._table = store.table
        self._page = page.absolute()
        self._thumbnails: dict[int, Thumbnail | PhotoError] = {}

    def fetch(self, rows: Iterable[int]) -> None:
        """Make the thumbnails of these rows, in parallel."""
        wanted = [row for row in dict.fromkeys(rows) if row not in self._thumbnails]
        photos = ((self._table.key[row], photo_at("", self.file(row))) for row in wanted)
        self._thumbnails |= dict(zip(wanted, thumbnails(photos), strict=True))

    def file(self, row: int) -> str:
        """Return where a photo's file should be."""
        return os.path.join(self._table.root, self._table.path[row])

    def photo(self, row: int, alt: str, longest: int = 0, **more: Any) -> dict[str, Any]:
        """Return what a template needs of a photo whose thumbnail was fetched, as `Photos.photo` says."""
        found = self._thumbnails[row]
        is_there = isinstance(found, Thumbnail)
        if isinstance(found, Thumbnail) and longest:
            found = found.smaller(longest)
        return {
            "key": self._table.key[row],
            "name": self._table.path[row],
            "href": link(self.file(row), self._page),
            "thumbnail": found if is_there else None,
            "missing": "" if is_there else str(found),
            "alt": alt,
            **more,
        }
