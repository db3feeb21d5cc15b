"""A model and a store to a report: every number, as plain values, and the JSON that machines read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds import metrics
from breeds.errors import BreedsError
from breeds.files import write_aside
from breeds.heads.model import Model, softmax
from breeds.heads.unknown import Detector
from breeds.store import Store, check_recipe, versions

Floats = NDArray[np.float64]

_OPTIMISTIC = (
    "The weights have seen ImageNet, and Stanford Dogs and Kaggle's dog photos are ImageNet photos: "
    "on those, these numbers are optimistic."
)
_RANDOM = "The weights are random: these numbers say nothing about real dogs."


@dataclass(frozen=True)
class Tested:
    """A model's answers for the labelled photos of a store that its training has not seen.

    Attributes
    ----------
    store, model
        What was tested, on what.
    rows
        The photos' rows in the store, each different photo once.
    truth
        Their classes' numbers, shape (n,).
    features
        float32 (n, width).
    logits
        float64 (n, classes).
    excess
        By how much each is farther from its nearest class than is typical, float64 (n,); None
        where the model knows nothing of the unknown.
    n_seen
        How many photos of the store training has seen.
    """

    store: Store
    model: Model
    rows: NDArray[np.intp]
    truth: metrics.Truth
    features: NDArray[np.float32]
    logits: Floats
    excess: Floats | None
    n_seen: int

    @cached_property
    def probabilities(self) -> Floats:
        """Of each class, float64 (n, classes)."""
        return softmax(self.logits)


def answer_test_photos(store: Store, model: Model) -> Tested:
    """Let a model answer for the photos that it is to be tested on.

    With a manifest's own ``split`` column these are its ``test`` part.

    Raises
    ------
    BreedsError
        If the recipes differ, a label is no class of the model, no photo is left, or a photo of
        the test part was seen in training.
    """
    _check_parts(store, model)
    rows, seen = _test_rows(store, model)
    table = store.table
    number = {name: i for i, name in enumerate(model.classes)}
    unknown = sorted({table.label[row] for row in rows} - number.keys())
    if unknown:
        raise BreedsError(
            f"{store.path} has photos of {', '.join(unknown[:5])}, which the model does not know; "
            f"train on this store, or extract with --classes."
        )
    features = store.features(np.array(rows))
    return Tested(
        store,
        model,
        np.array(rows),
        np.array([number[table.label[row]] for row in rows]),
        features,
        model.logits(features),
        model.unknown.excess(features) if model.unknown else None,
        seen,
    )


def evaluate(store: Store, model: Model) -> dict[str, Any]:
    """Measure a model on the labelled photos of a store that its training has not seen.

    Returns
    -------
    dict
        Plain JSON values; the README lists them.

    Raises
    ------
    BreedsError
        As `answer_test_photos` does.
    """
    return measure(answer_test_photos(store, model))


def measure(tested: Tested) -> dict[str, Any]:
    """Measure a model's answers; plain JSON values, which the README lists."""
    model, truth, probabilities = tested.model, tested.truth, tested.probabilities
    scores = _scores(truth, probabilities, model.classes)
    calibration = _calibration(truth, tested.logits, model.temperature)
    return {
        **scores,
        "calibration": calibration | {"log_loss_interval": scores["log_loss_interval"]},
        **_coverage(truth, probabilities, tested.excess),
        "unknown": _unknown(model.unknown, truth, probabilities, tested.excess),
        "n_train": model.record["n_train"],
        "n_val": model.record.get("n_val", 0),
        "n_test": len(truth),
        "n_seen": tested.n_seen,
        "classes": model.classes,
        "weights": {"name": model.recipe.weights, "sha256": model.recipe.weights_sha256},
        "recipe": {**json.loads(model.recipe.to_json()), "sha256": model.recipe.digest},
        "head": model.kind,
        "store": str(tested.store.path),
        "caveat": _RANDOM if model.recipe.weights == "random" else _OPTIMISTIC,
        "versions": versions(),
    }


def _scores(truth: metrics.Truth, probabilities: Floats, classes: list[str]) -> dict[str, Any]:
    """Measure how often the answers are right and how good the probabilities are, with intervals."""
    predicted = probabilities.argmax(axis=1)
    matrix = metrics.confusion(truth, predicted, len(classes))
    right, among = int(matrix.diagonal().sum()), metrics.right_in_top(truth, probabilities, 3)
    losses = metrics.log_losses(truth, probabilities)
    return {
        "accuracy": right / len(truth),
        "accuracy_interval": _wilson(right, len(truth)),
        "top3": among / len(truth),
        "top3_interval": _wilson(among, len(truth)),
        "log_loss": float(losses.mean()),
        "log_loss_interval": _plain(metrics.mean_interval(losses)),
        "macro_f1": metrics.macro_f1(truth, probabilities),
        "macro_f1_interval": _plain(metrics.macro_f1_interval(truth, predicted, len(classes))),
        "confusion": matrix.tolist(),
        "per_class": dict(zip(classes, metrics.class_scores(matrix), strict=True)),
    }


def _check_parts(store: Store, model: Model) -> None:
    """Refuse a store, or stores beside each other, of other recipes than the model's."""
    if len(store.parts()) != len(model.parts):
        raise BreedsError(
            f"The model rests on {len(model.parts)} stores and {len(store.parts())} were given; name as "
            f"many with --store, in the same order."
        )
    for (found, _), (wanted, _) in zip(store.parts(), model.parts, strict=True):
        check_recipe(store.path, found, wanted)


