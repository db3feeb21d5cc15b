"""Multinomial logistic regression on standardised features: scikit-learn's, in a smaller space.

With fewer photos than features, the L2-penalised solution is a combination of the photos (the
representer theorem: Kimeldorf and Wahba, 1971; Schölkopf et al., 2001). So the photos are written
in an orthonormal basis of their span: n numbers instead of 2048, inner products unchanged, and with
them the solution, which is carried back.

Confidence is made true by temperature scaling (Guo et al., 2017, arXiv:1706.04599).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import minimize_scalar

from breeds.heads.kinds import Fitted, TrainingData, TrainingSettings
from breeds.heads.scikit import alone, limited
from breeds.machine import cores

Floats = NDArray[np.float32]
Logits = NDArray[np.float64]

#: Inverse regularisation strengths that the search chooses from, from strong to weak regularisation.
C_GRID = tuple(float(f"{c:.3g}") for c in np.logspace(-5, 0, 16))
#: C where there are too few photos of a class to choose it by cross-validation.
FALLBACK_C = 0.01
#: Where the search begins. Below, heads of few photos hardly differ but for their temperature.
_START = 1e-4
SEARCH_TOLERANCE, _FINAL_TOLERANCE = 1e-3, 1e-6
# Temperatures are sought between these.
_LOWEST, _HIGHEST = 0.002, 50.0
# Newton's last step can be too small for float32 to show; that is the end, not a failure.
_HARMLESS = "Line Search failed|The line search algorithm did not converge"
# Newton's method comes closest to the end, but each step costs the square of the number of classes.
_MANY_CLASSES = 40
# With more photos than features the search runs in the leading principal directions; the final
# fit never does.
_SEARCH_RANK = 1024
# Products of fewer multiplications than this are slower on several threads, and where other
# programs compute beside, many times slower.
_WORTH_THREADS = 1e8


class Span:
    """Photos in an orthonormal basis of their span, and the way back for weights.

    Parameters
    ----------
    features
        float32 (n, width).
    rank
        With more photos than features, keep this many leading principal directions; None keeps all.
    """

    coordinates: Floats
    is_exact: bool
    out_of: Callable[[NDArray[Any]], NDArray[Any]]

    def __init__(self, features: Floats, rank: int | None = None) -> None:
        n, width = features.shape
        self.is_exact = n < width or rank is None or rank >= width
        if n < width:
            self._span(features.astype(np.float64))
        elif rank is None or rank >= width:
            self.coordinates = features
            self.out_of = lambda weights: weights
        else:
            # Ascending eigenvalues: the last columns are the leading directions.
            directions = np.linalg.eigh(features.T @ features)[1][:, -rank:]
            self.coordinates = np.ascontiguousarray(features @ directions)
            self.out_of = lambda weights: weights @ directions.T

    def _span(self, features: NDArray[np.float64]) -> None:
        """Factor features = L Qᵀ with Q orthonormal, from the Cholesky factor of the inner products."""
        products = features @ features.T
        # Standardised photos add up to nothing: one direction is empty and needs a little weight.
        products[np.diag_indices(len(products))] += 1e-6 * max(np.trace(products) / len(products), 1e-12)
        factor = np.linalg.cholesky(products)
        self.coordinates = factor.astype(np.float32)
        self.out_of = lambda weights: solve_triangular(factor.T, weights.T.astype(np.float64)).T @ features


@dataclass(frozen=True)
class Search:
    """What the search for C found.

    Attributes
    ----------
    C
        The best of those that were tried.
    log_loss
        Out-of-fold log loss, smoothed and after temperature scaling (`smoothed_loss`), of every C
        that was tried, from small to large.
    at_edge
        Whether the best C is the first or the last of several in the grid, so that a better one may
        lie beyond.
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
    at_edge: bool
    temperature: float
    out_of_fold: Logits
    start: tuple[NDArray[Any], NDArray[Any]]
    space: Span


