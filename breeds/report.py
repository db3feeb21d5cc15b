"""A model and a store to a report: the table that people read, and the JSON that machines do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from breeds import metrics
from breeds.durable import write_aside
from breeds.errors import BreedsError
from breeds.heads.saved import Model
from breeds.store import Store, check_recipe, versions

_OPTIMISTIC = (
    "The weights have seen ImageNet, and Stanford Dogs and Kaggle's dog photos are ImageNet photos: "
    "on those, these numbers are optimistic."
)
_RANDOM = "The weights are random: these numbers say nothing about real dogs."


def evaluate(store: Store, model: Model) -> dict[str, Any]:
    """Measure a model on the labelled photos of a store that its training has not seen.

    With a manifest's own ``split`` column, on those of its ``test`` part.

    Returns
    -------
    dict
        Plain JSON values; the README lists them.

    Raises
    ------
    BreedsError
        If the recipes differ, a label is no class of the model, no photo is left, or a photo of
        the test part was seen in training.
    """
    check_recipe(store.path, store.recipe, model.recipe)
    rows, seen = _test_rows(store, model)
    table = store.table
    number = {name: i for i, name in enumerate(model.classes)}
    unknown = sorted({table.label[row] for row in rows} - number.keys())
    if unknown:
        raise BreedsError(
            f"{store.path} has photos of {', '.join(unknown[:5])}, which the model does not know; "
            f"train on this store, or extract with --classes."
        )
    truth = np.array([number[table.label[row]] for row in rows])
    probabilities = model.probabilities(store.features(np.array(rows)))
    matrix = metrics.confusion(truth, probabilities.argmax(axis=1), len(model.classes))
    right = int(matrix.diagonal().sum())
    scores = metrics.class_scores(matrix)
    return {
        "accuracy": right / len(rows),
        "accuracy_interval": list(metrics.wilson_interval(right, len(rows))),
        "top3": metrics.accuracy(truth, probabilities, 3),
        "log_loss": metrics.log_loss(truth, probabilities),
        "n_train": model.record["n_train"],
        "n_test": len(rows),
        "n_seen": seen,
        "classes": model.classes,
        "confusion": matrix.tolist(),
        "per_class": dict(zip(model.classes, scores, strict=True)),
        "weights": {"name": model.recipe.weights, "sha256": model.recipe.weights_sha256},
        "recipe": {**json.loads(model.recipe.to_json()), "sha256": model.recipe.digest},
        "head": model.kind,
        "store": str(store.path),
        "caveat": _RANDOM if model.recipe.weights == "random" else _OPTIMISTIC,
        "versions": versions(),
    }


def _test_rows(store: Store, model: Model) -> tuple[list[int], int]:
    """Return the rows to test on, each different photo once, and how many photos training has seen."""
    table, seen = store.table, model.seen_keys()
    given = "test" in table.split
    first: dict[str, int] = {}
    for row, (key, label, split) in enumerate(zip(table.key, table.label, table.split, strict=True)):
        if label and (split == "test" if given else key not in seen):
            first.setdefault(key, row)
    both = [table.path[row] for key, row in first.items() if key in seen]
    if both:
        raise BreedsError(
            f"{len(both)} photos of the test part of {store.path} were used to train this model, first "
            f"{both[0]}; train it again on this store, or evaluate on other photos."
        )
    if not first:
        raise BreedsError(
            f"{store.path} has no labelled photo that this model has not seen in training; "
            f"extract photos that it has not seen."
        )
    return list(first.values()), len(seen.intersection(table.key))


def write_json(report: dict[str, Any], path: Path) -> None:
    """Write a report as JSON, whole or not at all."""
    with write_aside(path) as aside:
        aside.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def as_text(report: dict[str, Any]) -> str:
    """Lay a report out for a terminal."""
    low, high = report["accuracy_interval"]
    lines = [
        f"accuracy  {report['accuracy']:.1%}   (95 % interval {low:.1%} to {high:.1%})",
        f"top 3     {report['top3']:.1%}",
        f"log loss  {report['log_loss']:.4f}",
        f"photos    {report['n_test']} for testing, none of the {report['n_train']} for training",
        f"weights   {report['weights']['name']} ({report['weights']['sha256'][:12]})",
        "",
        *_class_table(report),
        "",
        *_confused(report),
        report["caveat"],
    ]
    return "\n".join(lines)


def _class_table(report: dict[str, Any]) -> list[str]:
    width = max(5, *(len(name) for name in report["classes"]))
    lines = [f"{'class':{width}}  precision  recall     f1  photos"]
    for name, scores in report["per_class"].items():
        lines.append(
            f"{name:{width}}  {scores['precision']:9.3f}  {scores['recall']:6.3f}  "
            f"{scores['f1']:5.3f}  {scores['support']:6d}"
        )
    return lines


def _confused(report: dict[str, Any]) -> list[str]:
    """List the most frequent mistakes, so that a large confusion matrix need not be printed."""
    matrix = np.array(report["confusion"])
    np.fill_diagonal(matrix, 0)
    if not matrix.any():
        return ["no photo was taken for another class", ""]
    names = report["classes"]
    worst = [divmod(int(cell), len(names)) for cell in np.argsort(-matrix, axis=None, kind="stable")[:5]]
    lines = [f"  {matrix[t, p]} × {names[t]} taken for {names[p]}" for t, p in worst if matrix[t, p]]
    return ["most confused:", *lines, ""]
