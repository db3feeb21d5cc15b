"""How good a head's answers are, each number as the literature defines it, in plain numpy.

Everywhere `truth` is class numbers, shape (n,), and `probabilities` float64, shape (n, classes).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

Truth = NDArray[np.intp]
Probabilities = NDArray[np.float64]
Values = NDArray[np.float64]
#: Low and high, plain JSON.
Interval = list[float]

#: Under so many photos of a class, numbers about it rest on too few.
FEW = 10
#: Photos drawn at once while resampling: small enough to stay in a processor's cache.
_BLOCK = 1 << 18


class ClassScores(TypedDict):
    """One class's scores: nan-free, 0 where a ratio has nothing below the line."""

    precision: float
    recall: float
    f1: float
    support: int


def accuracy(truth: Truth, probabilities: Probabilities, k: int = 1) -> float:
    """Return the share of photos whose true class is among the `k` most probable.

    Examples
    --------
    >>> truth, probabilities = np.array([0, 2]), np.array([[0.7, 0.2, 0.1], [0.5, 0.2, 0.3]])
    >>> accuracy(truth, probabilities), accuracy(truth, probabilities, k=2)
    (0.5, 1.0)
    """
    return right_in_top(truth, probabilities, k) / len(truth)


def right_in_top(truth: Truth, probabilities: Probabilities, k: int = 1) -> int:
    """Return how many photos have their true class among the `k` most probable."""
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return int((top == truth[:, None]).any(axis=1).sum())


def wilson_interval(right: float, n: int, z: float = 1.959963984540054) -> Interval:
    """Return the Wilson score interval of a share (Wilson, 1927); 95 % by default.

    Unlike resampling it is honest where nothing went wrong, or everything.

    Examples
    --------
    >>> low, high = wilson_interval(12, 12)
    >>> f"{low:.1%} to {high:.1%}"
    '75.8% to 100.0%'
    """
    share = right / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return [max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)]


def log_losses(truth: Truth, probabilities: Probabilities) -> Values:
    """Return each photo's log loss, shape (n,), whose mean is `log_loss`."""
    scaled = probabilities / probabilities.sum(axis=1, keepdims=True)
    chosen = np.clip(scaled[np.arange(len(truth)), truth], 1e-15, 1 - 1e-15)
    return np.asarray(-np.log(chosen))


def log_loss(truth: Truth, probabilities: Probabilities) -> float:
    """Return the multi-class log loss as Kaggle computes it: rows made to add up to 1, clipped at 1e-15."""
    return float(log_losses(truth, probabilities).mean())


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


def brier_scores(truth: Truth, probabilities: Probabilities) -> Values:
    """Return each photo's Brier score, shape (n,), whose mean is `brier`."""
    squared = (probabilities**2).sum(axis=1)
    chosen = probabilities[np.arange(len(truth)), truth]
    return np.asarray(squared - 2 * chosen + 1)


def brier(truth: Truth, probabilities: Probabilities) -> float:
    """Return the Brier score (Brier, 1950): mean squared distance to the true answer, 0 to 2."""
    return float(brier_scores(truth, probabilities).mean())


def calibration_error(truth: Truth, probabilities: Probabilities, bins: int = 15) -> float:
    """Return the expected calibration error of the top label (Guo et al., 2017), equal-width bins.

    It has no interval here: noise can only add to a sum of absolute gaps, so every resample lies
    above, and a percentile interval may not even hold the number it is about.
    """
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
    """Return the chance that a positive scores above a negative, ties counting half.

    Examples
    --------
    >>> auroc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(np.mean(below)) / (2 * len(negative))


def bootstrap_interval(
    measure: Callable[[NDArray[np.intp]], Values], n: int, rounds: int = 1000, seed: int = 0
) -> Interval | None:
    """Return the 95 % percentile bootstrap interval of a measure (Efron, 1979), photos resampled.

    Parameters
    ----------
    measure
        Takes drawn photos, intp (draws, n), values 0 to n - 1, and gives the measure of each draw,
        float64 (draws,). All draws of a block at once, as a thousand calls would take a thousand
        times as long.
    n
        How many photos there are.

    Returns
    -------
    list of float, or None
        None where every draw gives the same (no mistake was made, or there is one photo):
        resampling then knows nothing of how sure the number is.
    """
    values = np.concatenate([measure(rows) for rows in _draws(n, rounds, seed)])
    if values.min() == values.max():
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return [float(low), float(high)]


def _draws(n: int, rounds: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """Yield blocks of draws with replacement, so that memory does not grow with the rounds."""
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // n)
    for start in range(0, rounds, step):
        yield rng.integers(0, n, (min(step, rounds - start), n))


def mean_interval(values: Values) -> Interval | None:
    """Return the bootstrap interval of the mean of one number a photo, such as `log_losses`.

    Examples
    --------
    >>> low, high = mean_interval(np.linspace(0, 1, 101))
    >>> low < 0.5 < high
    True
    """
    return bootstrap_interval(lambda rows: np.asarray(values[rows].mean(axis=1)), len(values))


def macro_f1_interval(truth: Truth, predicted: Truth, classes: int) -> Interval | None:
    """Return the bootstrap interval of `macro_f1`, from each draw's counts of every class."""
    hit = np.where(truth == predicted, truth, classes)  # a column more takes the mistakes

    def measure(rows: NDArray[np.intp]) -> Values:
        support, answered, right = (_counts(column[rows], classes + 1) for column in (truth, predicted, hit))
        support, right = support[:, :classes], right[:, :classes]
        f1 = 2 * right / np.maximum(support + answered[:, :classes], 1)
        return np.asarray(f1.sum(axis=1) / (support > 0).sum(axis=1))

    return bootstrap_interval(measure, len(truth))


def _counts(values: NDArray[np.intp], width: int) -> NDArray[np.intp]:
    """Return how often each of 0 to width - 1 is in each row, shape (rows, width)."""
    start = np.arange(len(values))[:, None] * width
    return np.bincount((values + start).ravel(), minlength=len(values) * width).reshape(-1, width)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (1947).

    Parameters
    ----------
    only_first, only_second
        How many photos one model alone gets right, and the other alone.

    Examples
    --------
    >>> mcnemar(6, 0)
    0.03125
    """
    n, least = only_first + only_second, min(only_first, only_second)
    ways: int = sum(math.comb(n, k) for k in range(least + 1))
    return min(1.0, float(2 * ways / 2**n))


def coverage_curve(
    truth: Truth, probabilities: Probabilities, confidence: NDArray[np.float64]
) -> list[tuple[int, int]]:
    """Return (how many are answered, how many of these rightly) as the least confident are left out.

    Examples
    --------
    >>> truth, probabilities = np.zeros(20, int), np.tile([0.9, 0.1], (20, 1))
    >>> coverage_curve(truth, probabilities, np.arange(20.0))
    [(20, 20), (19, 19), (18, 18), (16, 16), (14, 14), (10, 10)]
    """
    order = np.argsort(-confidence, kind="stable")
    right = np.cumsum(probabilities.argmax(axis=1)[order] == truth[order])
    counts = [max(1, round(share * len(truth))) for share in (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)]
    return [(count, int(right[count - 1])) for count in counts]
