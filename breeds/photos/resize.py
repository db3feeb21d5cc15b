"""The resize rule: how an upright photo of any shape becomes a square of a fixed size, as a config names it.

A rule is ``stretch``, ``crop`` or ``pad``; ``cropN`` resizes the shorter side to N pixels and cuts out the
middle, as networks from model hubs want it. Each may end in another resampling than bilinear, such as
``crop256-bicubic``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from PIL import Image, ImageOps

#: How a photo's shape becomes a square: squeezed, the middle cut out, or grey bars added.
RESIZES = ("stretch", "crop", "pad")
#: What a rule may end in, in place of bilinear.
RESAMPLINGS = ("nearest", "lanczos", "bicubic", "box", "hamming")
_RULE = re.compile(rf"({'|'.join(RESIZES)})(?:(?<=crop)([1-9][0-9]{{0,3}}))?(?:-({'|'.join(RESAMPLINGS)}))?")
#: The rules, in words.
RULES = f"stretch, crop, cropN or pad, which may end in {', '.join(f'-{name}' for name in RESAMPLINGS)}"
_GREY = (128, 128, 128)


class Rule(NamedTuple):
    """A resize rule, taken apart.

    Attributes
    ----------
    kind
        One of `RESIZES`.
    edge
        What the shorter side is resized to, in pixels, before the middle is cut out; 0 where the whole of the
        shorter side is seen.
    resampling
        How pixels are taken, one of Pillow's.
    """

    kind: str
    edge: int
    resampling: Image.Resampling


@lru_cache(maxsize=100)
def parse_resize(text: str) -> Rule | None:
    """Return a rule, or None if it is none.

    Examples
    --------
    >>> parse_resize("crop256-bicubic")
    Rule(kind='crop', edge=256, resampling=<Resampling.BICUBIC: 3>)
    >>> parse_resize("zoom")
    """
    found = _RULE.fullmatch(text)
    if found is None:
        return None
    return Rule(found[1], int(found[2] or 0), Image.Resampling[(found[3] or "bilinear").upper()])


def fits(rule: str, size: int) -> bool:
    """Say whether there is such a rule and it can give a square of `size` pixels."""
    found = parse_resize(rule)
    return found is not None and (not found.edge or found.edge >= size)


def resized(image: Image.Image, size: int, rule: str) -> Image.Image:
    """Return an RGB image as a square of `size` pixels.

    Raises
    ------
    ValueError
        If there is no such rule.
    """
    found = parse_resize(rule)
    if found is None:
        raise ValueError(f"no resize rule {rule}")
    square, how = (size, size), found.resampling
    if found.edge:
        return image.resize(square, how, box=_middle(image.width, image.height, size, found.edge))
    if image.size == square:
        return image
    if found.kind == "crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.resize(square, how, box=(left, top, left + side, top + side))
    if found.kind == "pad":
        return ImageOps.pad(image, square, how, color=_GREY)
    return image.resize(square, how)


def _middle(width: int, height: int, size: int, edge: int) -> tuple[float, float, float, float]:
    """Return what of a photo is seen where its shorter side becomes `edge` and the middle `size` is cut out.

    The photo is never resized as a whole, as one of extreme shape would take all memory; pixels are the same
    but for rounding.
    """
    shorter = min(width, height)
    box = []
    for side in (width, height):
        whole = edge * side // shorter
        start = (whole - size) // 2
        box.append((start * side / whole, (start + size) * side / whole))
    (left, right), (top, bottom) = box
    return left, top, right, bottom
