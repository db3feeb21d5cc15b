"""What a file says is compared with what is answered here, on photos of the store, before anybody gets it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from breeds.backbones.resolve import weights_of
from breeds.backbones.weights import Weights
from breeds.config import FeatureConfig
from breeds.errors import BreedsError, PhotoError
from breeds.features import Store
from breeds.heads.model import Model
from breeds.photos import FilePhoto, decode, key_of, photo_at
from breeds.prediction import predict
from breeds.started import command

#: The largest difference of a probability or a score from the answers here, or nothing is written.
TOLERANCE = 1e-4
#: How many photos of the store a file is compared on, and how many are tried to find so many.
PHOTOS, TRIED = 16, 160


class Answers(NamedTuple):
    """What a file says of photos.

    Attributes
    ----------
    probabilities
        Floats (n, classes).
    score
        By how much each photo is farther from its nearest class than is typical, floats (n,); None if the
        model knows nothing of the unknown.
    """

    probabilities: NDArray[Any]
    score: NDArray[Any] | None

    def difference(self, other: Answers) -> float:
        """Return the largest difference between two answers for the same photos, NaN if one is none."""
        pairs = [(self.probabilities, other.probabilities)]
        if self.score is not None and other.score is not None:
            pairs.append((self.score, other.score))
        return float(max(np.abs(a.astype(np.float64) - b).max() for a, b in pairs))


class Comparison:
    """Photos of a store to compare on, and what is answered here; they are read when a file takes pixels.

    Parameters
    ----------
    model, store, weights
        As `breeds.export.export` takes them.
    """

    def __init__(self, model: Model, store: Store, weights: str | None) -> None:
        self._model = model
        self._store = store
        self._weights = weights

    def weights_of(self, part: tuple[FeatureConfig, str]) -> Weights:
        """Find the weights of one of the model's networks."""
        return weights_of(part, self._weights)

    @property
    def features(self) -> NDArray[np.float32]:
        """Features of photos that are spread over the store, float32 (n, width)."""
        return self._store.features(np.array(_spread(len(self._store.table))))

    @property
    def batches(self) -> list[NDArray[np.uint8]]:
        """Pixels of photos, in batches of different numbers: the first alone, the others in fours."""
        pixels = self._sample[0]
        return [part for part in np.split(pixels, range(1, len(pixels), 4)) if len(part)]

    @cached_property
    def _sample(self) -> tuple[NDArray[np.uint8], Answers]:
        """Photos that are spread over the store and still what they were, and what is answered for them."""
        pixels, rows, files = [], [], []
        model, table = self._model, self._store.table
        for row in _spread(len(table)):
            file = os.path.join(table.root, table.path[row])
            try:
                data = photo_at("", file).read()
                if key_of(data) != table.key[row]:
                    continue
                pixels.append(decode(data, model.config.size, model.config.resize))
            except PhotoError:
                continue
            rows.append(row)
            files.append(file)
            if len(rows) == PHOTOS:
                break
        if not rows:
            raise BreedsError(
                f"A file is compared on photos of {self._store.path} before it is written, and none that was "
                f"tried is where it was, in {table.root}, unchanged; bring them back, or extract them again."
            )
        answers = [answer.probabilities for answer in predict(model, map(FilePhoto, files), self._weights)]
        score = model.unknown.excess(self._store.features(np.array(rows))) if model.unknown else None
        return np.stack(pixels), Answers(np.stack([a for a in answers if a is not None]), score)

    def check(self, found: Answers, runner: str, path: Path) -> tuple[float, int]:
        """Return the largest difference of a file's answers from those here, and over how many photos.

        Raises
        ------
        BreedsError
            If it is more than `TOLERANCE`.
        """
        pixels, answers = self._sample
        difference = found.difference(answers)
        if not difference <= TOLERANCE:  # also what is not a number
            raise BreedsError(
                f"{path} is not written: in {runner} its answers differ by up to {difference:.2g} from what "
                f"{command('predict')} says of {len(pixels)} photos of the store, and by more than "
                f"{TOLERANCE:g} it is not the same model; extract into another --store on this machine, and "
                f"train again."
            )
        return difference, len(pixels)


def _spread(total: int) -> list[int]:
    """Return up to `TRIED` rows of so many, of which the first `PHOTOS` are spread as far as all of them.

    Examples
    --------
    >>> _spread(3)
    [0, 1, 2]
    >>> _spread(1600)[:3], len(_spread(1600))
    ([0, 100, 201], 160)
    """
    rows = list(dict.fromkeys(np.linspace(0, total - 1, min(total, TRIED)).astype(int).tolist()))
    step = max(1, len(rows) // PHOTOS)
    return [row for start in range(step) for row in rows[start::step]]


def joined(columns: Sequence[Sequence[NDArray[Any]]]) -> Answers:
    """Return what was answered batch by batch: probabilities, and the score if there is one."""
    probabilities, *score = [np.concatenate(column) for column in zip(*columns, strict=True)]
    return Answers(probabilities, score[0] if score else None)