def _calibration(truth: metrics.Truth, logits: Floats, temperature: float) -> dict[str, Any]:
    """Measure what the temperature, fitted in training, does to the probabilities of test photos."""
    before, after = softmax(logits * temperature), softmax(logits)
    found: dict[str, Any] = {"temperature": temperature}
    for name, measure in (
        ("ece", metrics.calibration_error),
        ("brier", metrics.brier),
        ("log_loss", metrics.log_loss),
    ):
        found[f"{name}_before"], found[f"{name}_after"] = measure(truth, before), measure(truth, after)
    found["brier_interval"] = _plain(metrics.mean_interval(metrics.brier_scores(truth, after)))
    return found


def _wilson(right: int, n: int) -> list[float]:
    return list(metrics.wilson_interval(right, n))


def _plain(interval: metrics.Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _coverage(
    truth: metrics.Truth, probabilities: metrics.Probabilities, excess: Floats | None
) -> dict[str, Any]:
    """Return accuracy against coverage, leaving out first what is least like a known class."""
    confidence = probabilities.max(axis=1) if excess is None else -excess
    curve = metrics.coverage_curve(truth, probabilities, confidence)
    return {
        "coverage": [[answered / len(truth), right / answered] for answered, right in curve],
        "coverage_interval": [_wilson(right, answered) for answered, right in curve],
    }


def _unknown(
    detector: Detector | None,
    truth: metrics.Truth,
    probabilities: metrics.Probabilities,
    excess: Floats | None,
) -> dict[str, Any] | None:
    """Say how many known photos the threshold keeps, and how good the answers to these are."""
    if detector is None or excess is None:
        return None
    is_kept = excess <= detector.threshold
    kept = int(is_kept.sum())
    right = int((probabilities.argmax(axis=1) == truth)[is_kept].sum())
    return {
        "kept": kept / len(truth),
        "kept_interval": _wilson(kept, len(truth)),
        "kept_aimed_at": detector.keep,
        "accuracy_of_kept": right / kept if kept else None,
        "accuracy_of_kept_interval": _wilson(right, kept) if kept else None,
    }


def compare_models(store: Store, model: Model, other_store: Store, other: Model) -> dict[str, Any]:
    """Compare two models on the labelled photos that neither has seen in training.

    Parameters
    ----------
    store, other_store
        The features of each model's recipe; the photos are those that both stores have.

    Returns
    -------
    dict
        Counts, McNemar's exact p-value, and what it means in words.

    Raises
    ------
    BreedsError
        If their classes differ, a store is of another recipe than its model's, or no photo is left.
    """
    if model.classes != other.classes:
        raise BreedsError("The two models know different classes; compare models of the same classes.")
    _check_parts(store, model)
    _check_parts(other_store, other)
    table, there = store.table, set(other_store.table.key)
    seen = model.seen_keys() | other.seen_keys()
    number = {name: i for i, name in enumerate(model.classes)}
    rows = [
        row
        for row in table.labelled_rows()
        if table.label[row] in number and table.key[row] in there and table.key[row] not in seen
    ]
    if not rows:
        raise BreedsError(
            f"{store.path} has no photo that neither model has seen in training"
            f"{'' if store is other_store else f' and that {other_store.path} has too'}."
        )
    keys = [table.key[row] for row in rows]
    truth = np.array([number[table.label[row]] for row in rows])
    right = model.logits(store.features_of(keys)).argmax(axis=1) == truth
    other_right = other.logits(other_store.features_of(keys)).argmax(axis=1) == truth
    only, only_other = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    p = metrics.mcnemar(only, only_other)
    better = "this model" if only > only_other else "the other model"
    words = (
        f"{better} is better, and that is no accident of these {len(truth)} photos (p = {p:.3g})"
        if p < 0.05
        else f"these {len(truth)} photos do not show that either is better (p = {p:.3g})"
    )
    return {
        "photos": len(truth),
        "accuracy": float(right.mean()),
        "accuracy_interval": _wilson(int(right.sum()), len(truth)),
        "accuracy_other": float(other_right.mean()),
        "accuracy_other_interval": _wilson(int(other_right.sum()), len(truth)),
        "only_this_right": only,
        "only_other_right": only_other,
        "p_value": p,
        "in_words": words,
    }


def _test_rows(store: Store, model: Model) -> tuple[list[int], int]:
    """Return the rows to test on, each different photo once, and how many photos training has seen."""
    table, seen = store.table, model.seen_keys()
    given = "test" in table.split
    rows = [
        row
        for row in table.labelled_rows()
        if (table.split[row] == "test" if given else table.key[row] not in seen)
    ]
    both = [table.path[row] for row in rows if table.key[row] in seen]
    if both:
        raise BreedsError(
            f"{len(both)} photos of the test part of {store.path} were used to train this model, first "
            f"{both[0]}; train it again on this store, or evaluate on other photos."
        )
    if not rows:
        raise BreedsError(
            f"{store.path} has no labelled photo that this model has not seen in training; "
            f"extract photos that it has not seen."
        )
    return rows, len(seen.intersection(table.key))


def write_json(report: dict[str, Any], path: Path) -> None:
    """Write a report as JSON, whole or not at all."""
    with write_aside(path) as aside:
        aside.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="ascii")
