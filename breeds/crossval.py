"""Cross-validation on a store: how good a head is in the long run, and which head is best."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds import metrics
from breeds.errors import BreedsError
from breeds.heads import logistic
from breeds.heads.saved import Model, apply_layers, softmax
from breeds.split import fold_of
from breeds.store import Store

Floats = NDArray[np.float32]
#: Takes standardised training features, their class numbers, held-out features; gives probabilities.
Head = Callable[[Floats, NDArray[np.intp], Floats], NDArray[np.float64]]


def labelled_features(store: Store) -> tuple[Floats, NDArray[np.intp], list[str], list[int]]:
    """Return features, class numbers, class names and rows of a store's different, labelled photos.

    Raises
    ------
    BreedsError
        If there are fewer than two classes, or a class has one photo.
    """
    table = store.table
    rows = table.labelled_rows()
    classes = sorted({table.label[row] for row in rows})
    if len(classes) < 2:
        raise BreedsError(f"{store.path} has labelled photos of {len(classes)} classes; two are needed.")
    targets = np.searchsorted(np.array(classes), np.array([table.label[row] for row in rows]))
    if np.bincount(targets).min() < 2:
        lonely = classes[int(np.bincount(targets).argmin())]
        raise BreedsError(f"Cross-validation needs two photos of every class; {lonely} has one.")
    return store.features(np.array(rows)), targets, classes, rows


def cross_validate(store: Store, model: Model, folds: int, repeats: int) -> dict[str, Any]:
    """Train a model's head again on each part of repeated cross-validation, and test on the rest.

    Parameters
    ----------
    model
        Of the kind ``logistic``: its C and temperature are used.
    folds, repeats
        Every photo is tested `repeats` times, each time by a head that has not seen it.

    Returns
    -------
    dict
        Mean accuracy, log loss and macro F1, and their standard deviation over the repeats.
    """
    if model.kind != "logistic":
        raise BreedsError("--cv works on logistic regression; the dense head would take minutes.")
    features, targets, _, rows = labelled_features(store)
    keys = [store.table.key[row] for row in rows]
    labels = [store.table.label[row] for row in rows]
    folds = min(folds, int(np.bincount(targets).min()))
    scores = []
    for repeat in range(repeats):
        fold = fold_of(keys, labels, folds, seed=repeat)
        answers = out_of_fold(features, targets, fold, float(model.record["C"])) / model.temperature
        probabilities = softmax(answers)
        scores.append(
            (
                metrics.accuracy(targets, probabilities),
                metrics.log_loss(targets, probabilities),
                metrics.macro_f1(targets, probabilities),
            )
        )
    mean, spread = np.mean(scores, axis=0), np.std(scores, axis=0)
    return {"folds": folds, "repeats": repeats, "photos": len(targets)} | {
        key: float(value)
        for i, name in enumerate(("accuracy", "log_loss", "macro_f1"))
        for key, value in ((name, mean[i]), (f"{name}_spread", spread[i]))
    }


def out_of_fold(
    features: Floats, targets: NDArray[np.intp], folds: NDArray[np.intp], C: float
) -> NDArray[np.float64]:
    """Return every photo's logits, float64 (n, classes), by logistic regression that has not seen it."""
    mean, scale = logistic.standardise(features)
    return logistic.search_C((features - mean) / scale, targets, folds, grid=(C,)).out_of_fold


def compare_heads(store: Store, seed: int = 0, folds: int = 5) -> list[dict[str, Any]]:
    """Cross-validate heads of several kinds on the same folds.

    Returns
    -------
    list of dict
        Name, log loss, accuracy with its interval, and seconds, of each.
    """
    features, targets, classes, rows = labelled_features(store)
    keys = [store.table.key[row] for row in rows]
    labels = [store.table.label[row] for row in rows]
    fold = fold_of(keys, labels, min(folds, int(np.bincount(targets).min())), seed)
    table = []
    for name, head in _heads(seed).items():
        started = time.perf_counter()
        answers = np.zeros((len(targets), len(classes)))
        for number in range(int(fold.max()) + 1):
            out = fold == number
            mean, scale = logistic.standardise(features[~out])
            answers[out] = head(
                (features[~out] - mean) / scale, targets[~out], (features[out] - mean) / scale
            )
        right = int((answers.argmax(axis=1) == targets).sum())
        table.append(
            {
                "head": name,
                "log_loss": metrics.log_loss(targets, answers),
                "accuracy": right / len(targets),
                "accuracy_interval": list(metrics.wilson_interval(right, len(targets))),
                "seconds": time.perf_counter() - started,
            }
        )
    return table


def _heads(seed: int) -> dict[str, Head]:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
    from sklearn.svm import LinearSVC

    def scikit(make: Callable[[], Any]) -> Head:
        def head(inside: Floats, targets: NDArray[np.intp], outside: Floats) -> NDArray[np.float64]:
            return np.asarray(make().fit(inside, targets).predict_proba(outside), dtype=np.float64)

        return head

    def neighbours() -> Any:
        return KNeighborsClassifier(n_neighbors=10, weights="distance", metric="cosine")

    def machine() -> Any:
        return CalibratedClassifierCV(LinearSVC(C=1e-4, random_state=seed), cv=3)

    return {
        "logistic regression": lambda inside, targets, outside: _logistic_head(
            inside, targets, outside, seed
        ),
        "dense": lambda inside, targets, outside: _dense_head(inside, targets, outside, seed),
        "nearest class mean": scikit(NearestCentroid),
        "10 nearest neighbours": scikit(neighbours),
        "linear SVM": scikit(machine),
    }


def _pseudo_folds(targets: NDArray[np.intp], folds: int, seed: int) -> NDArray[np.intp]:
    names = [f"{i:064x}" for i in range(len(targets))]
    return fold_of(names, [str(target) for target in targets], folds, seed)


def _logistic_head(
    inside: Floats, targets: NDArray[np.intp], outside: Floats, seed: int
) -> NDArray[np.float64]:
    """Choose C and temperature inside, as `train_head.py` does."""
    inner = _pseudo_folds(targets, max(2, min(5, int(np.bincount(targets).min()))), seed)
    search = logistic.search_C(inside, targets, inner)
    weights, bias = logistic.fit(inside, targets, search.C, search=search)
    return softmax((outside @ weights + bias).astype(np.float64) / search.temperature)


def _dense_head(inside: Floats, targets: NDArray[np.intp], outside: Floats, seed: int) -> NDArray[np.float64]:
    from breeds.heads import dense

    fitted = dense.fit(inside, targets, _pseudo_folds(targets, 8, seed) == 0, seed)
    return softmax(apply_layers(outside, fitted.layers))
