"""A store to a model: split, fit the head, record everything that had a part in it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds.errors import BreedsError
from breeds.heads.model import Model, apply_layers, pack_keys
from breeds.metrics import log_loss
from breeds.split import fold_of, split_keys
from breeds.store import Store, versions

HEADS = ("logistic", "dense")
FOLDS = 5
#: C where there are too few photos of a class to choose it by cross-validation.
FALLBACK_C = 0.01
DENSE_VALIDATION_FOLDS = 8
#: Under so many training photos of a class, its numbers rest on too few.
FEW = 10
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Labelled:
    """The labelled photos of a store, each different photo once, and their parts of the split."""

    rows: Rows
    keys: list[str]
    labels: list[str]
    part: NDArray[np.str_]
    unlabelled: int
    duplicates: int


def labelled(store: Store, seed: int, val: float) -> Labelled:
    """Take the labelled, different photos of a store and split them.

    Raises
    ------
    BreedsError
        If they cannot be split into what training and evaluation need.
    """
    table = store.table
    rows = table.labelled_rows()
    if not rows:
        raise BreedsError(
            f"The photos in {store.path} have no labels; extract from a folder with a subfolder per "
            f"class, or name a CSV file with --labels."
        )
    keys, labels, given = ([column[row] for row in rows] for column in (table.key, table.label, table.split))
    part = split_keys(keys, labels, seed, val, given)
    total = sum(map(bool, table.label))
    return Labelled(np.array(rows), keys, labels, part, len(table) - total, total - len(rows))


def train(
    store: Store,
    head: str = "logistic",
    C: float | None = None,
    seed: int = 0,
    val: float = 0.0,
    balanced: bool = False,
    keep: float = 0.95,
    views: Sequence[Store] = (),
) -> Model:
    """Train a head on a store's training part.

    Parameters
    ----------
    head
        One of `HEADS`.
    C
        Inverse regularisation strength of logistic regression; None chooses it by
        cross-validation on the training part.
    seed
        Decides the split, the folds, and the dense head's first weights.
    val
        Share of photos for validation; logistic regression has no use for them and leaves them
        alone, the dense head decides by them when to stop (without, by an eighth of training).
    balanced
        Let every class weigh the same; the dense head always does.
    keep
        Share of known photos that the threshold for unknown ones is set to keep.
    views
        Stores of views of the same photos, to train on as well; testing is on the photos as they are.

    Raises
    ------
    BreedsError
        If the store's photos are not enough, or its features are not finite or all the same.
    """
    started = time.perf_counter()
    photos = labelled(store, seed, val)
    classes = sorted(set(photos.labels))
    targets = np.searchsorted(np.array(classes), np.array(photos.labels))
    for_fit = photos.part == "train"
    if head == "dense":
        for_fit |= photos.part == "val"
    features = store.features(photos.rows[for_fit])
    if (features == features[0]).all():
        raise BreedsError(
            f"All training photos in {store.path} have the same features, so nothing tells the classes "
            f"apart; extract again with sound weights."
        )
    chosen = [i for i, used in enumerate(for_fit) if used]
    keys, labels = [photos.keys[i] for i in chosen], [photos.labels[i] for i in chosen]

    folds = _folds(keys, labels, seed)
    copies = 1 + len(views)
    plain, features = features, np.vstack([features, *(view.features_of(keys) for view in views)])
    if head == "dense":
        decides = photos.part[for_fit] == "val"
        if not decides.any():
            decides = fold_of(keys, labels, DENSE_VALIDATION_FOLDS, seed) == 0
        fitted = _dense(features, np.tile(targets[for_fit], copies), np.tile(decides, copies), seed)
    else:
        tiled = None if folds is None else np.tile(folds, copies)
        judged = np.arange(len(features)) < len(plain)
        fitted = _logistic(features, np.tile(targets[for_fit], copies), tiled, judged, C, balanced)
    detector = None
    if folds is not None:
        from breeds.heads.unknown import fit_detector

        detector = fit_detector(plain, targets[for_fit], folds, keep)
    seen = [key for key, part in zip(photos.keys, photos.part, strict=True) if part != "test"]
    model = Model(
        kind=head,
        classes=classes,
        recipe=store.recipe,
        weights_path=store.table.weights_path,
        mean=fitted.mean,
        scale=fitted.scale,
        layers=fitted.layers,
        seen=pack_keys(seen),
        temperature=fitted.temperature,
        unknown=detector,
        also=store.parts()[1:],
    )
    probabilities = model.probabilities(plain)
    parts = Counter(photos.part.tolist())
    model.record = {
        **fitted.how,
        "seed": seed,
        "store": str(store.path),
        "also": [str(other.path) for other in store.also],
        "views": [view.recipe.view for view in views],
        "n_train": parts["train"],
        "n_val": parts["val"],
        "n_test": parts["test"],
        "unlabelled": photos.unlabelled,
        "duplicates": photos.duplicates,
        "train_accuracy": float((probabilities.argmax(axis=1) == targets[for_fit]).mean()),
        "train_log_loss": log_loss(targets[for_fit], probabilities),
        "few": {label: n for label, n in sorted(Counter(labels).items()) if n < FEW},
        "seconds": round(time.perf_counter() - started, 2),
        "versions": versions(),
    }
    return model


@dataclass(frozen=True)
class _Fitted:
    """A head before it becomes a model: standardisation, layers, temperature, and how it came about."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    layers: list[tuple[NDArray[np.float32], NDArray[np.float32]]]
    temperature: float
    how: dict[str, Any]


def _folds(keys: list[str], labels: list[str], seed: int) -> Rows | None:
    """Return the cross-validation fold of each photo, or None if a class has a single one."""
    folds = min(FOLDS, *Counter(labels).values())
    return fold_of(keys, labels, folds, seed) if folds > 1 else None


def _logistic(
    features: NDArray[np.float32],
    targets: Rows,
    folds: Rows | None,
    judged: NDArray[np.bool_],
    C: float | None,
    balanced: bool,
) -> _Fitted:
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
        return _Fitted(mean, scale, [layer], 1.0, how)
    grid = (C,) if C else logistic.C_GRID
    search = logistic.search_C(standard, targets, folds, balanced, grid, judged)
    how["C"] = search.C
    if not C:
        how["C_chosen_by"] = f"{int(folds.max()) + 1}-fold cross-validation"
        how["C_at_edge"] = search.at_edge
    how["cv_log_loss"] = {f"{c:.3g}": round(loss, 5) for c, loss in search.log_loss.items()}
    layer = logistic.fit(standard, targets, search.C, balanced, search)
    return _Fitted(mean, scale, [layer], search.temperature, how)


def _dense(features: NDArray[np.float32], targets: Rows, decides: NDArray[np.bool_], seed: int) -> _Fitted:
    from breeds.heads import dense
    from breeds.heads.logistic import standardise
    from breeds.heads.temperature import fit_temperature

    mean, scale = standardise(features[~decides])
    standard = (features - mean) / scale
    trained = dense.fit(standard, targets, decides, seed)
    temperature = fit_temperature(apply_layers(standard[decides], trained.layers), targets[decides])
    how = {"best_epoch": trained.best_epoch, "val_log_loss": min(trained.val_log_loss)}
    return _Fitted(mean, scale, trained.layers, temperature, how)
