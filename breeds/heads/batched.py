"""Logistic regression on more features than memory holds: they come in batches, again for every step.

The function is scikit-learn's, the mean log loss with an L2 penalty; scipy's L-BFGS finds its minimum. The
steps are few because the weights are sought in the features' own directions, each as wide as the loss is flat
along it (preconditioning: Nocedal and Wright, 2006, section 5.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from breeds.heads.model import softmax
from breeds.heads.temperature import fit_temperature
from breeds.heads.threads import limited
from breeds.heads.unknown import Detector, Moments, detector_of, nearest_class
from breeds.workers import cores

Floats = NDArray[np.float32]

#: A step that lowers the loss by a smaller share than this is the last, and so many steps are.
_ENOUGH, _MOST_STEPS = 1e-6, 200
#: Photos of those held out that are asked for the temperature, a single number.
_JUDGES = 50_000


class Batch(NamedTuple):
    """Features, float32 (n, width), and what rows of the training photos they are of, intp (n,)."""

    rows: NDArray[np.intp]
    features: Floats


@dataclass(frozen=True)
class Stream:
    """Training photos whose features come in batches.

    Attributes
    ----------
    batches
        Yields the features of these rows, sorted.
    targets
        Class numbers, intp (n,).
    weights
        What each photo counts, float32 (n,); those of 0 take no part.
    """

    batches: Callable[[NDArray[np.intp]], Iterator[Batch]]
    targets: NDArray[np.intp]
    weights: Floats

    def __iter__(self) -> Iterator[Batch]:
        return self.batches(np.flatnonzero(self.weights > 0))


class Standard(NamedTuple):
    """What standardises features: mean and scale, float32 (width,)."""

    mean: Floats
    scale: Floats

    def of(self, features: Floats) -> Floats:
        """Return features, float32 (n, width), standardised."""
        return (features - self.mean) / self.scale


def standardise(stream: Stream) -> Standard:
    """Return what standardises the photos, as `breeds.heads.logistic.standardise`."""
    count, total, squares, origin = 0, np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.float32)
    for _, features in stream:
        if not count:
            origin = features[0]  # squares of small differences keep their last digits
            total, squares = np.zeros(len(origin)), np.zeros(len(origin))
        apart = features - origin
        count += len(features)
        total += apart.sum(axis=0, dtype=np.float64)
        squares += np.einsum("ij,ij->j", apart, apart, dtype=np.float64)
    mean = total / count
    scale = np.sqrt(np.maximum(squares / count - mean**2, 0))
    scale[scale < 1e-7] = 1
    return Standard((mean + origin).astype(np.float32), scale.astype(np.float32))


@dataclass(frozen=True)
class Solution:
    """Weights, float32 (width, classes), bias (classes,), on standardised features; after so many steps."""

    weights: Floats
    bias: Floats
    steps: int = 0

    def moved(self, old: Standard, new: Standard) -> Solution:
        """Return the same solution on features that are standardised otherwise."""
        weights = self.weights * (new.scale / old.scale)[:, None]
        shift = ((new.mean - old.mean) / old.scale) @ self.weights
        return Solution(weights.astype(np.float32), (self.bias + shift).astype(np.float32))

    def logits(self, standard: Floats) -> Floats:
        """Return the logits, float32 (n, classes), of standardised features."""
        return np.asarray(standard @ self.weights + self.bias)


def directions(sample: Floats, start: Solution, C: float, photos: float) -> Floats:
    """Return directions to seek weights in, float32 (width, width).

    Parameters
    ----------
    sample
        Some standardised features, (n, width).
    start
        A solution near the one that is sought.
    C, photos
        Strength of the penalty, and what all photos together count.
    """
    shares = softmax(start.logits(sample).astype(np.float64))
    curvature = float((shares * (1 - shares)).mean())
    spread, axes = np.linalg.eigh(sample.T @ sample / np.float32(len(sample)))
    flatness = np.maximum(spread, 0) * curvature + 1 / (C * photos)
    return np.asarray(axes / np.sqrt(flatness), dtype=np.float32)


def fit(stream: Stream, standard: Standard, C: float, start: Solution, along: Floats) -> Solution:
    """Fit multinomial logistic regression with an L2 penalty, as `breeds.heads.logistic.fit`.

    Parameters
    ----------
    stream, standard
        The photos, and what standardises their features.
    C
        Inverse strength of the penalty.
    start
        Where to begin.
    along
        Directions to seek in, float32 (width, width), as `directions` gives them.
    """
    classes = len(start.bias)
    photos = float(stream.weights.sum(dtype=np.float64))
    # Of two classes scikit-learn has one column of weights, twice as long as each of two.
    penalty = (2 if classes == 2 else 1) / (C * photos)

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        inner, bias = values[classes:].reshape(-1, classes), values[:classes].astype(np.float32)
        weights = along @ inner.astype(np.float32)
        scale = standard.scale[:, None]
        scaled = weights / scale  # so that no feature is divided, once a pass over all of them
        total, slope, bias_slope = 0.0, np.zeros(weights.shape), np.zeros(classes)
        for rows, features in stream:
            apart = features - standard.mean
            logits = apart @ scaled + bias
            logits -= logits.max(axis=1, keepdims=True)
            at, counts = (np.arange(len(rows)), stream.targets[rows]), stream.weights[rows]
            of_truth, shares = logits[at], np.exp(logits)
            sums = shares.sum(axis=1)
            total += float(((np.log(sums) - of_truth) * counts).sum(dtype=np.float64))
            shares /= sums[:, None]
            shares[at] -= 1
            shares *= counts[:, None]
            slope += apart.T @ shares
            bias_slope += shares.sum(axis=0, dtype=np.float64)
        wide = weights.astype(np.float64)
        slope = slope / scale / photos + penalty * wide
        found = total / photos + penalty / 2 * float((wide**2).sum())
        return found, np.concatenate([bias_slope / photos, (along.T @ slope.astype(np.float32)).ravel()])

    with limited(cores()):
        inner = np.linalg.solve(along.astype(np.float64), start.weights.astype(np.float64))
        first = np.concatenate([start.bias.astype(np.float64), inner.ravel()])
        options = {"maxiter": _MOST_STEPS, "ftol": _ENOUGH, "gtol": 1e-7, "maxcor": 10}
        found = minimize(loss, first, jac=True, method="L-BFGS-B", options=options)
    weights = along @ found.x[classes:].reshape(-1, classes).astype(np.float32)
    return Solution(weights, found.x[:classes].astype(np.float32), int(found.nit))


def fit_with_temperature(
    stream: Stream,
    standard: Standard,
    C: float,
    start: Solution,
    along: Floats,
    held_out: NDArray[np.bool_],
) -> tuple[Solution, float]:
    """Fit as `fit` does, after once without the photos that are `held_out`, which say the temperature."""
    without = replace(stream, weights=stream.weights * ~held_out)
    partial = fit(without, standard, C, start, along)
    judges = np.flatnonzero(held_out)
    judges = judges[:: -(-len(judges) // _JUDGES)]
    temperature = fit_temperature(logits_of(stream, judges, standard, partial), stream.targets[judges])
    return fit(stream, standard, C, partial, along), temperature


def logits_of(
    stream: Stream, rows: NDArray[np.intp], standard: Standard, solution: Solution
) -> NDArray[np.float64]:
    """Return the logits of these rows, float64 (len(rows), classes)."""
    parts = (solution.logits(standard.of(features)) for _, features in stream.batches(rows))
    return np.concatenate([part.astype(np.float64) for part in parts])


def fit_detector(stream: Stream, folds: NDArray[np.intp], shape: tuple[int, ...], keep: float) -> Detector:
    """Fit a detector, as `breeds.heads.unknown.fit_detector`, on two passes over the features.

    Parameters
    ----------
    shape
        Width of a feature, and number of classes.
    """
    width, classes = shape
    moments = [Moments.none(classes, width) for _ in range(int(folds.max()) + 1)]
    nearest, distance = np.empty(len(folds), dtype=np.intp), np.empty(len(folds))
    with limited(cores()):
        for rows, features in stream:
            for fold in np.unique(folds[rows]):
                here = folds[rows] == fold
                moments[fold].add(features[here], stream.targets[rows[here]])
        whole = reduce(Moments.plus, moments)
        fitted = [whole.plus(part, -1).fitted() for part in moments]
        for rows, features in stream:
            for fold in np.unique(folds[rows]):
                here = rows[folds[rows] == fold]
                nearest[here], distance[here] = nearest_class(features[folds[rows] == fold], *fitted[fold])
        return detector_of(whole.fitted(), nearest, distance, keep)