def train(data: TrainingData, settings: TrainingSettings) -> Fitted:
    """Fit the logistic head with its temperature, and choose C where none is given."""
    mean, scale = standardise(data.features)
    standard, C, balanced = (data.features - mean) / scale, settings.C, settings.balanced
    how: dict[str, Any]
    if data.folds is None:
        how = {"C": C or FALLBACK_C, "C_chosen_by": "you" if C else "default"}
        return Fitted(mean, scale, [fit(standard, data.targets, how["C"], balanced)], 1.0, how)
    judged = None if data.augmented is None else ~data.augmented
    search = search_C(standard, data.targets, data.folds, balanced, (C,) if C else C_GRID, judged)
    how = {"C": search.C, "C_chosen_by": "you"}
    if not C:
        how["C_chosen_by"] = f"{int(data.folds.max()) + 1}-fold cross-validation"
        how["C_at_edge"] = search.at_edge
    how["cv_log_loss"] = {f"{c:.3g}": round(loss, 5) for c, loss in search.log_loss.items()}
    layer = fit(standard, data.targets, search.C, balanced, search)
    return Fitted(mean, scale, [layer], search.temperature, how)


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
    classes = int(targets.max()) + 1
    solver = _solver("lbfgs" if classes > _MANY_CLASSES else "newton-cg", _FINAL_TOLERANCE, balanced)
    solver.C = C
    if search is not None:
        weights, bias = search.start
        solver.classes_, solver.intercept_ = np.unique(targets), bias.astype(np.float32)
        solver.coef_ = weights if space is search.space else search.space.out_of(weights).astype(np.float32)
    threads = cores() if space.coordinates.size * classes > _WORTH_THREADS else 1
    with limited(threads), warnings.catch_warnings():
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
    one, so both are chosen together. The search stops early: from 1e-4 it takes the grid's steps
    upwards while the loss falls, and if none does, downwards. So of 16 strengths three to a dozen are
    tried, and of several dips in the loss, which are noise where photos are few, it takes the one
    of the strongest regularisation. Each fold starts from its own last solution.

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
        Strengths to choose from, from small to large.
    judged
        Which photos count for the loss and the temperature, shape (n,); None for all.
    """
    with limited(1):  # threads that wait for each other take longer
        space = Span(features, _SEARCH_RANK)
    counted = slice(None) if judged is None else judged
    paths = [
        _Fold(space.coordinates, targets, folds == fold, balanced) for fold in range(int(folds.max()) + 1)
    ]
    tried: dict[float, _Tried] = {}

    def loss_at(C: float) -> float:
        if C not in tried:
            solutions = list(pool.map(lambda path: path.solve(C), paths))
            tried[C] = _judge(paths, solutions, targets, counted)
        return tried[C].loss

    pool = ThreadPoolExecutor(min(cores(), len(paths)))
    try:
        with limited(1), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=_HARMLESS)
            best = _lowest(grid, loss_at)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # whoever stops this does not wait for the fits
    found = tried[best]
    return Search(
        best,
        {C: tried[C].loss for C in sorted(tried)},
        len(grid) > 1 and best in (grid[0], grid[-1]),
        found.temperature,
        found.out_of_fold,
        found.start,
        space,
    )


def _lowest(grid: Sequence[float], loss_at: Callable[[float], float]) -> float:
    """Return where the loss ends falling, going up from the middle of the grid or else down."""
    start = at = min(range(len(grid)), key=lambda i: abs(math.log(grid[i] / _START)))
    loss_at(grid[start])
    for step in (1, -1):
        while 0 <= at + step < len(grid) and loss_at(grid[at + step]) < loss_at(grid[at]):
            at += step
        if at != start:
            break
    return grid[at]


@dataclass(frozen=True)
class _Tried:
    """All folds at one C: loss, temperature, every photo's logits, and the mean of the solutions."""

    loss: float
    temperature: float
    out_of_fold: Logits
    start: tuple[NDArray[Any], NDArray[Any]]


class _Fold:
    """A fold whose photos are held out; solved for one C after another, each from the last solution."""

    def __init__(
        self,
        coordinates: NDArray[Any],
        targets: NDArray[np.intp],
        held_out: NDArray[np.bool_],
        balanced: bool,
    ) -> None:
        self.held_out = held_out
        self.inside, self.outside = coordinates[~held_out], coordinates[held_out]
        self.targets = targets[~held_out]
        self.solver = _solver("lbfgs", SEARCH_TOLERANCE, balanced)
        self.last_two: list[tuple[float, NDArray[Any]]] = []

    def solve(self, C: float) -> tuple[Logits, NDArray[Any], NDArray[Any]]:
        """Return the held-out photos' logits, the weights and the bias."""
        solver = self.solver
        solver.C = C
        if len(self.last_two) == 2:  # start where these solutions point to
            (before, older), (last, newer) = self.last_two
            solver.coef_ = newer + (newer - older) * np.float32(math.log(C / last) / math.log(last / before))
        solver.fit(self.inside, self.targets)
        while solver.n_iter_[0] == 0 and solver.tol > 1e-6:  # the last solution was close: look closer
            solver.tol /= 5
            solver.fit(self.inside, self.targets)
        logits = (self.outside @ solver.coef_.T + solver.intercept_).astype(np.float64)
        if logits.shape[1] == 1:
            logits = np.hstack([-logits / 2, logits / 2])
        weights = solver.coef_.copy()
        self.last_two = [*self.last_two[-1:], (C, weights)]
        return logits, weights, solver.intercept_.copy()


def _judge(
    paths: list[_Fold],
    solutions: list[tuple[Logits, NDArray[Any], NDArray[Any]]],
    targets: NDArray[np.intp],
    counted: Any,
) -> _Tried:
    """Set the temperature of all folds together, on the photos that count."""
    logits = np.empty((len(targets), solutions[0][0].shape[1]))
    for path, solution in zip(paths, solutions, strict=True):
        logits[path.held_out] = solution[0]
    temperature = fit_temperature(logits[counted], targets[counted])
    loss = smoothed_loss(logits[counted], targets[counted], temperature)
    start = (np.mean([weights for _, weights, _ in solutions], axis=0),
             np.mean([bias for _, _, bias in solutions], axis=0))  # fmt: skip
    return _Tried(loss, temperature, logits, start)


def _solver(name: str, tolerance: float, balanced: bool) -> Any:
    with alone():
        from sklearn.linear_model import LogisticRegression  # takes a second: only who fits waits for it

    return LogisticRegression(
        solver=name,
        warm_start=True,
        tol=tolerance,
        max_iter=1000,
        class_weight="balanced" if balanced else None,
    )


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
