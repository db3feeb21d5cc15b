"""Multinomial logistic regression on standardised features: scikit-learn's, in a smaller space.

scikit-learn solves it in the basis of `breeds.heads.span`, and the answer is carried back.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from breeds.heads.temperature import fit_temperature, logits_loss
from breeds.imports import quickly

try:
    # scikit-learn only supports pandas, and wants three functions of scipy.stats that nothing here calls.
    with quickly(without=("pandas",), later=("scipy.stats",)):
        from sklearn.linear_model import LogisticRegression

        from breeds.heads.span import Span
except ImportError:  # a version that wants more of them
    from sklearn.linear_model import LogisticRegression

    from breeds.heads.span import Span

Floats = NDArray[np.float32]
Logits = NDArray[np.float64]

#: Inverse regularisation strengths that the search tries, from strong to weak regularisation.
C_GRID = tuple(float(f"{c:.3g}") for c in np.logspace(-5, 0, 16))
#: The search ends when the loss has not improved for this many steps: it has one minimum.
_PATIENCE = 1
_SEARCH_TOLERANCE, _FINAL_TOLERANCE = 1e-3, 1e-6
_WORKERS = 2
# Newton's last step can be too small for float32 to show; that is the end, not a failure.
_HARMLESS = "Line Search failed|The line search algorithm did not converge"
# Newton's method takes the fewest steps, but each costs the square of the number of classes.
_MANY_CLASSES = 40
# With more photos than features the search runs in the leading principal directions; the final
# fit never does.
_SEARCH_RANK = 1024


@dataclass(frozen=True)
class Search:
    """What the search for C found.

    Attributes
    ----------
    C
        The best of the grid.
    log_loss
        Out-of-fold log loss, after temperature scaling, of every C that was tried.
    temperature
        That of the best C.
    out_of_fold
        Logits, float64 (n, classes), of every photo by the head that was not trained on it.
    start
        Weights (classes, dimensions) and bias (classes,), the mean over the folds.
    space
        The space that `start` is in.
    """

    C: float
    log_loss: dict[float, float]
    temperature: float
    out_of_fold: Logits
    start: tuple[NDArray[Any], NDArray[Any]]
    space: Span

    @property
    def at_edge(self) -> bool:
        """Whether the best C is the last of the grid, so that a better one may lie beyond."""
        return len(self.log_loss) > 1 and self.C in (C_GRID[0], C_GRID[-1])


def standardise(features: Floats) -> tuple[Floats, Floats]:
    """Return mean and scale, float32 (width,), of features (n, width); constant columns have scale 1."""
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    scale[scale < 1e-7] = 1
    return mean.astype(np.float32), scale.astype(np.float32)


def fit(
    features: Floats,
    targets: NDArray[np.intp],
    C: float,
    balanced: bool = False,
    search: Search | None = None,
) -> tuple[Floats, Floats]:
    """Fit multinomial logistic regression with an L2 penalty; equal to scikit-learn's own.

    Parameters
    ----------
    features
        Standardised, float32 (n, width).
    targets
        Class numbers, shape (n,), all of 0 to classes - 1 present.
    C
        Inverse strength of the penalty.
    balanced
        Let every class weigh the same, however many photos it has.
    search
        What `search_C` found on the same features, to start from.

    Returns
    -------
    weights, bias
        float32 (width, classes) and (classes,), for `breeds.heads.model.Model`.
    """
    space = search.space if search is not None and search.space.is_exact else Span(features)
    solver = _solver(int(targets.max()) + 1, _FINAL_TOLERANCE, balanced)
    solver.C = C
    if search is not None:
        weights, bias = search.start
        solver.classes_, solver.intercept_ = np.unique(targets), bias.astype(np.float32)
        solver.coef_ = weights if space is search.space else search.space.out_of(weights).astype(np.float32)
    with threadpool_limits(_WORKERS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_HARMLESS)
        solver.fit(space.coordinates, targets)
    weights, bias = space.out_of(solver.coef_), solver.intercept_
    if len(weights) == 1:  # scikit-learn keeps one row for two classes
        weights, bias = np.vstack([-weights / 2, weights / 2]), np.concatenate([-bias / 2, bias / 2])
    return weights.T.astype(np.float32), bias.astype(np.float32)


def search_C(
    features: Floats,
    targets: NDArray[np.intp],
    folds: NDArray[np.intp],
    balanced: bool = False,
    grid: Sequence[float] = C_GRID,
    judged: NDArray[np.bool_] | None = None,
) -> Search:
    """Choose C by the out-of-fold log loss after temperature scaling.

    A strongly regularised head is too timid, but once its temperature is set it is the better
    one, so both are chosen together. The folds walk the grid in step, each starting from its
    last solution, and stop when the loss rises.

    Parameters
    ----------
    features
        Standardised, float32 (n, width).
    targets
        Class numbers, shape (n,).
    folds
        The fold of each photo, shape (n,); every class is in at least two of them.
    balanced
        Let every class weigh the same, however many photos it has.
    grid
        Strengths to try, from small to large.
    judged
        Which photos count for the loss and the temperature, shape (n,); None for all.
    """
    space = Span(features, _SEARCH_RANK)
    counted = slice(None) if judged is None else judged
    losses: dict[float, float] = {}
    best: list[_Step] = []
    temperature, out_of_fold = 1.0, np.empty((len(targets), int(targets.max()) + 1))
    parts = [folds == fold for fold in range(int(folds.max()) + 1)]
    with threadpool_limits(1), ThreadPoolExecutor(_WORKERS) as pool, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_HARMLESS)
        paths = [_path(space.coordinates, targets, part, balanced, grid) for part in parts]
        for C in grid:
            steps = list(pool.map(next, paths))
            logits = np.empty_like(out_of_fold)
            for part, step in zip(parts, steps, strict=True):
                logits[part] = step.logits
            here = fit_temperature(logits[counted], targets[counted])
            losses[C] = logits_loss(logits[counted], targets[counted], here)
            if losses[C] == min(losses.values()):
                best, temperature, out_of_fold = steps, here, logits
            elif list(losses).index(min(losses, key=losses.__getitem__)) < len(losses) - _PATIENCE:
                break
    weights, bias = (np.mean([getattr(step, name) for step in best], axis=0) for name in ("weights", "bias"))
    return Search(
        min(losses, key=losses.__getitem__), losses, temperature, out_of_fold, (weights, bias), space
    )


@dataclass(frozen=True)
class _Step:
    """One fold at one C: logits of its held-out photos, and the solution."""

    logits: Logits
    weights: NDArray[Any]
    bias: NDArray[Any]


def _path(
    coordinates: NDArray[Any],
    targets: NDArray[np.intp],
    held_out: NDArray[np.bool_],
    balanced: bool,
    grid: Sequence[float],
) -> Iterator[_Step]:
    """Solve one fold for every C of the grid, each from the last solution."""
    inside, outside = coordinates[~held_out], coordinates[held_out]
    solver = _solver(int(targets.max()) + 1, _SEARCH_TOLERANCE, balanced)
    for C in grid:
        solver.C = C
        solver.fit(inside, targets[~held_out])
        while solver.n_iter_[0] == 0 and solver.tol > 1e-6:  # the last solution was close: look closer
            solver.tol /= 5
            solver.fit(inside, targets[~held_out])
        logits = (outside @ solver.coef_.T + solver.intercept_).astype(np.float64)
        if logits.shape[1] == 1:
            logits = np.hstack([-logits / 2, logits / 2])
        yield _Step(logits, solver.coef_.copy(), solver.intercept_.copy())


def _solver(classes: int, tolerance: float, balanced: bool) -> Any:
    return LogisticRegression(
        solver="lbfgs" if classes > _MANY_CLASSES else "newton-cg",
        warm_start=True,
        tol=tolerance,
        max_iter=1000,
        class_weight="balanced" if balanced else None,
    )
