"""Where the network looked: a photo with its evidence laid over it, and a folder of such pictures.

`overlay` is what every page shows; `PictureFolder` writes what ``--explain`` asks for.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from breeds.errors import PhotoError
from breeds.files import write_aside
from breeds.heads.explain import EXACT, GRADIENT, NEAREST
from breeds.heads.model import Model
from breeds.outputs import EXPLANATIONS, PICTURE, check_output, replaceable
from breeds.photos import key_of, parse_resize, photo_at, picture
from breeds.report.answers import COLUMNS, Ranked, Value, as_cell, ranked, said
from breeds.text import UNKNOWN, certainty

if TYPE_CHECKING:
    from breeds.prediction import Answer, Evidence

Colour = tuple[int, int, int]

TABLE = "explanations.csv"
# What the table calls the answer.
_NAMED = {"breed": "answer"}
_COLUMNS = [
    "photo", "picture", *(_NAMED.get(column.name, column.name) for column in COLUMNS),
    "runner_up", "runner_up_probability", "kind",
    *(f"{name}_{number + 1}" for number in range(NEAREST) for name in ("nearest", "label", "similarity")),
    "error",
]  # fmt: skip
_KINDS = {
    EXACT: "Exact: its average, plus a constant, is the score.",
    GRADIENT: "By the gradient of the dense head: a first approximation.",
}
# Longer side of each of the three pictures beside each other, in pixels.
_LONGEST = 360
#: Orange and blue, which people with any colour blindness tell apart (Okabe and Ito, 2008).
FOR, AGAINST = (255, 122, 0), (0, 94, 215)
# How much of the colour there is at the end of the scale, and of the photo's own colours everywhere.
_STRONGEST, _COLOURFUL = 0.7, 0.15
# How much white is in the photo, as colours do not show on black fur.
_LIGHT = 0.15
# How much darker it is where the network did not see the photo.
_DARK, _UNSEEN = (0, 0, 0), 0.6
_MARGIN, _GAP, _NARROWEST = 20, 14, 260
# Control characters, halves of characters, and what turns the direction of writing.
_NO_LETTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_LONGEST_TEXT = 300
_INK, _QUIET, _PAPER = (25, 25, 25), (105, 105, 105), (255, 255, 255)


class PictureFolder:
    """Saves a picture for every answer that comes by, and a row about it in `TABLE`.

    `failed` lists the photos that were answered and have no picture, each with the reason.

    Parameters
    ----------
    folder
        Where; made when there is something to write.

    Raises
    ------
    BreedsError
        At once, if nothing can be written there.
    """

    def __init__(self, folder: Path) -> None:
        check_output(folder / TABLE, EXPLANATIONS)
        self._folder = folder
        self.failed: list[tuple[str, str]] = []

    def save(self, answers: Iterable[Answer], model: Model) -> Iterator[Answer]:
        """Yield every answer of the model when its picture is saved; the table is there after the last."""
        with (
            write_aside(self._folder / TABLE) as aside,
            open(aside, "w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
            writer.writeheader()
            for answer in answers:
                row: dict[str, Value] = {"photo": answer.path, **self._explained(answer, model)}
                writer.writerow({column: as_cell(value) for column, value in row.items()})
                yield answer

    def _explained(self, answer: Answer, model: Model) -> dict[str, Value]:
        """Save the picture of an answer and return what the table says of it."""
        best, evidence = ranked(answer, model.classes, 2), answer.evidence
        if not best:
            return {"error": answer.error}
        try:
            if evidence is None or isinstance(evidence, PhotoError):
                raise PhotoError(str(evidence or "was not explained"))
            name = self._save_picture(answer, best, evidence, model)
        except PhotoError as error:
            self.failed.append((answer.path, str(error)))
            return {"error": str(error)}
        return {"picture": name, **_row(answer, best, evidence)}

    def _save_picture(self, answer: Answer, best: Ranked, evidence: Evidence, model: Model) -> str:
        """Save the picture of an answer and return its name."""
        data = (answer.photo or photo_at("", answer.path)).read()
        if key_of(data) != answer.key:
            raise PhotoError("changed while it was being read; run again")
        drawn = _drawn(_at_least(picture(data, _LONGEST)), answer, best, evidence, model)
        name = picture_name(answer.path, answer.key)
        if not replaceable(self._folder / name, PICTURE):
            raise PhotoError(f"{name} is there and is not {PICTURE.name}")
        with write_aside(self._folder / name) as aside:
            drawn.save(aside, "JPEG", quality=90, subsampling=0, comment=b"Breeds")
        return name


def picture_name(path: str, key: str) -> str:
    r"""Return a name for a photo's picture that is safe everywhere and belongs to its content alone.

    Examples
    --------
    >>> picture_name("../=Rex & <b>\n.jpg", "ab" * 32)
    'Rex_b-abababababababab.jpg'
    """
    stem = re.sub(r"[^A-Za-z0-9-]+", "_", PurePath(path).stem)[:60].strip("_-")
    return f"{stem or 'photo'}-{key[:16]}.jpg"


def _row(answer: Answer, best: Ranked, evidence: Evidence) -> dict[str, Value]:
    row: dict[str, Value] = {_NAMED.get(name, name): value for name, value in said(answer, best).items()}
    row |= {
        "runner_up": best[1][0],
        "runner_up_probability": best[1][1],
        "kind": evidence.explanation.kind,
    }
    for number, near in enumerate(evidence.nearest, start=1):
        row |= {
            f"nearest_{number}": near.path,
            f"label_{number}": near.label,
            f"similarity_{number}": f"{near.similarity:.4f}",
        }
    return row


def _drawn(shown: Image.Image, answer: Answer, best: Ranked, evidence: Evidence, model: Model) -> Image.Image:
    """Draw the picture of an answer: the photo, and twice what its parts say, on one scale of colours."""
    (first, share), (second, second_share) = best
    explanation, number = evidence.explanation, model.classes.index
    maps = (
        explanation.speaks_for(number(first)),
        explanation.speaks_for(number(first), rather_than=number(second)),
    )
    limit = max(float(np.abs(cells).max()) for cells in maps)
    laid = [
        overlay(np.asarray(shown), cells, model.config.resize, limit, model.config.size) for cells in maps
    ]
    guess = f"{first}, {certainty(share)}"
    return card(
        f"{UNKNOWN}; closest is {guess}" if answer.unknown else guess,
        f"Runner-up: {second}, {certainty(second_share)}",
        [("The photo", shown), (f"Speaks for {first}", laid[0]), (f"Rather than {second}", laid[1])],
        _KINDS[explanation.kind] + (" Dark: not seen." if model.config.resize.startswith("crop") else ""),
    )


def _at_least(shown: Image.Image) -> Image.Image:
    """Return a small photo large enough to see something."""
    factor = _LONGEST / max(shown.size)
    if factor <= 1:
        return shown
    width, height = (max(1, round(side * factor)) for side in shown.size)
    return shown.resize((width, height), Image.Resampling.BICUBIC)


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
    for number, (title, panel) in enumerate(panels):
        left = _MARGIN + number * (column + _GAP)
        _write(draw, (left, 78), title, 15, _INK, column)
        result.paste(panel, (left, 102))
    left, top = _MARGIN, 102 + height + 18
    left += _scale(result, draw, top) + 2 * _GAP
    _write(draw, (left, top), note, 13, _QUIET, result.width - _MARGIN - left)
    return result


def _scale(result: Image.Image, draw: ImageDraw.ImageDraw, top: int) -> int:
    """Draw the scale of colours with what its ends stand for, and return its width."""
    font, grey = _font(13), np.full((12, 160, 3), 200, dtype=np.uint8)
    bar = overlay(grey, np.linspace(-1, 1, 160)[None])  # from the strongest against to the strongest for
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
