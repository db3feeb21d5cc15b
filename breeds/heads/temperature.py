"""Temperature scaling (Guo et al., 2017, arXiv:1706.04599): one number that makes confidence true."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LOWEST, _HIGHEST = np.log(0.02), np.log(50.0)
_STEPS = 40


def fit_temperature(logits: NDArray[np.float64], truth: NDArray[np.intp]) -> float:
    """Return the temperature that gives the least log loss on photos that training has not seen.

    Parameters
    ----------
    logits
        float64 (n, classes), not yet divided by any temperature.
    truth
        Class numbers, shape (n,).
    """
    # Golden-section search: the loss is convex in 1 / temperature, so unimodal in its logarithm.
    golden = (np.sqrt(5) - 1) / 2
    low, high = _LOWEST, _HIGHEST
    for _ in range(_STEPS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if logits_loss(logits, truth, float(np.exp(left))) < logits_loss(logits, truth, float(np.exp(right))):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def logits_loss(logits: NDArray[np.float64], truth: NDArray[np.intp], temperature: float) -> float:
    """Return the mean log loss of ``softmax(logits / temperature)``, exact however confident."""
    scaled = logits / temperature
    top = scaled.max(axis=1)
    total = np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top
    return float((total - scaled[np.arange(len(truth)), truth]).mean())
