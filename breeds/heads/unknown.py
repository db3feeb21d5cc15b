"""None of these: refuse a photo that is too far from every class it could be.

Features are scaled to unit length, and the distance to the nearest class mean is measured in the
classes' shared covariance, shrunk towards a multiple of the identity (Mahalanobis distance after
Lee et al., 2018, arXiv:1807.03888; unit length after Sun et al., 2022, arXiv:2204.06507). From it
goes what is typical of that class; how much more is still accepted is set on photos that the
means have not seen.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: Share of the identity in the covariance, and directions in which it is not taken as round.
SHRINKAGE, RANK = 0.95, 16
#: A class of few photos takes this many photos' worth of what is typical from the others.
_BORROWED = 10
_WORKERS = 2


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
        squared = _distances(features, self.means, self.directions, self.weights)
        nearest = squared.argmin(axis=1)
        return np.asarray(squared[np.arange(len(nearest)), nearest] - self.typical[nearest])

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
        Share of known photos to keep.
    """
    from threadpoolctl import threadpool_limits  # here, as prediction does without

    nearest, distance = np.empty(len(targets), dtype=np.intp), np.empty(len(targets))

    def measure(fold: int) -> None:
        held_out = folds == fold
        squared = _distances(features[held_out], *_fit(features[~held_out], targets[~held_out]))
        nearest[held_out] = squared.argmin(axis=1)
        distance[held_out] = squared.min(axis=1)

    # These products are small: threads of numpy and of scipy that wait for each other cost four times more.
    with threadpool_limits(1), ThreadPoolExecutor(_WORKERS) as pool:
        list(pool.map(measure, range(int(folds.max()) + 1)))
        means, directions, weights = _fit(features, targets)
    overall = np.median(distance)
    typical = np.full(len(means), overall)
    for number in range(len(means)):
        of_class = distance[nearest == number]
        if len(of_class):
            total = len(of_class) * np.median(of_class) + _BORROWED * overall
            typical[number] = total / (len(of_class) + _BORROWED)
    threshold = float(np.quantile(distance - typical[nearest], keep))
    return Detector(means, directions, weights, typical.astype(np.float32), threshold, keep)


def _unit(features: Floats) -> NDArray[np.float64]:
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-12))


def _fit(features: Floats, targets: NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
    """Return means, directions and weights of `Detector`."""
    from sklearn.utils.extmath import randomized_svd  # here, as prediction does without scikit-learn

    unit = _unit(features)
    n, width = unit.shape
    member = np.eye(int(targets.max()) + 1)[targets]
    means = member.T @ unit / np.maximum(member.sum(axis=0), 1)[:, None]
    rest = (unit - means[targets]).astype(np.float32)
    rank = min(RANK, n, width)
    _, values, rows = randomized_svd(rest, rank, n_iter=2, random_state=0)
    real = values > 1e-6 * max(values[0], 1e-15)
    real[0] = True
    values, directions = values[real], rows[real].T
    round_part = max(SHRINKAGE * (rest**2).sum() / n / width, 1e-30)
    weights = round_part / ((1 - SHRINKAGE) * values**2 / n + round_part)
    return means.astype(np.float32), directions.astype(np.float32), weights.astype(np.float32)


def _distances(
    features: Floats, means: NDArray[Any], directions: Floats, weights: Floats
) -> NDArray[np.float64]:
    """Return the squared distance of every photo to every class mean, float64 (n, classes)."""
    unit, means = _unit(features), means.astype(np.float64)
    lighter = np.sqrt(1 - weights.astype(np.float64))
    return np.asarray(
        _squared(unit, means) - _squared(unit @ directions * lighter, means @ directions * lighter)
    )


def _squared(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T)
