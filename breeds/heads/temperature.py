"""Temperature scaling (Guo et al., 2017, arXiv:1706.04599): one number that makes confidence true."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

_LOWEST, _HIGHEST = 0.002, 50.0


def fit_temperature(logits: NDArray[np.float64], truth: NDArray[np.intp]) -> float:
    """Return the temperature that gives the least `smoothed_loss` on photos that training has not seen.

    Parameters
    ----------
    logits
        float64 (n, classes), not yet divided by any temperature.
    truth
        Class numbers, shape (n,).
    """
    # The loss is convex in 1 / temperature, so it has one minimum in the temperature's logarithm.
    found = minimize_scalar(
        lambda logarithm: smoothed_loss(logits, truth, float(np.exp(logarithm))),
        bounds=(np.log(_LOWEST), np.log(_HIGHEST)),
        method="bounded",
    )
    return float(np.exp(found.x))


def smoothed_loss(logits: NDArray[np.float64], truth: NDArray[np.intp], temperature: float) -> float:
    """Return the log loss of ``softmax(logits / temperature)``, with one photo more of unknown class.

    Where few photos are all told right, plain log loss knows no limit to confidence, and the first
    photo that is told wrong pays for it. So each of the n photos is, with weight 1 / (n + 1), of any
    class (after Platt, 1999, who did so for two classes).
    """
    scaled = logits / temperature
    top = scaled.max(axis=1)
    total = np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top
    n = len(truth)
    of_truth, of_any = total - scaled[np.arange(n), truth], total - scaled.mean(axis=1)
    return float((n * of_truth.mean() + of_any.mean()) / (n + 1))
