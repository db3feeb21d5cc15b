"""What to label next: unlabelled photos that the model is unsure of, and that differ from each other."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from breeds.features import Store
from breeds.features.columns import Keys
from breeds.features.corrections import Corrections
from breeds.heads.model import Model, check_stores
from breeds.heads.scikit import alone

#: So many times as many photos as are asked for are taken by their margin, and chosen from for diversity.
CANDIDATES = 10
# Rows of the store that are looked at together: 8 MB of Xception's features.
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Suggestion:
    """An unlabelled photo to label.

    Attributes
    ----------
    key, path
        Which photo; the path starts from the store's root.
    suggestion, probability
        The model's answer.
    second, second_probability
        The next best.
    """

    key: str
    path: str
    suggestion: str
    probability: float
    second: str
    second_probability: float

    @property
    def margin(self) -> float:
        """By how much the answer is ahead."""
        return self.probability - self.second_probability


def label_next(
    store: Store, model: Model, corrections: Corrections, most: int = 50, skipped: Collection[str] = ()
) -> list[Suggestion]:
    """List unlabelled photos, those first that a label would teach the model most about.

    Diverse mini-batch active learning (Zhdanov, 2019, arXiv:1901.05954): the photos of the smallest margin
    between the best two answers, `CANDIDATES` times as many as asked for, are clustered by k-means on
    their standardised features, each weighted by how unsure the answer is, and of each cluster the photo
    nearest to its centre is taken. Nothing is left to chance.

    Memory holds the candidates' features, and some 50 bytes for each photo without a label.

    Parameters
    ----------
    corrections
        Photos that have one are not asked about, as they have a label, or are to be left out.
    skipped
        Keys of photos that are not asked about either.

    Raises
    ------
    BreedsError
        If the store is not of the model's config.
    """
    check_stores(store, model)
    rows = _unlabelled(store, {*corrections.last, *skipped})
    if not len(rows) or most < 1:
        return []
    margins = _margins(store, model, rows)
    # Ties by key: the order of a store's rows is that of names, which say nothing.
    closest = np.lexsort((store.table.key.take(rows).packed, margins))[: CANDIDATES * most]
    rows, margins = rows[closest], margins[closest]
    features = store.features(rows)
    if len(rows) > most:
        chosen = _diverse((features - model.mean) / model.scale, 1 - margins, most)
        rows, features = rows[chosen], features[chosen]
    answers = model.probabilities(features)
    return [_suggestion(store, model, int(row), answer) for row, answer in zip(rows, answers, strict=True)]


def _unlabelled(store: Store, settled: set[str]) -> NDArray[np.intp]:
    """Return the rows of the photos to choose from, each different photo once."""
    table = store.table
    rows = np.flatnonzero(~table.label.given())
    rows = rows[table.key.take(rows).first_rows()]
    return rows[~np.isin(table.key.take(rows).packed, Keys.of(settled).packed)]


def _margins(store: Store, model: Model, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return how far the model's answer is ahead of its next best, float64 (n,)."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        answers = model.probabilities(store.features(rows[start : start + _BLOCK]))
        best = np.sort(answers, axis=1)
        found[start : start + _BLOCK] = best[:, -1] - best[:, -2]
    return found


def _diverse(features: NDArray[np.float32], unsure: NDArray[np.float64], most: int) -> NDArray[np.intp]:
    """Return which photos to take, one of each cluster, in the order that they are in, intp (most,)."""
    from threadpoolctl import threadpool_limits

    with alone():
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

    with threadpool_limits(1), warnings.catch_warnings():  # sums of several threads differ in their last bits
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer different photos than clusters
        clusters = KMeans(most, n_init=1, random_state=0).fit(features, sample_weight=unsure + 1e-6)
        distance = clusters.transform(features)
    own = np.where(clusters.labels_[:, None] == np.arange(most), distance, np.inf)
    chosen = dict.fromkeys(own.argmin(axis=0).tolist())
    # Clusters can be empty, as of equal photos: then the least certain of the others are taken.
    places = [*chosen, *(i for i in range(len(features)) if i not in chosen)]
    return np.array(sorted(places[:most]), dtype=np.intp)


def _suggestion(store: Store, model: Model, row: int, answer: NDArray[np.float64]) -> Suggestion:
    second, best = np.argsort(answer, kind="stable")[-2:]
    return Suggestion(
        store.table.key[row],
        store.table.path[row],
        model.classes[best],
        float(answer[best]),
        model.classes[second],
        float(answer[second]),
    )
