"""Photos as people take them: views of photos that differ in framing, size, light and number of dogs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

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
    "out to 60 %": _zoomed_out(0.6),
    "out to 40 %": _zoomed_out(0.4),
    "in to 60 %": _zoomed_in,
    "64 pixels": _small,
    "darker": _darker,
    "JPEG 10": _jpeg,
    "two dogs": _two,
    "two halves": _two_halves,
}


def write(photos: dict[str, Path], pairs: dict[str, str], folder: Path) -> None:
    """Write every view of every photo as ``folder/VIEW/KEY.png``, always the same.

    `photos` are by key; `pairs` names for each the key of another one of its class.
    """
    for name, view in VIEWS.items():
        (folder / name).mkdir(parents=True)
        for key, path in photos.items():
            with Image.open(path) as one, Image.open(photos[pairs[key]]) as other:
                made = view(one.convert("RGB"), other.convert("RGB"), np.random.default_rng(int(key[:8], 16)))
            made.save(folder / name / f"{key}.png", compress_level=1)
