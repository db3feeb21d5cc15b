"""A folder that shows why: a picture for every answer, and a table of them with the nearest photos."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from breeds.errors import PhotoError
from breeds.files import write_aside
from breeds.heads.explain import EXACT, GRADIENT
from breeds.heads.model import Model
from breeds.heads.neighbours import NEAREST
from breeds.labels import UNKNOWN
from breeds.outputs import EXPLANATIONS, PICTURE, check_output, replaceable
from breeds.photos import key_of, photo_at, picture
from breeds.prediction import Answer
from breeds.prediction.evidence import Evidence
from breeds.report.answers import safe_cell
from breeds.report.card import card
from breeds.report.overlay import overlay
from breeds.text import certainty

TABLE = "explanations.csv"
_COLUMNS = [
    "photo", "picture", "answer", "guess", "probability", "runner_up", "runner_up_probability", "kind",
    *(f"{name}_{number + 1}" for number in range(NEAREST) for name in ("nearest", "label", "similarity")),
    "error",
]  # fmt: skip
_KINDS = {
    EXACT: "Exact: its average, plus a constant, is the score.",
    GRADIENT: "By the gradient of the dense head: a first approximation.",
}
# Longer side of each of the three pictures beside each other, in pixels.
_LONGEST = 360


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
                row = {"photo": answer.path, **self._explained(answer, model)}
                writer.writerow({column: safe_cell(text) for column, text in row.items()})
                yield answer

    def _explained(self, answer: Answer, model: Model) -> dict[str, str]:
        """Save the picture of an answer and return what the table says of it."""
        if answer.probabilities is None:
            return {"error": answer.error}
        try:
            if not isinstance(answer.evidence, Evidence):
                raise answer.evidence or PhotoError("was not explained")
            name = self._save_picture(answer, answer.probabilities, answer.evidence, model)
        except PhotoError as error:
            self.failed.append((answer.path, str(error)))
            return {"error": str(error)}
        return {"picture": name, **_row(answer, answer.probabilities, answer.evidence, model.classes)}

    def _save_picture(
        self, answer: Answer, shares: NDArray[np.float64], evidence: Evidence, model: Model
    ) -> str:
        """Save the picture of an answer and return its name."""
        data = (answer.photo or photo_at("", answer.path)).read()
        if key_of(data) != answer.key:
            raise PhotoError("changed while it was being read; run again")
        shown = _enlarged(picture(data, _LONGEST))
        drawn = _drawn(shown, shares, answer.unknown, evidence, model)
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


def _row(
    answer: Answer, shares: NDArray[np.float64], evidence: Evidence, classes: list[str]
) -> dict[str, str]:
    first, second = _two_best(shares)
    row = {
        "answer": UNKNOWN if answer.unknown else classes[first],
        "guess": classes[first],
        "probability": f"{shares[first]:.6f}",
        "runner_up": classes[second],
        "runner_up_probability": f"{shares[second]:.6f}",
        "kind": evidence.explanation.kind,
    }
    for number, near in enumerate(evidence.nearest, start=1):
        row |= {
            f"nearest_{number}": near.path,
            f"label_{number}": near.label,
            f"similarity_{number}": f"{near.similarity:.4f}",
        }
    return row


def _drawn(
    shown: Image.Image, shares: NDArray[np.float64], unknown: bool, evidence: Evidence, model: Model
) -> Image.Image:
    """Draw the picture of an answer: the photo, and twice what its parts say, on one scale of colours."""
    first, second = _two_best(shares)
    explanation, names = evidence.explanation, model.classes
    maps = explanation.speaks_for(first), explanation.speaks_for(first, rather_than=second)
    limit = max(float(np.abs(cells).max()) for cells in maps)
    laid = [
        overlay(np.asarray(shown), cells, model.config.resize, limit, model.config.size) for cells in maps
    ]
    guess = f"{names[first]}, {certainty(shares[first])}"
    return card(
        f"{UNKNOWN}; closest is {guess}" if unknown else guess,
        f"Runner-up: {names[second]}, {certainty(shares[second])}",
        [
            ("The photo", shown),
            (f"Speaks for {names[first]}", laid[0]),
            (f"Rather than {names[second]}", laid[1]),
        ],
        _KINDS[explanation.kind] + (" Dark: not seen." if model.config.resize.startswith("crop") else ""),
    )


def _enlarged(shown: Image.Image) -> Image.Image:
    """Return a small photo large enough to see something."""
    factor = _LONGEST / max(shown.size)
    if factor <= 1:
        return shown
    width, height = (max(1, round(side * factor)) for side in shown.size)
    return shown.resize((width, height), Image.Resampling.BICUBIC)


def _two_best(shares: NDArray[np.float64]) -> tuple[int, int]:
    first, second = np.argsort(-shares, kind="stable")[:2]
    return int(first), int(second)
