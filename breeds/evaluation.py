"""A model and a store to a report: every number, as plain values, and the JSON that machines read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds import metrics
from breeds.errors import BreedsError
from breeds.features import Store, versions
from breeds.files import write_aside
from breeds.heads.model import Model, check_stores, softmax
from breeds.heads.unknown import Detector
from breeds.metrics import wilson_interval

Floats = NDArray[np.float64]

_OPTIMISTIC = (
    "The weights have seen ImageNet, and Stanford Dogs and Kaggle's dog photos are ImageNet photos: "
    "on those, these numbers are optimistic."
)
_RANDOM = "The weights are random: these numbers say nothing about real dogs."
# Photos that are read and answered at once, and bytes of features that are kept for the report's map.
_BATCH, _KEPT = 4096, 2**28
#: Why the second of two numbers is not the first.
FLATTERS = (
    "Numbers with labels as corrected may flatter: whoever corrects labels where a model disagrees finds "
    "the labels that are wrong where it is right, and hardly those that are wrong where it agrees."
)


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
        Their classes' numbers by the labels as they came, shape (n,).
    kept
        Their features, float32 (n, width), if they are few; `features_of` reads them else.
    logits
        float64 (n, classes).
    excess
        By how much each is farther from its nearest class than is typical, float64 (n,); None
        where the model knows nothing of the unknown.
    n_seen
        How many photos of the store training has seen.
    corrected
        The same by the labels as corrected, if a correction gives a tested photo another label.
    """

    store: Store
    model: Model
    rows: NDArray[np.intp]
    truth: metrics.Truth
    kept: NDArray[np.float32] | None
    logits: Floats
    excess: Floats | None
    n_seen: int
    corrected: Corrected | None = None

    def features_of(self, places: NDArray[np.intp] | list[int]) -> NDArray[np.float32]:
        """Return the features of the tested photos at `places`, float32 (len(places), width)."""
        return self.store.features(self.rows[places]) if self.kept is None else self.kept[places]

    @cached_property
    def probabilities(self) -> Floats:
        """Of each class, float64 (n, classes)."""
        return softmax(self.logits)


@dataclass(frozen=True)
class Corrected:
    """A model's answers for the tested photos that no correction leaves out.

    Attributes
    ----------
    truth
        Their classes' numbers by the labels as corrected, shape (n,).
    logits
        float64 (n, classes).
    labels
        By row of the store, what the changed labels are now; "" where the photo is left out.
    n_gone
        How many tested photos came with a label that is no class of the model any more: by labels as they
        came they cannot be judged.
    """

    truth: metrics.Truth
    logits: Floats
    labels: dict[int, str]
    n_gone: int


def answer_test_photos(store: Store, model: Model) -> Tested:
    """Let a model answer for the photos that it is to be tested on.

    With a manifest's own ``split`` column these are its ``test`` part. Which they are is decided by labels
    as they came; a photo without one is not tested, whatever the corrections say.

    Raises
    ------
    BreedsError
        If the configs differ, a label is no class of the model, no photo is left, or a photo of
        the test part was seen in training.
    """
    check_stores(store, model)
    all_rows, seen = _test_rows(store, model)
    truth, corrected = _truths(store, model, all_rows)
    is_known = truth >= 0
    if not is_known.any():
        raise BreedsError(
            f"All tested photos of {store.path} came with labels that are no classes of the model, which "
            f"knows them only as corrected; rename their folders and extract again, which computes nothing."
        )
    rows = np.array(all_rows)
    kept, logits, excess = _answer(store, model, rows)
    return Tested(
        store,
        model,
        rows[is_known],
        truth[is_known],
        None if kept is None else kept[is_known],
        logits[is_known],
        None if excess is None else excess[is_known],
        seen,
        _corrected(store, all_rows, truth, corrected, logits),
    )


def _answer(
    store: Store, model: Model, rows: NDArray[np.intp]
) -> tuple[NDArray[np.float32] | None, Floats, Floats | None]:
    """Return features, if they are few, logits, and how far from typical, of photos in a store."""
    kept, logits, excess = [], [], []
    for start in range(0, len(rows), _BATCH):
        features = store.features(rows[start : start + _BATCH])
        logits.append(model.logits(features))
        if model.unknown:
            excess.append(model.unknown.excess(features))
        if len(rows) * features[0].nbytes <= _KEPT:
            kept.append(features)
    return (
        np.concatenate(kept) if kept else None,
        np.concatenate(logits),
        np.concatenate(excess) if model.unknown else None,
    )


