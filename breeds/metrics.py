"""How good a head's answers are, each number as the literature defines it, in plain numpy."""

from __future__ import annotations

import math
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
