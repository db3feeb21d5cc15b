"""Label doubts: photos whose label a head that has not seen them contradicts, and near duplicates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from breeds.features import Store
from breeds.heads.crossval import labelled_features, out_of_fold
from breeds.heads.logistic import fit_temperature
from breeds.heads.model import softmax
from breeds.split import fold_of

#: A strongly regularised head does not learn single wrong labels by heart.
_C = 1e-3
#: A label is doubted when the head gives it less than this.
DOUBTFUL = 0.05
#: Photos whose features are this alike are one picture, cropped, scaled or compressed again.
NEAR_DUPLICATE = 0.97
_BLOCK = 1024


@dataclass(frozen=True)
class Doubt:
    """A photo whose label is doubted: what it is called, what it looks like, and how sure that is."""

    path: str
    label: str
    suggestion: str
    label_probability: float
    suggestion_probability: float


@dataclass(frozen=True)
class NearDuplicate:
    """Two photos of different classes that are nearly the same picture."""

    path: str
    label: str
    other_path: str
    other_label: str
    similarity: float


@dataclass(frozen=True)
class Judged:
    """What heads that have not seen them say of a store's labelled photos, each different photo once.

    Attributes
    ----------
    rows
        Of the store.
    targets
        Class numbers by the labels as corrected, int (n,).
    classes
        Their names.
    probabilities
        float64 (n, classes).
    """

    rows: list[int]
    targets: NDArray[np.intp]
    classes: list[str]
    probabilities: NDArray[np.float64]

    @property
    def of_label(self) -> NDArray[np.float64]:
        """The probability of each photo's own label (self-confidence), float64 (n,)."""
        return np.asarray(self.probabilities[np.arange(len(self.targets)), self.targets])

    def doubted(self) -> list[int]:
        """Return which photos, by their place in `rows`, have a doubted label, the most doubtful first."""
        of_label, answers = self.of_label, self.probabilities.argmax(axis=1)
        is_doubted = (of_label < DOUBTFUL) & (answers != self.targets)
        return [int(i) for i in np.argsort(of_label, kind="stable") if is_doubted[i]]


def judge(store: Store, seed: int = 0) -> Judged:
    """Judge every labelled photo by a head trained without it.

    Raises
    ------
    BreedsError
        If there are fewer than two classes, or a class has one photo.
    """
    features, targets, classes, rows = labelled_features(store)
    table = store.corrected
    keys, labels = [table.key[row] for row in rows], [table.label[row] for row in rows]
    folds = fold_of(keys, labels, min(5, int(np.bincount(targets).min())), seed)
    logits = out_of_fold(features, targets, folds, _C)
    return Judged(rows, targets, classes, softmax(logits / fit_temperature(logits, targets)))


def find_doubts(store: Store, seed: int = 0) -> list[Doubt]:
    """List the photos whose label, as corrected, is doubted, the most doubtful first.

    Every photo is judged by a head trained without it (self-confidence in confident learning,
    Northcutt et al., 2021, arXiv:1911.00068).

    Raises
    ------
    BreedsError
        As `judge` does.
    """
    judged = judge(store, seed)
    best, of_label = judged.probabilities.argmax(axis=1), judged.of_label
    return [
        Doubt(
            store.table.path[judged.rows[i]], judged.classes[judged.targets[i]], judged.classes[best[i]],
            float(of_label[i]), float(judged.probabilities[i, best[i]]),
        )
        for i in judged.doubted()
    ]  # fmt: skip


def find_near_duplicates(store: Store) -> list[NearDuplicate]:
    """List pairs of photos of different classes whose features nearly coincide, most alike first."""
    features, targets, classes, rows = labelled_features(store)
    centred = features - features.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    found = []
    for start in range(0, len(unit), _BLOCK):
        alike = unit[start : start + _BLOCK] @ unit.T
        for i, j in np.argwhere(alike > NEAR_DUPLICATE):
            one, other = start + int(i), int(j)
            if one < other and targets[one] != targets[other]:
                paths = store.table.path[rows[one]], store.table.path[rows[other]]
                names = classes[targets[one]], classes[targets[other]]
                found.append(NearDuplicate(paths[0], names[0], paths[1], names[1], float(alike[i, j])))
    return sorted(found, key=lambda pair: -pair.similarity)
