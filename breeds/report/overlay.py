"""A photo with what its parts say laid over it: warm for a class, cool against it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from breeds.photos import parse_resize

#: Orange and blue, which people with any colour blindness tell apart (Okabe and Ito, 2008).
FOR, AGAINST = (255, 122, 0), (0, 94, 215)
# How much of the colour there is at the end of the scale, and of the photo's own colours everywhere.
_STRONGEST, _COLOURFUL = 0.7, 0.15
# How much white is in the photo, as colours do not show on black fur.
_LIGHT = 0.15
# How much darker it is where the network did not see the photo.
_DARK, _UNSEEN = (0, 0, 0), 0.6


def overlay(
    photo: NDArray[np.uint8],
    evidence: NDArray[np.float64],
    resize: str = "stretch",
    limit: float = 0.0,
    size: int = 0,
) -> Image.Image:
    """Lay over a photo what each part of it says.

    Parameters
    ----------
    photo
        The upright photo, of any size, uint8 (height, width, 3).
    evidence
        What each cell says, for (above 0) or against (below), float64 (rows, columns).
    resize
        How the network's square was made of the photo, a rule of `breeds.photos.resize`.
    limit
        The evidence that has the strongest colour; by default, the largest of any cell.
    size
        The side of the network's square, in pixels; only rules such as ``crop256`` need it.

    Returns
    -------
    PIL.Image.Image
        RGB, of the photo's size, its colours faded. Where the network did not see the photo, it is dark.
    """
    height, width = photo.shape[:2]
    limit = limit or float(np.abs(evidence).max()) or 1.0
    strength = _over_photo(evidence / limit, width, height, resize, size)
    unseen, strength = np.isnan(strength), np.nan_to_num(strength)
    result = ImageEnhance.Color(Image.fromarray(photo)).enhance(_COLOURFUL)
    result.paste((255, 255, 255), (0, 0, width, height), Image.new("L", result.size, round(255 * _LIGHT)))
    for colour, share in (
        (FOR, _STRONGEST * strength.clip(0, 1)),
        (AGAINST, _STRONGEST * (-strength).clip(0, 1)),
        (_DARK, _UNSEEN * unseen),
    ):
        result.paste(colour, (0, 0, width, height), Image.fromarray((255 * share).astype(np.uint8)))
    return result


def colour_scale(width: int, height: int) -> Image.Image:
    """Return the colours from the strongest against to the strongest for, over grey, left to right."""
    grey = np.full((height, width, 3), 200, dtype=np.uint8)
    return overlay(grey, np.linspace(-1, 1, width)[None])


def _over_photo(
    cells: NDArray[np.float64], width: int, height: int, resize: str, size: int
) -> NDArray[np.float32]:
    """Enlarge the cells smoothly to the photo's size, float32 (height, width); NaN where none was seen.

    The inverse of how `breeds.photos.decode` takes its square from a photo.
    """
    rule = parse_resize(resize)
    kind, edge = (rule.kind, rule.edge) if rule else ("stretch", 0)
    if kind == "stretch":
        return _enlarged(cells, width, height)
    if kind == "pad":  # the square is larger than the photo, which lies in its middle
        side = max(width, height)
        left, top = (side - width) // 2, (side - height) // 2
        return _enlarged(cells, side, side)[top : top + height, left : left + width]
    side = min(width, height)  # the middle is cut out
    side = max(1, round(side * size / edge)) if edge else side
    left, top = (width - side) // 2, (height - side) // 2
    seen = np.full((height, width), np.nan, dtype=np.float32)
    seen[top : top + side, left : left + side] = _enlarged(cells, side, side)
    return seen


def _enlarged(cells: NDArray[np.float64], width: int, height: int) -> NDArray[np.float32]:
    image = Image.fromarray(cells.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
