"""A store to a model: split, fit the head, record everything that had a part in it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds.errors import BreedsError
from breeds.heads.saved import Model, pack_keys
from breeds.metrics import log_loss
from breeds.split import fold_of, split_keys
from breeds.store import Store, versions

HEADS = ("logistic", "dense")
FOLDS = 5
#: C where there are too few photos of a class to choose it by cross-validation.
FALLBACK_C = 0.01
DENSE_VALIDATION_FOLDS = 8
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
    first: dict[str, int] = {}
    for row, (key, label) in enumerate(zip(table.key, table.label, strict=True)):
        if label:
            first.setdefault(key, row)
    if not first:
        raise BreedsError(
            f"The photos in {store.path} have no labels; extract from a folder with a subfolder per "
            f"class, or name a CSV file with --labels."
        )
    rows = list(first.values())
    keys, labels, given = ([column[row] for row in rows] for column in (table.key, table.label, table.split))
    part = split_keys(keys, labels, seed, val, given)
    total = sum(map(bool, table.label))
    return Labelled(np.array(rows), keys, labels, part, len(table) - total, total - len(rows))


def train(
    store: Store, head: str = "logistic", C: float | None = None, seed: int = 0, val: float = 0.0
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

    Raises
    ------
    BreedsError
        If the store's photos are not enough, or its features are not finite.
    """
    started = time.perf_counter()
    photos = labelled(store, seed, val)
    classes = sorted(set(photos.labels))
    targets = np.searchsorted(np.array(classes), np.array(photos.labels))
    for_fit = photos.part == "train"
    if head == "dense":
        for_fit |= photos.part == "val"
    features = store.features(photos.rows[for_fit])
    chosen = [i for i, used in enumerate(for_fit) if used]
    keys, labels = [photos.keys[i] for i in chosen], [photos.labels[i] for i in chosen]

    if head == "dense":
        decides = photos.part[for_fit] == "val"
        if not decides.any():
            decides = fold_of(keys, labels, DENSE_VALIDATION_FOLDS, seed) == 0
        mean, scale, layers, how = _dense(features, targets[for_fit], decides, seed)
    else:
        mean, scale, layers, how = _logistic(features, targets[for_fit], keys, labels, C, seed)
    seen = [key for key, part in zip(photos.keys, photos.part, strict=True) if part != "test"]
    model = Model(head, classes, store.recipe, store.table.weights_path, mean, scale, layers, pack_keys(seen))
    probabilities = model.probabilities(features)
    parts = Counter(photos.part.tolist())
    model.record = {
        **how,
        "seed": seed,
        "store": str(store.path),
        "n_train": int(for_fit.sum()) if head == "dense" else parts["train"],
        "n_val": parts["val"],
        "n_test": parts["test"],
        "unlabelled": photos.unlabelled,
        "duplicates": photos.duplicates,
        "train_accuracy": float((probabilities.argmax(axis=1) == targets[for_fit]).mean()),
        "train_log_loss": log_loss(targets[for_fit], probabilities),
        "seconds": round(time.perf_counter() - started, 2),
        "versions": versions(),
    }
    return model


def _logistic(
    features: NDArray[np.float32],
    targets: Rows,
    keys: list[str],
    labels: list[str],
    C: float | None,
    seed: int,
) -> tuple[Any, Any, Any, dict[str, Any]]:
    from breeds.heads import logistic

    mean, scale = logistic.standardise(features)
    standard = (features - mean) / scale
    how: dict[str, Any] = {"C": C, "C_chosen_by": "you"}
    start = None
    if C is None:
        folds = min(FOLDS, min(Counter(labels).values()))
        if folds < 2:
            how = {"C": FALLBACK_C, "C_chosen_by": "default: a class has one training photo"}
        else:
            search = logistic.search_C(standard, targets, fold_of(keys, labels, folds, seed))
            start = search.start
            losses = {f"{c:.3g}": round(loss, 5) for c, loss in search.log_loss.items()}
            how = {"C": search.C, "C_chosen_by": f"{folds}-fold cross-validation", "cv_log_loss": losses}
    layer = logistic.fit(standard, targets, how["C"], start=start)
    return mean, scale, [layer], how


def _dense(
    features: NDArray[np.float32], targets: Rows, decides: NDArray[np.bool_], seed: int
) -> tuple[Any, Any, Any, dict[str, Any]]:
    from breeds.heads import dense, logistic

    mean, scale = logistic.standardise(features[~decides])
    fitted = dense.fit((features - mean) / scale, targets, decides, seed)
    how = {"best_epoch": fitted.best_epoch, "val_log_loss": min(fitted.val_log_loss)}
    return mean, scale, fitted.layers, how
