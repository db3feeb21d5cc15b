"""Photos as other programs have them: a path, a file's bytes, an open image, or an array of its pixels."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from breeds.errors import PhotoError
from breeds.photos.addresses import is_url
from breeds.photos.decode import upright_rgb
from breeds.photos.inside import photo_at
from breeds.photos.limits import MAX_BYTES
from breeds.photos.photo import MemoryPhoto, Photo

# What an array's last axis can be, beside none.
_BANDS = (1, 3, 4)


def photo_of(value: Any) -> Photo:
    """Return what another program has as a photo; an image is held as a bitmap of its pixels.

    Parameters
    ----------
    value
        A path (text or `os.PathLike`), the bytes of a photo's file, a Pillow image, or an array, uint8
        (height, width), grey, or (height, width, bands), of 1, 3 or 4 bands: grey, RGB, or RGB and how
        opaque.

    Raises
    ------
    PhotoError
        If it is none of these, or cannot be a photo.
    """
    if isinstance(value, str | os.PathLike):
        path = os.fsdecode(value)
        if is_url(path):
            raise PhotoError("is on the web; fetch it, and give its bytes")
        return photo_at("", path)
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        if not 0 < len(data) <= MAX_BYTES:
            raise PhotoError(f"{len(data)} bytes; a photo has 1 to {MAX_BYTES}")
        return MemoryPhoto(data)
    if isinstance(value, np.ndarray):
        value = _image_of(value)
    if not isinstance(value, Image.Image):
        raise PhotoError(f"{type(value).__name__} is no photo; give a path, bytes, an image or an array")
    bitmap = io.BytesIO()
    upright_rgb(value).save(bitmap, "BMP")
    return MemoryPhoto(bitmap.getvalue())


def _image_of(array: NDArray[Any]) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in _BANDS)
    if not fits or array.dtype != np.uint8 or not array.size:
        raise PhotoError(
            f"an array of {array.dtype} {array.shape} is no photo; give uint8 of shape (height, width, 3)"
        )
    return Image.fromarray(array)
