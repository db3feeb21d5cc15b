"""One picture that explains an answer: the photo, what speaks for the answer, what tells it from the next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from breeds.report.overlay import colour_scale

Colour = tuple[int, int, int]

_MARGIN, _GAP, _NARROWEST = 20, 14, 260
# Control characters, halves of characters, and what turns the direction of writing.
_NO_LETTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_LONGEST_TEXT = 300
_INK, _QUIET, _PAPER = (25, 25, 25), (105, 105, 105), (255, 255, 255)


def card(
    headline: str, detail: str, panels: Sequence[tuple[str, Image.Image]], note: str = ""
) -> Image.Image:
    """Put pictures of one size side by side under a caption, with the scale of colours below.

    Parameters
    ----------
    headline, detail
        The caption, in large and in small letters; cut where the pictures end.
    panels
        What each picture is called, and the picture.
    note
        What to say beside the scale.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    width, height = panels[0][1].size
    column = max(width, _NARROWEST)
    inside = len(panels) * column + (len(panels) - 1) * _GAP
    result = Image.new("RGB", (inside + 2 * _MARGIN, height + 152), _PAPER)
    draw = ImageDraw.Draw(result)
    _write(draw, (_MARGIN, 14), headline, 24, _INK, inside)
    _write(draw, (_MARGIN, 46), detail, 15, _QUIET, inside)
    for number, (title, picture) in enumerate(panels):
        left = _MARGIN + number * (column + _GAP)
        _write(draw, (left, 78), title, 15, _INK, column)
        result.paste(picture, (left, 102))
    left, top = _MARGIN, 102 + height + 18
    left += _scale(result, draw, top) + 2 * _GAP
    _write(draw, (left, top), note, 13, _QUIET, result.width - _MARGIN - left)
    return result


def _scale(result: Image.Image, draw: ImageDraw.ImageDraw, top: int) -> int:
    """Draw the scale of colours with what its ends stand for, and return its width."""
    font, bar = _font(13), colour_scale(160, 12)
    draw.text((_MARGIN, top), "speaks against", _QUIET, font)
    left = _MARGIN + round(draw.textlength("speaks against", font)) + 8
    result.paste(bar, (left, top + 2))
    left += bar.width + 8
    draw.text((left, top), "speaks for", _QUIET, font)
    return left + round(draw.textlength("speaks for", font)) - _MARGIN


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: Colour, room: int
) -> None:
    """Write one line, whatever the text is, and cut it with an ellipsis where there is no room."""
    font = _font(size)
    text = " ".join(_NO_LETTERS.sub(" ", text[:_LONGEST_TEXT]).split())
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
