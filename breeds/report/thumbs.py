"""Small pictures of photos, made in parallel, where the photos can still be found."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from breeds.backbones.pipeline import KeyAndPhoto, run_ahead
from breeds.backbones.processes import cores
from breeds.errors import PhotoError
from breeds.photos import key_of, picture
from breeds.report.render import data_address

if TYPE_CHECKING:
    from PIL import Image

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

    def smaller(self, longest: int) -> Thumbnail:
        """Return it with a longest side of `longest` pixels at most."""
        from PIL import Image

        with Image.open(io.BytesIO(self.data)) as image:
            image.thumbnail((longest, longest))
            return Thumbnail.of(image)

    @staticmethod
    def of_pixels(pixels: NDArray[np.uint8], longest: int = LONGEST) -> Thumbnail:
        """Return pixels, uint8 (height, width, 3), such as `breeds.photos.decode` gives, as a picture."""
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
    """A small picture that a page asks the application for; its size is not known before."""

    src: str
    width: int = LONGEST
    height: int = LONGEST
    served: ClassVar[bool] = True


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
    stop = threading.Event()
    with ThreadPoolExecutor(cores()) as pool:
        try:
            for _, found in run_ahead(
                pool, partial(thumbnail, longest=longest, stop=stop), photos, window=64
            ):
                yield found
        finally:
            stop.set()  # after Ctrl-C, nobody wants what is still being decoded


def thumbnail(
    photo: KeyAndPhoto, longest: int = LONGEST, stop: threading.Event | None = None
) -> Thumbnail | PhotoError:
    """Return a thumbnail of one photo, as `thumbnails` does, or why there is none."""
    key, source = photo
    try:
        data = source.read()
        if key and key_of(data) != key:
            return PhotoError("changed since its features were computed")
        return Thumbnail.of(picture(data, longest, stop))
    except PhotoError as error:
        reason = str(error)
    return PhotoError(reason)
