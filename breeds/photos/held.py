"""Photos in memory: the bytes of a file, an image that is open already, or an array of its pixels."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from breeds.errors import PhotoError
from breeds.photos.addresses import is_url
from breeds.photos.decode import MAX_BYTES, decode, key_of, squared, upright_rgb

# What an array's last axis can be, beside none.
_BANDS = (1, 3, 4)


@dataclass(frozen=True, eq=False)
class Held:
    """A photo in memory.

    Parameters
    ----------
    key
        What it is known by: the SHA-256 of the file's bytes, or of an image's size and pixels.
    photo
        The file's bytes, or the image, upright and RGB.
    """

    key: str
    photo: bytes | Image.Image

    def pixels(
        self, size: int, resize: str, view: str, stop: threading.Event | None = None
    ) -> NDArray[np.uint8]:
        """Return its pixels, uint8 (size, size, 3), as `breeds.photos.decode` does of a file.

        Raises
        ------
        PhotoError
            As `breeds.photos.decode` does.
        """
        if isinstance(self.photo, bytes):
            return decode(self.photo, size, resize, view, stop)
        return squared(self.photo, size, resize, view, lambda: self.key)


def take(photo: Any) -> str | Held:
    """Return the path of a photo that is in a file, or a photo that is in memory.

    Parameters
    ----------
    photo
        A path (text or `os.PathLike`), the bytes of a photo's file, a Pillow image, or an array, uint8
        (height, width), grey, or (height, width, bands), of 1, 3 or 4 bands: grey, RGB, or RGB and how
        opaque.

    Raises
    ------
    PhotoError
        If it is none of these, or cannot be a photo.
    """
    if isinstance(photo, str | os.PathLike):
        path = os.fsdecode(photo)
        if is_url(path):
            raise PhotoError("is on the web; fetch it, and give its bytes")
        return path
    if isinstance(photo, bytes | bytearray | memoryview):
        data = bytes(photo)
        if not 0 < len(data) <= MAX_BYTES:
            raise PhotoError(f"{len(data)} bytes; a photo has 1 to {MAX_BYTES}")
        return Held(key_of(data), data)
    if isinstance(photo, np.ndarray):
        photo = _image_of(photo)
    if not isinstance(photo, Image.Image):
        raise PhotoError(f"{type(photo).__name__} is no photo; give a path, bytes, an image or an array")
    image = upright_rgb(photo)
    digest = hashlib.sha256(f"RGB {image.width} {image.height}\n".encode())
    digest.update(image.tobytes())
    return Held(digest.hexdigest(), image)


def _image_of(array: NDArray[Any]) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in _BANDS)
    if not fits or array.dtype != np.uint8 or not array.size:
        raise PhotoError(
            f"an array of {array.dtype} {array.shape} is no photo; give uint8 of shape (height, width, 3)"
        )
    return Image.fromarray(array)
