"""A head fitted to features that are read in batches, again for each step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from breeds.features import Store
from breeds.heads import batched
from breeds.heads.model import softmax
from breeds.training.fits import Done, Fitted, all_the_same, check_width, fit_logistic, scores_of
from breeds.training.photos import Chosen, Rows, folds_of
from breeds.workers import run_ahead

#: Photos that are read at once; photos that C is chosen on, and of each class at least, if it has so many.
_BATCH, _SAMPLE, _OF_CLASS = 4096, 12_000, 10


def in_batches(
    store: Store,
    chosen: Chosen,
    views: Sequence[Store],
    C: float | None,
    balanced: bool,
    keep: float,
    seed: int,
) -> Done:
    """Train the logistic head on features that are read in batches, again for each step.

    C is chosen on a sample in memory: it says how large weights may be, whatever the number of photos.
    """
    n, number = len(chosen.rows), 1 + len(views)
    counts = np.bincount(chosen.targets).astype(np.float64)
    each = n / len(counts) / counts[chosen.targets] if balanced else np.ones(n)
    parts = [(store, chosen.rows), *((view, view.rows_of(chosen.keys)) for view in views)]
    stream = batched.Stream(
        partial(_batches, parts), np.tile(chosen.targets, number), np.tile(each, number).astype(np.float32)
    )
    photos = replace(stream, targets=chosen.targets, weights=np.ones(n, dtype=np.float32))
    standard = batched.standardise(stream)
    if (standard.scale == 1).all():
        raise all_the_same(store)
    few = _sample(chosen.targets)
    keys, labels = ([column[i] for i in few] for column in (chosen.keys, chosen.labels))
    features = store.features(chosen.rows[few])
    check_width(store, features)
    found = fit_logistic(features, chosen.targets[few], folds_of(keys, labels, seed), C, balanced)
    if "C_at_edge" in found.how:
        found.how["C_chosen_by"] += f" on {len(few)} of the {n} photos"
    start = batched.Solution(*found.layers[0]).moved(batched.Standard(found.mean, found.scale), standard)
    along = batched.directions(standard.of(features), start, found.how["C"], float(stream.weights.sum()))
    arguments = stream, standard, found.how["C"], start, along
    if chosen.folds is None:
        solution, temperature, unknown = batched.fit(*arguments), 1.0, None
    else:
        solution, temperature = batched.fit_with_temperature(*arguments, np.tile(chosen.folds == 0, number))
        unknown = batched.fit_detector(photos, chosen.folds, solution.weights.shape, keep)
    how = {**found.how, "in_batches": True, "steps": solution.steps}
    fitted = Fitted(*standard, [(solution.weights, solution.bias)], temperature, how)
    right, loss = 0.0, 0.0
    for rows, part in photos:
        logits = solution.logits(standard.of(part)).astype(np.float64)
        scores = scores_of(chosen.targets[rows], softmax(logits / temperature))
        right += scores["train_accuracy"] * len(rows) / n
        loss += scores["train_log_loss"] * len(rows) / n
    return Done(fitted, unknown, {"train_accuracy": right, "train_log_loss": loss})


def _batches(parts: list[tuple[Store, Rows]], wanted: Rows) -> Iterator[batched.Batch]:
    """Yield the features of training photos, and of their views behind them; the next are read meanwhile."""
    n = len(parts[0][1])
    pieces = [
        (number, rows)
        for number in range(len(parts))
        for rows in _cut(wanted[(wanted >= number * n) & (wanted < (number + 1) * n)])
    ]

    def read(piece: tuple[int, Rows]) -> NDArray[np.float32]:
        store, rows_of = parts[piece[0]]
        return store.features(rows_of[piece[1] - piece[0] * n])

    with ThreadPoolExecutor(1) as pool:
        for (_, rows), features in run_ahead(pool, read, pieces, window=2):
            yield batched.Batch(rows, features)


def _cut(rows: Rows) -> list[Rows]:
    return [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]


def _sample(targets: Rows) -> Rows:
    """Return about `_SAMPLE` of the photos, `_OF_CLASS` of each class at least, spread evenly."""
    found = []
    for number, count in enumerate(np.bincount(targets)):
        some = max(min(count, _OF_CLASS), round(count * _SAMPLE / len(targets)))
        of_class = np.flatnonzero(targets == number)
        found.append(of_class[np.linspace(0, count - 1, min(some, count)).astype(np.intp)])
    return np.sort(np.concatenate(found))