def _truths(store: Store, model: Model, rows: list[int]) -> tuple[metrics.Truth, metrics.Truth]:
    """Return the numbers of photos' classes, by labels as they came and as corrected.

    -1 stands for a photo that is left out, and, as it came, for a label that was corrected and is no class of
    the model.
    """
    number = {name: i for i, name in enumerate(model.classes)}
    came, now = ([table.label[row] for row in rows] for table in (store.table, store.corrected))
    unknown = sorted({name for name in now if name} - number.keys())
    if unknown:
        way = "--no-corrections" if set(unknown) - set(came) else "extract with --classes"
        raise BreedsError(
            f"{store.path} has photos of {', '.join(unknown[:5])}, which the model does not know; "
            f"train on this store, or {way}."
        )
    numbers = [np.array([number.get(name, -1) for name in names]) for names in (came, now)]
    return numbers[0], numbers[1]


def _corrected(
    store: Store, rows: list[int], truth: metrics.Truth, corrected: metrics.Truth, logits: Floats
) -> Corrected | None:
    """Return the answers by labels as corrected, None if no label is another by that."""
    changed = {row: name for row in rows if (name := store.corrected.label[row]) != store.table.label[row]}
    if not changed:
        return None
    left = corrected >= 0
    return Corrected(corrected[left], logits[left], changed, int((truth < 0).sum()))


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
        "corrections": asdict(tested.store.corrections.effect(tested.store.table)),
        "corrected": _as_corrected(tested),
        "classes": model.classes,
        "weights": {"name": model.config.weights, "sha256": model.config.weights_sha256},
        "config": {**json.loads(model.config.to_json()), "sha256": model.config.digest},
        "head": model.kind,
        "store": str(tested.store.path),
        "caveat": _RANDOM if model.config.weights == "random" else _OPTIMISTIC,
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
        "accuracy_interval": wilson_interval(right, len(truth)),
        "top3": among / len(truth),
        "top3_interval": wilson_interval(among, len(truth)),
        "log_loss": float(losses.mean()),
        "log_loss_interval": metrics.mean_interval(losses),
        "macro_f1": metrics.macro_f1(truth, probabilities),
        "macro_f1_interval": metrics.macro_f1_interval(truth, predicted, len(classes)),
        "confusion": matrix.tolist(),
        "per_class": dict(zip(classes, metrics.class_scores(matrix), strict=True)),
    }


def _as_corrected(tested: Tested) -> dict[str, Any] | None:
    """Measure a model by labels as corrected, where they differ on tested photos."""
    found = tested.corrected
    if found is None:
        return None
    left_out = sum(not label for label in found.labels.values())
    counts = {
        "n_test": len(found.truth),
        "relabelled": len(found.labels) - left_out,
        "left_out": left_out,
        "n_gone": found.n_gone,
        "caveat": FLATTERS,
    }
    names = ("accuracy", "accuracy_interval", "log_loss", "log_loss_interval")
    if not len(found.truth):
        return counts | dict.fromkeys(names)
    scores = _scores(found.truth, softmax(found.logits), tested.model.classes)
    return counts | {name: scores[name] for name in names}


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
    found["brier_interval"] = metrics.mean_interval(metrics.brier_scores(truth, after))
    return found


def _coverage(
    truth: metrics.Truth, probabilities: metrics.Probabilities, excess: Floats | None
) -> dict[str, Any]:
    """Return accuracy against coverage, leaving out first what is least like a known class."""
    confidence = probabilities.max(axis=1) if excess is None else -excess
    curve = metrics.coverage_curve(truth, probabilities, confidence)
    return {
        "coverage": [[answered / len(truth), right / answered] for answered, right in curve],
        "coverage_interval": [wilson_interval(right, answered) for answered, right in curve],
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
        "kept_interval": wilson_interval(kept, len(truth)),
        "kept_aimed_at": detector.keep,
        "accuracy_of_kept": right / kept if kept else None,
        "accuracy_of_kept_interval": wilson_interval(right, kept) if kept else None,
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
