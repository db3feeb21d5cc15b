"""Logistic regression on standardised features, with its strength chosen by cross-validation."""

from __future__ import annotations

from dataclasses import dataclass

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from breeds.heads.saved import softmax

#: Inverse regularisation strengths that the search tries.
C_GRID = tuple(float(c) for c in np.logspace(-4, 0, 13))
MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class Search:
    """What the search for C found: the mean log loss of every C over the folds."""

    C: float
    log_loss: dict[float, float]


def standardise(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and scale, float32 (width,), of features (n, width); constant columns have scale 1."""
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    scale[scale < 1e-7] = 1
    return mean.astype(np.float32), scale.astype(np.float32)


def fit(
    features: NDArray[np.float32], targets: NDArray[np.intp], C: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fit multinomial logistic regression with an L2 penalty, as scikit-learn does.

    Parameters
    ----------
    features
        Standardised, float32 (n, width).
    targets
        Class numbers, shape (n,), all of 0 to classes - 1 present.
    C
        Inverse strength of the penalty.

    Returns
    -------
    weights, bias
        float32 (width, classes) and (classes,), for `breeds.heads.saved.Model`.
    """
    solver = LogisticRegression(C=C, max_iter=MAX_ITERATIONS, tol=1e-5)
    solver.fit(features.astype(np.float64), targets)
    weights, bias = solver.coef_, solver.intercept_
    if len(weights) == 1:  # scikit-learn keeps one row for two classes
        weights, bias = np.vstack([-weights / 2, weights / 2]), np.concatenate([-bias / 2, bias / 2])
    return weights.T.astype(np.float32), bias.astype(np.float32)


def search_C(features: NDArray[np.float32], targets: NDArray[np.intp], folds: NDArray[np.intp]) -> Search:
    """Choose C from `C_GRID` by the mean log loss over cross-validation folds.

    Parameters
    ----------
    features
        Not standardised, float32 (n, width): every fold standardises with its own training part.
    targets
        Class numbers, shape (n,).
    folds
        The fold of each photo, shape (n,).
    """
    numbers = range(int(folds.max()) + 1)
    # Threads: the work is in BLAS, which lets go of the interpreter; one BLAS thread each.
    with threadpool_limits(1):
        losses = joblib.Parallel(n_jobs=-1, prefer="threads")(
            joblib.delayed(_fold_losses)(features, targets, folds == fold) for fold in numbers
        )
    mean = np.mean(losses, axis=0)
    return Search(C_GRID[int(mean.argmin())], dict(zip(C_GRID, mean.tolist(), strict=True)))


def _fold_losses(
    features: NDArray[np.float32], targets: NDArray[np.intp], held_out: NDArray[np.bool_]
) -> list[float]:
    """Return the log loss on the held-out photos for every C."""
    mean, scale = standardise(features[~held_out])
    inside, outside = ((features[part] - mean) / scale for part in (~held_out, held_out))
    truth = targets[held_out]
    losses = []
    for C in C_GRID:
        weights, bias = fit(inside, targets[~held_out], C)
        chosen = softmax((outside @ weights + bias).astype(np.float64))[np.arange(len(truth)), truth]
        losses.append(float(-np.log(np.clip(chosen, 1e-15, 1)).mean()))
    return losses
