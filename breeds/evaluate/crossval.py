"""Cross-validation on a store: how good a head is in the long run, and which head is best."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds import metrics
from breeds.errors import BreedsError
from breeds.heads import logistic
from breeds.heads.model import Model, apply_layers, softmax
from breeds.split import fold_of
from breeds.store import Store

Floats = NDArray[np.float32]
#: Takes standardised training features, their class numbers, held-out features; gives probabilities.
Head = Callable[[Floats, NDArray[np.intp], Floats], NDArray[np.float64]]
#: Photos a class needs, so that training on all folds but one can cross-validate within.
_LEAST = 3


def labelled_features(store: Store, least: int = 2) -> tuple[Floats, NDArray[np.intp], list[str], list[int]]:
    """Return features, class numbers, class names and rows of a store's different, labelled photos.

    Raises
    ------
    BreedsError
        If there are fewer than two classes, or a class has fewer than `least` photos.
    """
    table = store.table
    rows = table.labelled_rows()
    classes = sorted({table.label[row] for row in rows})
    if len(classes) < 2:
        raise BreedsError(f"{store.path} has labelled photos of {len(classes)} classes; two are needed.")
    targets = np.searchsorted(np.array(classes), np.array([table.label[row] for row in rows]))
    counts = np.bincount(targets)
    if counts.min() < least:
        raise BreedsError(
            f"This needs {least} photos of every class; {classes[int(counts.argmin())]} has {counts.min()}."
        )
    return store.features(np.array(rows)), targets, classes, rows


def cross_validate(store: Store, model: Model, folds: int, repeats: int) -> dict[str, Any]:
    """Repeat a model's whole training, C and temperature included, in repeated cross-validation.

    Parameters
    ----------
    model
        Of the kind ``logistic``; what its user decided (C, equal weights of classes) is kept. Views
        are not trained on.
    folds, repeats
        Every photo is tested `repeats` times, each time by a head that has not seen it.

    Returns
    -------
    dict
        Mean accuracy and log loss with their intervals over the photos, mean macro F1, and the
        standard deviation of each over the repeats.
    """
    if model.kind != "logistic":
        raise BreedsError("--cv works on logistic regression; the dense head would take minutes.")
    features, targets, _, rows = labelled_features(store, _LEAST)
    folds = min(folds, int(np.bincount(targets).min()))
    C = float(model.record["C"]) if model.record.get("C_chosen_by") == "you" else None
    scores, losses = [], []
    for repeat in range(repeats):
        head = partial(_logistic_head, seed=repeat, C=C, balanced=bool(model.record.get("balanced")))
        answers = _held_out(head, features, targets, _folds(store, rows, folds, repeat))
        losses.append(metrics.log_losses(targets, answers))
        scores.append(
            [measure(targets, answers) for measure in (metrics.accuracy, metrics.log_loss, metrics.macro_f1)]
        )
    mean, spread = np.mean(scores, axis=0), np.std(scores, axis=0)
    # The same photos are tested again in each repeat, so they are no more photos than they are.
    by_photo = metrics.mean_interval(np.mean(losses, axis=0))
    return {
        "folds": folds,
        "repeats": repeats,
        "photos": len(targets),
        "accuracy_interval": list(metrics.wilson_interval(float(mean[0]) * len(targets), len(targets))),
        "log_loss_interval": by_photo and list(by_photo),
    } | {
        key: float(value)
        for i, name in enumerate(("accuracy", "log_loss", "macro_f1"))
        for key, value in ((name, mean[i]), (f"{name}_spread", spread[i]))
    }


def _folds(store: Store, rows: list[int], folds: int, seed: int) -> NDArray[np.intp]:
    keys, labels = ([column[row] for row in rows] for column in (store.table.key, store.table.label))
    return fold_of(keys, labels, folds, seed)


def _held_out(
    head: Head, features: Floats, targets: NDArray[np.intp], fold: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return every photo's probabilities, float64 (n, classes), by a head that has not seen it."""
    answers = np.zeros((len(targets), int(targets.max()) + 1))
    for number in range(int(fold.max()) + 1):
        out = fold == number
        mean, scale = logistic.standardise(features[~out])
        answers[out] = head((features[~out] - mean) / scale, targets[~out], (features[out] - mean) / scale)
    return answers


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
    features, targets, _, rows = labelled_features(store, _LEAST)
    fold = _folds(store, rows, min(folds, int(np.bincount(targets).min())), seed)
    table = []
    for name, head in _heads(seed).items():
        started = time.perf_counter()
        answers = _held_out(head, features, targets, fold)
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

    def neighbours(inside: Floats, targets: NDArray[np.intp], outside: Floats) -> NDArray[np.float64]:
        count = min(10, len(targets))
        return scikit(lambda: KNeighborsClassifier(count, weights="distance", metric="cosine"))(
            inside, targets, outside
        )

    def machine(inside: Floats, targets: NDArray[np.intp], outside: Floats) -> NDArray[np.float64]:
        parts = min(3, int(np.bincount(targets).min()))
        return scikit(lambda: CalibratedClassifierCV(LinearSVC(C=1e-4, random_state=seed % 2**32), cv=parts))(
            inside, targets, outside
        )

    return {
        "logistic regression": partial(_logistic_head, seed=seed),
        "dense": partial(_dense_head, seed=seed),
        "nearest class mean": scikit(NearestCentroid),
        "10 nearest neighbours": neighbours,
        "linear SVM": machine,
    }


def _pseudo_folds(targets: NDArray[np.intp], folds: int, seed: int) -> NDArray[np.intp]:
    names = [f"{i:064x}" for i in range(len(targets))]
    return fold_of(names, [str(target) for target in targets], folds, seed)


def _logistic_head(
    inside: Floats,
    targets: NDArray[np.intp],
    outside: Floats,
    seed: int,
    C: float | None = None,
    balanced: bool = False,
) -> NDArray[np.float64]:
    """Choose C, if it is not given, and temperature inside, as `train_head.py` does."""
    inner = _pseudo_folds(targets, max(2, min(5, int(np.bincount(targets).min()))), seed)
    search = logistic.search_C(inside, targets, inner, balanced, (C,) if C else logistic.C_GRID)
    weights, bias = logistic.fit(inside, targets, search.C, balanced, search)
    return softmax((outside @ weights + bias).astype(np.float64) / search.temperature)


def _dense_head(inside: Floats, targets: NDArray[np.intp], outside: Floats, seed: int) -> NDArray[np.float64]:
    from breeds.heads import dense

    fitted = dense.fit(inside, targets, _pseudo_folds(targets, 8, seed) == 0, seed)
    return softmax(apply_layers(outside, fitted.layers))
