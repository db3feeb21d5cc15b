"""The decode rule: one photo's bytes to 8-bit RGB pixels of a fixed size, whatever the bytes are.

Only this module touches Pillow. Photos come from strangers: the format is checked by content
against an allow-list, sizes are checked before anything is decoded, and whatever the decoder
raises becomes the one reason that the quarantine records.
"""

from __future__ import annotations

import hashlib
import io
import random
import re
import struct
import threading
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from breeds.errors import BreedsError, PhotoError
from breeds.photos import limits, memory
from breeds.photos.limits import MAX_PIXELS
from breeds.photos.resize import resized

T = TypeVar("T")

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO")
# Modules of Pillow that register how a format is opened; JPEG's recognises MPO itself.
_PLUGINS = {name: f"PIL.{name.title()}ImagePlugin" for name in FORMATS if name != "MPO"}
_PLUGINS["WEBP"] = "PIL.WebPImagePlugin"
MAX_BYTES = limits.MAX_BYTES
#: The view of a photo as it is.
ORIGINAL = "original"

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
# Those that make its width its height.
_SIDEWAYS = {_UPRIGHT[number] for number in (5, 6, 7, 8)}


def key_of(data: bytes) -> str:
    """Return the photo's key: the SHA-256 of its bytes, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def decode(
    data: bytes,
    size: int,
    resize: str = "stretch",
    view: str = ORIGINAL,
    stop: threading.Event | None = None,
) -> NDArray[np.uint8]:
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
        A rule of `breeds.photos.resize`.
    view
        A variant of the photo: `ORIGINAL`; ``flip``, its mirror image; ``crop1``, ``crop2`` ...,
        rotated by up to 10 degrees, zoomed by up to 1.2 and shifted, all drawn from the photo's
        key, so that a view never changes.
    stop
        Once another thread sets it, decoding ends soon, with a `PhotoError`.

    Returns
    -------
    numpy.ndarray
        uint8, shape (size, size, 3), RGB.

    Raises
    ------
    PhotoError
        With the reason, if the photo is truncated, no photo of an allowed format, or asks for more pixels,
        memory, scans, metadata or time than it may (`breeds.photos.limits`).
    """

    def square(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
        image.load()
        seen = _viewed(_rgb(_upright(image)), view, data)
        return np.asarray(resized(seen, size, resize), np.uint8)

    return _opened_safely(data, size, view, square, stop)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an image that another program has opened as `decode` sees it; the image stays as it is.

    Raises
    ------
    PhotoError
        If it cannot be loaded, has no colours, or more pixels than a photo may have.
    """
    try:
        _check_pixels(image)
        if not (image.width and image.height):
            raise PhotoError("an image without pixels")
        return _rgb(_upright(image.copy()))
    except PhotoError:
        raise
    except Exception as error:  # as of a file that it is still to be loaded from
        raise _undecodable(error) from None


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        shape = f"{image.width}×{image.height}"
        raise PhotoError(f"{shape} is over the limit of {MAX_PIXELS // 10**6} megapixels")


def _undecodable(error: Exception) -> PhotoError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return PhotoError(f"cannot be decoded: {reason}")


class Look(NamedTuple):
    """A picture to look at, and the width and height of the photo itself, upright, in pixels."""

    picture: Image.Image
    width: int
    height: int


def picture(data: bytes, longest: int, stop: threading.Event | None = None) -> Image.Image:
    """Return the picture of `look`, without the photo's size."""
    return look(data, longest, stop).picture


def look(data: bytes, longest: int, stop: threading.Event | None = None) -> Look:
    """Decode a photo's bytes to look at: upright, in its own shape, within the same limits as `decode`.

    A JPEG is decoded no larger than it has to be, which is several times as fast; so this is no way to
    pixels for a network. Yet all of its bytes are decoded: what fails in `decode` fails here.

    Parameters
    ----------
    data
        The whole file's bytes.
    longest
        What the picture's longer side has at most, in pixels; a smaller photo stays as it is.
    stop
        As in `decode`.

    Returns
    -------
    Look
        The picture is RGB, the first frame of an animation, with transparency laid over white.

    Raises
    ------
    PhotoError
        As `decode` does.
    """

    def reduced(image: ImageFile.ImageFile) -> Look:
        full = image.size
        # Halves, quarters or eighths, and only of JPEG; other formats may turn themselves as they load.
        drafted = image.draft(None, (2 * longest, 2 * longest)) is not None
        image.load()
        width, height = full if drafted else image.size
        if _turn(image) in _SIDEWAYS:
            width, height = height, width
        shown = _rgb(_upright(image))
        shown.thumbnail((longest, longest))
        result = shown.copy()  # the photo itself is closed
        result.info.clear()  # what else the file says of itself would be saved with the picture
        return Look(result, width, height)

    return _opened_safely(data, longest, ORIGINAL, reduced, stop)


def _opened_safely(
    data: bytes,
    size: int,
    view: str,
    function: Callable[[ImageFile.ImageFile], T],
    stop: threading.Event | None = None,
) -> T:
    """Call `function` with the photo, opened and not loaded, within all limits.

    Raises
    ------
    PhotoError
        With the reason, whatever is wrong with the photo.
    """
    try:
        contents = limits.contents_of(data)
        with closing(limits.Watched(data, contents, stop)) as watched:
            image = _opened(watched, data[:16])
            watched.opened()
            _check_pixels(image)
            if image.format == "TIFF":
                limits.check_tiff(image, data)
            # Only JPEG's metadata are known before its pixels.
            turned = image.format not in ("JPEG", "MPO") or _turn(image) is not None
            wanted = memory.bytes_needed(image, contents, size, view, turned)
            with memory.BUDGET.hold(wanted), closing(image):
                return function(image)
    except PhotoError:
        raise
    except Image.DecompressionBombError:  # a limit of Pillow's, in some formats, that is above ours
        raise PhotoError(f"over the limit of {MAX_PIXELS // 10**6} megapixels") from None
    # A hostile file can make a decoder raise nearly anything; each of these is just a bad photo.
    except Exception as error:
        raise _undecodable(error) from None


def _opened(file: io.BytesIO, start: bytes) -> ImageFile.ImageFile:
    """Open a photo as `Image.open` does, but for its limit of pixels, which all of a process share."""
    for name, plugin in _PLUGINS.items():
        if name not in Image.OPEN:
            import_module(plugin)
        factory, accepts = Image.OPEN[name]
        if accepts is None or accepts(start) is not True:
            continue
        try:
            file.seek(0)
            return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
    raise PhotoError(f"not a photo of a known format ({', '.join(FORMATS)}), or damaged")


def _turn(image: Image.Image) -> Image.Transpose | None:
    limits.check_exif(image)
    try:
        return _UPRIGHT.get(image.getexif().get(274, 1))
    except PhotoError:
        raise
    except Exception:  # damaged metadata says nothing about the pixels
        return None


def _upright(image: Image.Image) -> Image.Image:
    turn = _turn(image)
    if turn is None:
        return image
    upright = image.transpose(turn)
    image.close()  # frees its pixels
    return upright


def _rgb(image: Image.Image) -> Image.Image:
    """Return a photo of any mode as RGB, converted a few rows at a time, as copies of all are dear."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    rows = max(1, memory.STRIPE_PIXELS // image.width)
    if image.height <= rows:
        return _rgb_stripe(image)
    result = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        stripe = image.crop((0, top, image.width, min(top + rows, image.height)))
        result.paste(_rgb_stripe(stripe), (0, top))
    return result


def _rgb_stripe(image: Image.Image) -> Image.Image:
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
        elif name == "crops" and re.fullmatch("[0-9]{1,2}", count) and 1 <= int(count) <= 32:
            views += [f"crop{number}" for number in range(1, int(count) + 1)]
        else:
            raise BreedsError(f"{part!r} in {text!r} names no view; use flip, crops:N, or both with a comma.")
    return list(dict.fromkeys(views))
