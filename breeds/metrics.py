"""How good a head's answers are, each number as the literature defines it, in plain numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

Truth = NDArray[np.intp]
Probabilities = NDArray[np.float64]


class ClassScores(TypedDict):
    """One class's scores: nan-free, 0 where a ratio has nothing below the line."""

    precision: float
    recall: float
    f1: float
    support: int


def accuracy(truth: Truth, probabilities: Probabilities, k: int = 1) -> float:
    """Return the share of photos whose true class is among the `k` most probable."""
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((top == truth[:, None]).any(axis=1).mean())


def wilson_interval(right: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Return the Wilson score interval of a share (Wilson, 1927); 95 % by default."""
    share = right / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def log_loss(truth: Truth, probabilities: Probabilities) -> float:
    """Return the multi-class log loss as Kaggle computes it: rows made to add up to 1, clipped at 1e-15."""
    scaled = probabilities / probabilities.sum(axis=1, keepdims=True)
    chosen = np.clip(scaled[np.arange(len(truth)), truth], 1e-15, 1 - 1e-15)
    return float(-np.log(chosen).mean())


def confusion(truth: Truth, predicted: Truth, classes: int) -> NDArray[np.intp]:
    """Return counts, shape (classes, classes): rows are the truth, columns the answers."""
    counts = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)


def class_scores(matrix: NDArray[np.intp]) -> list[ClassScores]:
    """Return every class's precision, recall, F1 and support from a confusion matrix."""
    right = matrix.diagonal().astype(float)
    answered, support = matrix.sum(axis=0), matrix.sum(axis=1)
    precision = right / np.maximum(answered, 1)
    recall = right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(answered + support, 1)
    return [
        ClassScores(precision=float(p), recall=float(r), f1=float(f), support=int(s))
        for p, r, f, s in zip(precision, recall, f1, support, strict=True)
    ]


def brier(truth: Truth, probabilities: Probabilities) -> float:
    """Return the Brier score (Brier, 1950): mean squared distance to the true answer, 0 to 2."""
    squared = (probabilities**2).sum(axis=1)
    chosen = probabilities[np.arange(len(truth)), truth]
    return float((squared - 2 * chosen + 1).mean())


def calibration_error(truth: Truth, probabilities: Probabilities, bins: int = 15) -> float:
    """Return the expected calibration error of the top label (Guo et al., 2017), equal-width bins."""
    top = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    bin_of = np.minimum((top * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=right - top, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


def macro_f1(truth: Truth, probabilities: Probabilities) -> float:
    """Return the mean F1 of the classes that have photos."""
    matrix = confusion(truth, probabilities.argmax(axis=1), probabilities.shape[1])
    return float(np.mean([scores["f1"] for scores in class_scores(matrix) if scores["support"]]))


def auroc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Return the chance that a positive scores above a negative, ties counting half."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(np.mean(below)) / (2 * len(negative))


def bootstrap_interval(
    measure: Callable[[Truth, Probabilities], float],
    truth: Truth,
    probabilities: Probabilities,
    rounds: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a measure (Efron, 1979), photos resampled."""
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, len(truth), len(truth)) for _ in range(rounds))
    values = [measure(truth[rows], probabilities[rows]) for rows in draws]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (1947).

    Parameters
    ----------
    only_first, only_second
        How many photos one model alone gets right, and the other alone.
    """
    n, least = only_first + only_second, min(only_first, only_second)
    ways: int = sum(math.comb(n, k) for k in range(least + 1))
    return min(1.0, float(2 * ways / 2**n))


def coverage_curve(
    truth: Truth, probabilities: Probabilities, confidence: NDArray[np.float64]
) -> list[tuple[float, float]]:
    """Return (share answered, accuracy of the answers) as the least confident photos are left out."""
    order = np.argsort(-confidence, kind="stable")
    right = np.cumsum(probabilities.argmax(axis=1)[order] == truth[order])
    shares = [1.0, 0.95, 0.9, 0.8, 0.7, 0.5]
    counts = [max(1, round(share * len(truth))) for share in shares]
    return [(count / len(truth), float(right[count - 1] / count)) for count in counts]
