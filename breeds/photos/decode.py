"""The decode rule: one photo's bytes to 8-bit RGB pixels of a fixed size, whatever the bytes are.

Only this module touches Pillow. Photos come from strangers: the format is checked by content
against an allow-list, sizes are checked before anything is decoded, and whatever the decoder
raises becomes the one reason that the quarantine records.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import stat
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from breeds.errors import BreedsError, PhotoError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO")
# Pillow's JPEG opener recognises MPO itself.
_OPENERS = tuple(name for name in FORMATS if name != "MPO")
MAX_BYTES = 100 * 2**20
MAX_PIXELS = 128_000_000
#: How a photo's shape becomes a square: squeezed, the middle cut out, or grey bars added.
RESIZES = ("stretch", "crop", "pad")
#: The view of a photo as it is.
ORIGINAL = "original"

# Pillow's own limit only warns below twice its number; ours refuses, and before decoding.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of odd metadata in photos that decode well; nobody can act on it.
warnings.filterwarnings("ignore", module=r"PIL\.")

# EXIF orientation (tag 274) to the transposition that undoes it; 1 is upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read(path: str) -> bytes:
    """Read one photo's bytes.

    Raises
    ------
    PhotoError
        If it is no regular file, cannot be read, is empty, or is over `MAX_BYTES`.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise PhotoError("not a regular file")
        if status.st_size > MAX_BYTES:
            megabytes = status.st_size / 2**20
            raise PhotoError(f"{megabytes:.0f} MiB is over the limit of {MAX_BYTES // 2**20} MiB")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise PhotoError("no such file") from None
    except (OSError, ValueError) as error:
        raise PhotoError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not data:
        raise PhotoError("empty file (0 bytes)")
    return data


def key_of(data: bytes) -> str:
    """Return the photo's key: the SHA-256 of its bytes, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def decode(data: bytes, size: int, resize: str = "stretch", view: str = ORIGINAL) -> NDArray[np.uint8]:
    """Decode a photo's bytes to pixels.

    EXIF orientation is applied, the first frame of an animation taken, transparency laid over
    white, 16-bit grey scaled to 8 bits. ``stretch`` equals Keras's ``load_img(target_size=(size,
    size), interpolation="bilinear")`` and ``crop`` the same with ``keep_aspect_ratio=True``, for
    every photo that needs none of these.

    Parameters
    ----------
    data
        The whole file's bytes.
    size
        Width and height of the result, in pixels.
    resize
        One of `RESIZES`.
    view
        A variant of the photo: `ORIGINAL`; ``flip``, its mirror image; ``crop1``, ``crop2`` ...,
        rotated by up to 10 degrees, zoomed by up to 1.2 and shifted, all drawn from the photo's
        key, so that a view never changes.

    Returns
    -------
    numpy.ndarray
        uint8, shape (size, size, 3), RGB.

    Raises
    ------
    PhotoError
        With the reason, if the photo is truncated, too large, or no photo of an allowed format.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_OPENERS) as image:
            if image.width * image.height > MAX_PIXELS:
                shape = f"{image.width}×{image.height}"
                raise PhotoError(f"{shape} is over the limit of {MAX_PIXELS // 10**6} megapixels")
            image.load()
            upright = _viewed(_rgb(_upright(image)), view, data)
            return np.asarray(_resized(upright, size, resize), dtype=np.uint8)
    except PhotoError:
        raise
    except UnidentifiedImageError:
        names = ", ".join(FORMATS)
        raise PhotoError(f"not a photo of a known format ({names}), or damaged") from None
    # A hostile file can make a decoder raise nearly anything; each of these is just a bad photo.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PhotoError(f"cannot be decoded: {reason}") from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(274, 1))
    except Exception:  # damaged metadata says nothing about the pixels
        turn = None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise PhotoError("floating-point pixels have no defined white; save it as 8 or 16 bits")
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise PhotoError("32-bit pixels have no defined white; save it as 8 or 16 bits")
        clear = image.info.get("transparency")
        image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
        if isinstance(clear, int):  # one grey level stands for transparent
            image = image.convert("LA")
            image.putalpha(Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8)))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _viewed(image: Image.Image, view: str, data: bytes) -> Image.Image:
    """Return the variant of an upright photo that `view` names."""
    if view == ORIGINAL:
        return image
    if view == "flip":
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    # A random.Random of text is the same on every machine and in every version of Python.
    chance = random.Random(f"{view} {key_of(data)}")
    if chance.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turned = image.rotate(chance.uniform(-10, 10), Image.Resampling.BILINEAR, fillcolor=(128, 128, 128))
    share = 1 / chance.uniform(1, 1.2)
    width, height = max(1, round(image.width * share)), max(1, round(image.height * share))
    left, top = (round(chance.random() * room) for room in (image.width - width, image.height - height))
    return turned.crop((left, top, left + width, top + height))


def parse_views(text: str) -> list[str]:
    """Return the names of views in a list such as ``flip,crops:4``.

    Raises
    ------
    BreedsError
        If a part of the list is neither ``flip`` nor ``crops:N``.
    """
    views = []
    for part in (part.strip() for part in text.split(",")):
        name, _, count = part.partition(":")
        if part == "flip":
            views.append("flip")
        elif name == "crops" and count.isdigit() and 1 <= int(count) <= 32:
            views += [f"crop{number}" for number in range(1, int(count) + 1)]
        else:
            raise BreedsError(f"{part!r} in {text!r} names no view; use flip, crops:N, or both with a comma.")
    return list(dict.fromkeys(views))


def _resized(image: Image.Image, size: int, resize: str) -> Image.Image:
    square = (size, size)
    if image.size == square:
        return image
    if resize == "crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        return image.resize(square, Image.Resampling.BILINEAR, box=box)
    if resize == "pad":
        return ImageOps.pad(image, square, Image.Resampling.BILINEAR, color=(128, 128, 128))
    return image.resize(square, Image.Resampling.BILINEAR)
