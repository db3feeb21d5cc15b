"""Photos as pages show them: a thumbnail, made in parallel, or why there is none, with name and link."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from breeds.backbones.pipeline import KeyAndPhoto
from breeds.errors import BreedsError, PhotoError
from breeds.machine import cores, run_ahead
from breeds.photos import key_of, photo_at, picture
from breeds.report.render import data_address, link

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
R = TypeVar("R")

#: Longest side of a thumbnail, in pixels.
LONGEST = 160
_QUALITY = 74


@dataclass(frozen=True)
class Thumbnail:
    """A small JPEG of a photo, upright.

    Attributes
    ----------
    data
        The JPEG's bytes.
    width, height
        In pixels.
    """

    data: bytes
    width: int
    height: int
    served: ClassVar[bool] = False

    @property
    def src(self) -> str:
        """The picture as an address that a page can hold."""
        return data_address(self.data, "image/jpeg")

    def pixels(self) -> NDArray[np.uint8]:
        """Return what it shows, uint8 (height, width, 3)."""
        from PIL import Image

        with Image.open(io.BytesIO(self.data)) as image:
            return np.asarray(image)

    def smaller(self, longest: int) -> Thumbnail:
        """Return it with a longest side of `longest` pixels at most."""
        return Thumbnail.of_pixels(self.pixels(), longest)

    @staticmethod
    def of_pixels(pixels: NDArray[np.uint8], longest: int = LONGEST) -> Thumbnail:
        """Return pixels, uint8 (height, width, 3), as a picture."""
        from PIL import Image

        image = Image.fromarray(pixels)
        image.thumbnail((longest, longest))
        return Thumbnail.of(image)

    @staticmethod
    def of(image: Image.Image) -> Thumbnail:
        """Return a picture, RGB, as it is."""
        file = io.BytesIO()
        image.save(file, "JPEG", quality=_QUALITY)
        return Thumbnail(file.getvalue(), image.width, image.height)


@dataclass(frozen=True)
class Served:
    """A small picture that has an address of its own; the application does not know its size before."""

    src: str
    width: int = LONGEST
    height: int = LONGEST
    served: ClassVar[bool] = True


def each(work: Callable[[T, Event], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Yield what threads make of items, in order; Ctrl-C sets the event that each is given."""
    stop = Event()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for _, made in run_ahead(pool, lambda item: work(item, stop), items, window=64):
                yield made
        finally:
            stop.set()  # nobody wants what is still being decoded


def thumbnails(photos: Iterable[KeyAndPhoto], longest: int = LONGEST) -> Iterator[Thumbnail | PhotoError]:
    """Yield a thumbnail of every photo, in order, or why there is none.

    Parameters
    ----------
    photos
        Key of each, and the photo; one whose bytes are not the key's any more gives none. An empty key
        takes them as they are.
    longest
        Longest side in pixels; smaller photos stay as they are.
    """
    return each(lambda photo, stop: thumbnail(photo, longest, stop), photos, cores())


def thumbnail(
    photo: KeyAndPhoto, longest: int = LONGEST, stop: Event | None = None
) -> Thumbnail | PhotoError:
    """Return a thumbnail of one photo, as `thumbnails` does, or why there is none."""
    key, source = photo
    try:
        data = source.read()
        if not key or key_of(data) == key:
            return Thumbnail.of(picture(data, longest, stop))
        reason = "changed since its features were computed"
    except (BreedsError, PhotoError) as error:
        reason = str(error)  # the error itself would keep the photo's bytes
    return PhotoError(reason)


def shown(picture: Thumbnail | Served | PhotoError) -> dict[str, Any]:
    """Return what a template needs of a picture, or of why there is none."""
    is_gone = isinstance(picture, PhotoError)
    return {"thumbnail": None if is_gone else picture, "missing": str(picture) if is_gone else ""}


@dataclass(frozen=True)
class Cut(Generic[T]):
    """The first of a list, and how many more there are."""

    shown: Sequence[T]
    more: int

    def each(self, make: Callable[[T], R]) -> Cut[R]:
        """Return what `make` gives for each of them."""
        return Cut([make(item) for item in self.shown], self.more)


def cut(items: Sequence[T], most: int) -> Cut[T]:
    """Return at most so many of a list."""
    return Cut(items[:most], max(0, len(items) - most))


def out_of(shown: int, total: int, things: str) -> str:
    """Say how many things there are, and how many of them are not shown."""
    more = f"; {total - shown:,} more are not shown" if total > shown else ""
    things = things.removesuffix("s") if total == 1 else things
    return f"{total:,} {things}{more}"


class Photos(Protocol):
    """Photos by their rows, as a page shows them."""

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


class Album:
    """The photos that a page from disk shows, each opened once.

    Parameters
    ----------
    root, path, key
        The folder that paths start from, and path and key of each row; its file must still have the bytes
        that its key says, whatever they are if that is "".
    page
        Where the page will lie; links start from there.
    bad
        Rows that are known to have no picture, each with the reason.
    """

    def __init__(
        self,
        root: str,
        path: Sequence[str],
        key: Sequence[str],
        page: Path,
        bad: Mapping[int, str] | None = None,
    ) -> None:
        self._root, self._path, self._key, self._bad = root, path, key, bad or {}
        self._page = page.absolute()
        self._thumbnails: dict[int, Thumbnail | PhotoError] = {}

    def fetch(self, rows: Iterable[int]) -> None:
        """Make the thumbnails of these rows, in parallel."""
        known = self._thumbnails.keys() | self._bad.keys()
        wanted = [row for row in dict.fromkeys(rows) if row not in known]
        self._thumbnails |= zip(wanted, self.pictures(wanted), strict=True)

    def pictures(self, rows: Iterable[int], longest: int = LONGEST) -> Iterator[Thumbnail | PhotoError]:
        """Yield pictures of photos, in their order, that are not kept."""
        return thumbnails(((self._key[row], photo_at(self._root, self._path[row])) for row in rows), longest)

    def file(self, row: int) -> str:
        """Return where a photo's file should be."""
        return os.path.join(self._root, self._path[row])

    def thumbnail(self, row: int) -> Thumbnail | PhotoError:
        """Return the thumbnail of a photo that was fetched, or why there is none."""
        return self._thumbnails.get(row) or PhotoError(self._bad.get(row, "not shown"))

    def photo(self, row: int, alt: str, longest: int = 0, **more: Any) -> dict[str, Any]:
        """Return what a template needs of a photo whose thumbnail was fetched, as `Photos.photo` says."""
        found = self.thumbnail(row)
        if isinstance(found, Thumbnail) and longest:
            found = found.smaller(longest)
        return {
            "key": self._key[row],
            "name": self._path[row],
            "href": link(self.file(row), self._page),
            "alt": alt,
            **shown(found),
            **more,
        }
