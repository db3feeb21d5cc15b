"""A folder that shows why: a picture for every answer, and a table of them with the nearest photos."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

import numpy as np

from breeds.errors import PhotoError
from breeds.files import check_writable, write_aside
from breeds.heads.explain import EXACT, Explanation
from breeds.heads.model import Model
from breeds.pages.card import card
from breeds.pages.overlay import overlay
from breeds.photos import key_of, picture, read
from breeds.predict import Answer
from breeds.predict.answers import UNKNOWN, safe_cell
from breeds.predict.evidence import Evidence

TABLE = "explanations.csv"
_NEAREST = 3
# Of each of the pictures side by side, in pixels.
_LONGEST = 420
_COLUMNS = (
    "photo",
    "picture",
    "answer",
    "guess",
    "probability",
    "runner_up",
    "runner_up_probability",
    "kind",
)


class PictureFolder:
    """Saves a picture for every answer that comes by, and a row about it in `TABLE`.

    `failed` lists the photos that were answered and have no picture, each with the reason.

    Parameters
    ----------
    folder
        Where; made if it is not there.

    Raises
    ------
    BreedsError
        At once, if nothing can be written there.
    """

    def __init__(self, folder: Path) -> None:
        check_writable(folder / TABLE)
        self._folder = folder
        self.failed: list[tuple[str, str]] = []

    def save(self, answers: Iterable[Answer], model: Model) -> Iterator[Answer]:
        """Yield every answer of the model when its picture is saved; the table is there after the last."""
        with (
            write_aside(self._folder / TABLE) as aside,
            open(aside, "w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            nearest = [
                f"{name}_{n + 1}" for n in range(_NEAREST) for name in ("nearest", "label", "similarity")
            ]
            writer.writerow([*_COLUMNS, *nearest, "error"])
            for answer in answers:
                writer.writerow([safe_cell(cell) for cell in self._row(answer, model)])
                yield answer

    def _row(self, answer: Answer, model: Model) -> list[str]:
        empty = [""] * (len(_COLUMNS) - 1 + 3 * _NEAREST)
        if answer.probabilities is None:
            return [answer.path, *empty, answer.error]
        try:
            if not isinstance(answer.evidence, Evidence):
                raise answer.evidence or PhotoError("was not explained")
            name = self._save_picture(answer, answer.evidence.explanation, model)
        except PhotoError as error:
            self.failed.append((answer.path, str(error)))
            return [answer.path, *empty, str(error)]
        first, second = _two_best(answer)
        classes, shares = model.classes, answer.probabilities
        cells = [UNKNOWN if answer.unknown else classes[first], classes[first], f"{shares[first]:.6f}"]
        cells += [classes[second], f"{shares[second]:.6f}", answer.evidence.explanation.kind]
        for near in answer.evidence.nearest:
            cells += [near.path, near.label, f"{near.similarity:.4f}"]
        cells += [""] * (3 * (_NEAREST - len(answer.evidence.nearest)))
        return [answer.path, name, *cells, ""]

    def _save_picture(self, answer: Answer, explanation: Explanation, model: Model) -> str:
        """Save the picture of an answer and return its name."""
        data = read(answer.path)
        if key_of(data) != answer.key:
            raise PhotoError("changed while it was being read; run again")
        shown = picture(data, _LONGEST)
        name = picture_name(answer.path, answer.key)
        first, second = _two_best(answer)
        names, shares, resize = model.classes, answer.probabilities, model.recipe.resize
        assert shares is not None
        maps = explanation.speaks_for(first), explanation.speaks_for(first, rather_than=second)
        limit = max(float(np.abs(cells).max()) for cells in maps)
        pixels = np.asarray(shown)
        titles = f"Speaks for {names[first]}", f"For {names[first]} rather than {names[second]}"
        guess = f"{names[first]}, {shares[first]:.1%}"
        made = card(
            f"{UNKNOWN}; closest is {guess}" if answer.unknown else guess,
            f"Runner-up: {names[second]}, {shares[second]:.1%}. {_HOW[explanation.kind == EXACT]}",
            [
                ("The photo", shown),
                *(
                    (title, overlay(pixels, cells, resize, limit))
                    for title, cells in zip(titles, maps, strict=True)
                ),
            ],
        )
        with write_aside(self._folder / name) as aside:
            made.save(aside, "JPEG", quality=90, subsampling=0)
        return name


_HOW = ("Parts of the photo by the head's gradient.", "The parts' average makes the score, exactly.")


def picture_name(path: str, key: str) -> str:
    r"""Return a name for a photo's picture that is safe everywhere and belongs to its content alone.

    Examples
    --------
    >>> picture_name("../=Rex & <b>\n.jpg", "ab" * 32)
    'Rex_b-abababababababab.jpg'
    """
    stem = re.sub(r"[^A-Za-z0-9-]+", "_", PurePath(path).stem)[:60].strip("_-")
    return f"{stem or 'photo'}-{key[:16]}.jpg"


def _two_best(answer: Answer) -> tuple[int, int]:
    assert answer.probabilities is not None
    first, second = np.argsort(-answer.probabilities, kind="stable")[:2]
    return int(first), int(second)
