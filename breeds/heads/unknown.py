"""None of these: refuse a photo that is too far from every class it could be.

Features are scaled to unit length, and the squared distance to the nearest class mean is measured
in the classes' shared covariance, shrunk towards a multiple of the identity (Mahalanobis distance
after Lee et al., 2018, arXiv:1807.03888; unit length after Sun et al., 2022, arXiv:2204.06507). From
it goes what is typical of that class; how much more is still accepted is set on photos that the
means have not seen, with a margin for photos that are taken otherwise than these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: Share of the identity in the covariance, and directions in which it is not taken as round. For classes
#: of one breed a round one does as well; where classes hold several, it lets half of the strangers in.
SHRINKAGE, RANK = 0.98, 16
#: Known photos of other framing, size, light and number of dogs are farther than the training photos by
#: about this many interquartile ranges of the latter (``benchmarks/unknown.py``): by about as much with
#: any few of the ten breeds, with fewer photos, and at 160 pixels.
MARGIN = 0.9
JUDGED_ON = (
    f"training photos out of fold, and {MARGIN} of their interquartile range for photos taken otherwise"
)
#: A class of few photos takes this many photos' worth of what is typical from the others.
_BORROWED = 10
#: Of the search for directions (Halko et al., 2011, doi:10.1137/090771806).
_OVERSAMPLED, _ITERATIONS = 8, 3


@dataclass(frozen=True)
class Detector:
    """What a model knows of the unknown.

    Attributes
    ----------
    means
        Of every class, float32 (classes, width).
    directions
        In which photos of one class differ most, float32 (width, rank), orthonormal.
    weights
        Of a difference in these directions, float32 (rank,), 0 to 1; 1 in all others.
    typical
        Median distance of photos that are of each class, float32 (classes,).
    threshold
        A photo is unknown if its distance is larger than what is typical by more than this.
    keep
        Share of known photos that this threshold was chosen to keep.
    """

    means: Floats
    directions: Floats
    weights: Floats
    typical: Floats
    threshold: float
    keep: float

    def excess(self, features: Floats) -> NDArray[np.float64]:
        """Return how much farther than typical each photo is from its nearest class, float64 (n,)."""
        nearest, distance = nearest_class(features, self.means, self.directions, self.weights)
        return np.asarray(distance - self.typical[nearest])

    def terms(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return what the squared distance of a feature of unit length, u, to every class is made of.

        Returns
        -------
        lighter, linear, constant
            float64 (width, rank), (width, classes) and (classes,): the distance is
            ``|u|² - |u @ lighter|² + u @ linear + constant``.
        """
        means = self.means.astype(np.float64)
        lighter = _lighter(self.directions, self.weights)
        along = means @ lighter
        linear = 2 * (lighter @ along.T - means.T)
        return lighter, linear, (means**2).sum(axis=1) - (along**2).sum(axis=1)

    def is_unknown(self, features: Floats) -> NDArray[np.bool_]:
        """Say of each photo, float32 (n, width), whether it is of none of the classes."""
        return np.asarray(self.excess(features) > self.threshold)


def fit_detector(
    features: Floats, targets: NDArray[np.intp], folds: NDArray[np.intp], keep: float
) -> Detector:
    """Fit a detector; what is typical and the threshold come from out-of-fold distances.

    Parameters
    ----------
    features
        As extracted, not standardised, float32 (n, width).
    targets
        Class numbers, shape (n,).
    folds
        The fold of each photo, shape (n,); every class is in at least two of them.
    keep
        Share of known photos to keep, of those too that are farther than these by `MARGIN`.
    """
    from breeds.heads.scikit import limited  # here, as prediction does without

    unit = _unit(features).astype(np.float32)
    member = np.eye(int(targets.max()) + 1, dtype=np.float32)[targets]
    nearest, distance = np.empty(len(targets), dtype=np.intp), np.empty(len(targets))
    with limited(1):  # these products are small: threads that wait for each other cost more
        for fold in range(int(folds.max()) + 1):
            held_out = folds == fold
            fitted = _fit(unit, member * ~held_out[:, None])
            nearest[held_out], distance[held_out] = nearest_class(features[held_out], *fitted)
        means, directions, weights = _fit(unit, member)
    overall = np.median(distance)
    typical = np.full(len(means), overall)
    for number in range(len(typical)):
        of_class = distance[nearest == number]
        if len(of_class):
            total = len(of_class) * np.median(of_class) + _BORROWED * overall
            typical[number] = total / (len(of_class) + _BORROWED)
    low, high, kept = np.quantile(distance - typical[nearest], (0.25, 0.75, keep))
    threshold = float(kept + MARGIN * (high - low))
    return Detector(means, directions, weights, typical.astype(np.float32), threshold, keep)


def _unit(features: Floats) -> NDArray[np.float64]:
    wide = features.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12))


def _fit(unit: Floats, member: Floats) -> tuple[Floats, Floats, Floats]:
    """Return means, directions and weights of `Detector` from the photos that are members of a class.

    `member` is (n, classes): 1 where a photo is of a class and takes part, 0 elsewhere.
    """
    counts, width = member.sum(axis=0), unit.shape[1]
    n = int(counts.sum())
    means = member.T @ unit / np.maximum(counts, 1)[:, None]
    rest = unit - member @ means
    rest *= member.sum(axis=1, keepdims=True)
    rank = min(RANK, n, width)
    columns = np.random.default_rng(0).normal(size=(width, min(rank + _OVERSAMPLED, width)))
    for _ in range(_ITERATIONS):
        columns = np.linalg.qr(rest.T @ (rest @ columns.astype(np.float32)))[0]
    _, values, rows = np.linalg.svd(rest @ columns, full_matrices=False)
    values, directions = values[:rank], (columns @ rows.T)[:, :rank]
    real = values > 1e-6 * max(values[0], 1e-15)
    real[0] = True
    variances = values[real].astype(np.float64) ** 2 / n
    round_part = max(SHRINKAGE * float(np.vdot(rest, rest)) / n / width, 1e-30)
    weights = round_part / ((1 - SHRINKAGE) * variances + round_part)
    return means, directions[:, real].astype(np.float32), weights.astype(np.float32)


def nearest_class(
    features: Floats, means: Floats, directions: Floats, weights: Floats
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the nearest class of each photo and the squared distance to it, shape (n,)."""
    unit, wide = _unit(features), means.astype(np.float64)
    lighter = _lighter(directions, weights)
    squared = _squared(unit, wide) - _squared(unit @ lighter, wide @ lighter)
    nearest = squared.argmin(axis=1)
    return nearest, squared[np.arange(len(nearest)), nearest]


def _lighter(directions: Floats, weights: Floats) -> NDArray[np.float64]:
    """Return the directions, each as long as the root of what a difference in it counts less."""
    return np.asarray(directions * np.sqrt(1 - weights.astype(np.float64)))


def _squared(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T)
