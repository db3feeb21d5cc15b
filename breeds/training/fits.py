"""A head fitted to features in memory, with what tells photos of none of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds.errors import BreedsError
from breeds.features import Store
from breeds.heads.model import apply_layers, softmax
from breeds.heads.threads import limited
from breeds.heads.unknown import Detector, fit_detector
from breeds.metrics import log_loss
from breeds.training.photos import Chosen, Rows

#: C where there are too few photos of a class to choose it by cross-validation.
FALLBACK_C = 0.01


@dataclass(frozen=True)
class Fitted:
    """A head before it becomes a model: standardisation, layers, temperature, and how it came about."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    layers: list[tuple[NDArray[np.float32], NDArray[np.float32]]]
    temperature: float
    how: dict[str, Any]


@dataclass(frozen=True)
class Done:
    """What training found: the head, what tells photos of none of the classes, and its own photos' scores."""

    fitted: Fitted
    unknown: Detector | None
    on_training_photos: dict[str, float]


@dataclass(frozen=True)
class _Data:
    """What a head is fitted to in memory: features, float32 (n, width), and those of the photos' views."""

    chosen: Chosen
    features: NDArray[np.float32]
    views: list[NDArray[np.float32]]

    def with_views(self) -> NDArray[np.float32]:
        """Return the features of the photos and, below them, of their views."""
        return np.vstack([self.features, *self.views])

    def tiled(self, column: NDArray[Any]) -> NDArray[Any]:
        """Repeat a column, so that it fits `with_views`."""
        return np.tile(column, 1 + len(self.views))


def in_memory(
    store: Store,
    chosen: Chosen,
    head: str,
    seed: int,
    views: Sequence[Store],
    C: float | None,
    balanced: bool,
    keep: float,
) -> Done:
    """Train on features that are read at once."""
    features = store.features(chosen.rows)
    check_width(store, features)
    if (features == features[0]).all():
        raise all_the_same(store)
    data = _Data(chosen, features, [view.features_of(chosen.keys) for view in views])
    with limited(1):  # where there is work for more, `breeds.heads.logistic` says so
        fitted = _dense(data, seed) if head == "dense" else _logistic(data, C, balanced)
    unknown = None
    if chosen.folds is not None:
        unknown = fit_detector(features, chosen.targets, chosen.folds, keep)
    logits = apply_layers((features - fitted.mean) / fitted.scale, fitted.layers)
    return Done(fitted, unknown, scores_of(chosen.targets, softmax(logits / fitted.temperature)))


def _logistic(data: _Data, C: float | None, balanced: bool) -> Fitted:
    features, targets = data.with_views(), data.tiled(data.chosen.targets)
    judged = np.arange(len(features)) < len(data.features)  # views only help in training
    folds = None if data.chosen.folds is None else data.tiled(data.chosen.folds)
    return fit_logistic(features, targets, folds, C, balanced, judged)


def fit_logistic(
    features: NDArray[np.float32],
    targets: Rows,
    folds: Rows | None,
    C: float | None = None,
    balanced: bool = False,
    judged: NDArray[np.bool_] | None = None,
) -> Fitted:
    """Fit the logistic head, with its temperature, and choose C where none is given.

    Parameters
    ----------
    features
        As extracted, float32 (n, width).
    targets, judged
        As in `breeds.heads.logistic.search_C`.
    folds
        As there; None where a class has a single photo, and nothing can be cross-validated.
    C, balanced
        As in `train`.
    """
    from breeds.heads import logistic

    mean, scale = logistic.standardise(features)
    standard = (features - mean) / scale
    how: dict[str, Any] = {
        "C": C or FALLBACK_C,
        "C_chosen_by": "you" if C else "default",
        "balanced": balanced,
    }
    if folds is None:
        layer = logistic.fit(standard, targets, how["C"], balanced)
        return Fitted(mean, scale, [layer], 1.0, how)
    grid = (C,) if C else logistic.C_GRID
    search = logistic.search_C(standard, targets, folds, balanced, grid, judged)
    how["C"] = search.C
    if not C:
        how["C_chosen_by"] = f"{int(folds.max()) + 1}-fold cross-validation"
        how["C_at_edge"] = search.at_edge
    how["cv_log_loss"] = {f"{c:.3g}": round(loss, 5) for c, loss in search.log_loss.items()}
    layer = logistic.fit(standard, targets, search.C, balanced, search)
    return Fitted(mean, scale, [layer], search.temperature, how)


def _dense(data: _Data, seed: int) -> Fitted:
    from breeds.heads import dense
    from breeds.heads.logistic import standardise
    from breeds.heads.temperature import fit_temperature

    chosen = data.chosen
    features, targets, decides = data.with_views(), data.tiled(chosen.targets), data.tiled(chosen.decides)
    mean, scale = standardise(features[~decides])
    standard = (features - mean) / scale
    trained = dense.fit(standard, targets, decides, seed)
    temperature = fit_temperature(apply_layers(standard[decides], trained.layers), targets[decides])
    how = {"best_epoch": trained.best_epoch, "val_log_loss": min(trained.val_log_loss)}
    return Fitted(mean, scale, trained.layers, temperature, how)


def scores_of(targets: Rows, probabilities: NDArray[np.float64]) -> dict[str, float]:
    """Say how well a head tells the photos that it was trained on."""
    return {
        "train_accuracy": float((probabilities.argmax(axis=1) == targets).mean()),
        "train_log_loss": log_loss(targets, probabilities),
    }


def all_the_same(store: Store) -> BreedsError:
    """Return what is said where nothing tells the classes apart."""
    return BreedsError(
        f"All training photos in {store.path} have the same features, so nothing tells the classes "
        f"apart; extract again with sound weights."
    )


def check_width(store: Store, features: NDArray[np.float32]) -> None:
    """Refuse features, float32 (n, width), of another width than the store's networks give.

    Raises
    ------
    BreedsError
        If it is another; nothing can be said of networks that this version does not know.
    """
    widths = [config.width for config, _ in store.parts()]
    if all(widths) and sum(widths) != features.shape[1]:
        raise BreedsError(
            f"{store.path} has {features.shape[1]} features a photo, and its config ({store.config}) gives "
            f"{sum(widths)}; extract again, into another --store."
        )
