"""One picture that explains an answer: the photo, what speaks for the answer, what tells it from the next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from breeds.pages.overlay import colour_scale

_MARGIN, _GAP = 20, 12
_INK, _QUIET, _PAPER = (25, 25, 25), (105, 105, 105), (255, 255, 255)


def card(headline: str, detail: str, panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Put pictures of one size side by side under a caption, with the scale of colours below.

    Parameters
    ----------
    headline, detail
        The caption, in large and in small letters; cut where the pictures end.
    panels
        What each picture is called, and the picture.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    width, height = panels[0][1].size
    column = max(width, 180)
    inside = len(panels) * column + (len(panels) - 1) * _GAP
    result = Image.new("RGB", (inside + 2 * _MARGIN, height + 152), _PAPER)
    draw = ImageDraw.Draw(result)
    _write(draw, (_MARGIN, 14), headline, 24, _INK, inside)
    _write(draw, (_MARGIN, 46), detail, 15, _QUIET, inside)
    for number, (title, picture) in enumerate(panels):
        left = _MARGIN + number * (column + _GAP)
        _write(draw, (left, 78), title, 15, _INK, column)
        result.paste(picture, (left, 102))
    _scale(result, draw, 102 + height + 18)
    return result


def _scale(result: Image.Image, draw: ImageDraw.ImageDraw, top: int) -> None:
    """Draw the scale of colours with what its ends stand for."""
    font, bar = _font(13), colour_scale(160, 12)
    draw.text((_MARGIN, top), "speaks against", _QUIET, font)
    left = _MARGIN + round(draw.textlength("speaks against", font)) + 8
    result.paste(bar, (left, top + 2))
    draw.text((left + bar.width + 8, top), "speaks for", _QUIET, font)


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    size: int,
    colour: tuple[int, int, int],
    room: int,
) -> None:
    """Write one line, whatever the text is, and cut it with an ellipsis where there is no room."""
    font = _font(size)
    text = " ".join(
        re.sub(r"[\x00-\x1f\x7f\ud800-\udfff\u202a-\u202e\u2066-\u2069]", " ", text[:500]).split()
    )
    if draw.textlength(text, font) > room:
        while text and draw.textlength(f"{text}…", font) > room:
            text = text[:-1]
        text = f"{text.rstrip()}…"
    draw.text(at, text, colour, font)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which comes with matplotlib and has more alphabets than Pillow's own font."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)
