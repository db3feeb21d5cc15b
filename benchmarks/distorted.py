"""Photos as people take them: views of photos that differ in framing, size, light and number of dogs."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance

Photo = Image.Image


def _zoomed_out(share: float) -> Callable[[Photo, Photo, np.random.Generator], Photo]:
    def view(photo: Photo, other: Photo, rng: np.random.Generator) -> Photo:
        width, height = photo.size
        border = Image.new("RGB", photo.size, tuple(rng.integers(0, 256, 3).tolist()))
        small = photo.resize((round(share * width), round(share * height)), Image.Resampling.LANCZOS)
        x, y = rng.random(2)
        border.paste(small, (round(x * (width - small.width)), round(y * (height - small.height))))
        return border

    return view


def _zoomed_in(photo: Photo, other: Photo, rng: np.random.Generator) -> Photo:
    width, height = photo.size
    return photo.crop((round(0.2 * width), round(0.2 * height), round(0.8 * width), round(0.8 * height)))


def _small(photo: Photo, other: Photo, rng: np.random.Generator) -> Photo:
    size = photo.size
    return photo.resize((64, 64), Image.Resampling.LANCZOS).resize(size, Image.Resampling.BICUBIC)


def _darker(photo: Photo, other: Photo, rng: np.random.Generator) -> Photo:
    return ImageEnhance.Brightness(photo).enhance(0.35)


def _jpeg(photo: Photo, other: Photo, rng: np.random.Generator) -> Photo:
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=10)
    return Image.open(file)


def _two(photo: Photo, other: Photo, rng: np.random.Generator) -> Photo:
    width, height = photo.size
    both = Image.new("RGB", (2 * width, height))
    both.paste(photo, (0, 0))
    both.paste(other.resize(photo.size), (width, 0))
    return both


def _two_halves(photo: Photo, other: Photo, rng: np.random.Generator) -> Photo:
    width, height = photo.size
    middle = (width // 4, 0, width // 4 + width // 2, height)
    return _two(photo.crop(middle), other.resize(photo.size).crop(middle), rng)


#: Every view: of a photo, and of another of the same class for those of two.
VIEWS: dict[str, Callable[[Photo, Photo, np.random.Generator], Photo]] = {
    "zoomed out to 60 %": _zoomed_out(0.6),
    "zoomed out to 40 %": _zoomed_out(0.4),
    "zoomed in to 60 %": _zoomed_in,
    "64 pixels, enlarged": _small,
    "darker": _darker,
    "JPEG of quality 10": _jpeg,
    "two side by side": _two,
    "halves side by side": _two_halves,
}
