"""Labelled features to a model: split the photos of a store, fit a head, record how.

Read from top to bottom: `labelled` splits, `choose` takes what the head is fitted to and memory holds, and
`train_head` fits and records. It needs no photo and no network.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds.errors import BreedsError
from breeds.features import Store, versions
from breeds.heads.kinds import Fitted, TrainingData, TrainingSettings
from breeds.heads.model import Model, apply_layers, pack_keys, softmax
from breeds.heads.scikit import limited
from breeds.heads.unknown import JUDGED_ON, fit_detector
from breeds.machine import memory_of_machine
from breeds.metrics import FEW, log_loss
from breeds.split import check_parts, draw_parts, fold_of
from breeds.text import means_unknown

FOLDS = 5
#: Without photos for validation, one of so many folds of the training photos stands in.
_VALIDATION_FOLDS = 8
#: Training holds the features about so many times: as read, standardised, and in the search's folds.
_COPIES = 7
#: However little memory there is, so many photos of a class are trained on, if it has them.
_LEAST_OF_CLASS = 10
Rows = NDArray[np.intp]


def train(
    store: Store | str | os.PathLike[str],
    *,
    head: str = "logistic",
    C: float | None = None,
    seed: int = 0,
    val: float = 0.0,
    balanced: bool = False,
    keep: float = 0.95,
    views: Sequence[Store | str | os.PathLike[str]] = (),
    memory: int | None = None,
) -> Model:
    """Train a head on a store's training part; a fifth of the photos is kept for testing.

    What ``train_head.py`` does, with the same options and the same numbers.

    Parameters
    ----------
    store
        The store, or its file.
    head
        ``logistic``, or ``dense``, which TensorFlow trains in a process of its own.
    C
        Inverse strength of regularisation, 1e-12 to 1e12; None has it chosen by cross-validation.
    seed
        Decides the split, the folds, and the dense head's first weights.
    val
        Share of the photos for validation, from 0 to below 0.7; the dense head decides by them when to stop.
    balanced
        Let every class weigh the same, as the dense head always does.
    keep
        Share of known photos to keep where those of none of the classes are refused, from 0 to below 1.
    views
        Stores of views of the same photos, to train on too; testing is on the photos as they are.
    memory
        Bytes that training may take: where all photos would take more, it is on as many as fit, drawn by key
        and class. None: half of this machine's.

    Returns
    -------
    Model
        In memory; `Model.save` writes it.

    Raises
    ------
    BreedsError
        If an option is wrong, the photos are too few, or features are not finite or all the same.

    Examples
    --------
    >>> import breeds
    >>> model = breeds.train("features/photos.h5", C=0.01)
    >>> model.record["n_train"], model.record["n_test"]
    (25, 5)
    """
    settings = TrainingSettings(head, C, seed, val, balanced, keep, memory)
    return train_head(_opened(store), settings, [_opened(view) for view in views])


def train_head(store: Store, settings: TrainingSettings, views: Sequence[Store] = ()) -> Model:
    """Train as `train` does, on open stores, with everything that training is told in one object."""
    started = time.perf_counter()
    photos = labelled(store, settings.seed, settings.val)
    chosen = choose(photos, settings, _most(store, settings.memory, len(views)))
    features = _features(store, chosen)
    fitted = _fit(features, [view.features_of(chosen.keys) for view in views], chosen, settings)
    unknown = None
    if chosen.folds is not None:
        unknown = fit_detector(features, chosen.targets, chosen.folds, settings.keep)
    logits = apply_layers((features - fitted.mean) / fitted.scale, fitted.layers)
    probabilities = softmax(logits / fitted.temperature)
    return Model(
        kind=settings.head,
        classes=chosen.classes,
        config=store.config,
        weights_path=store.table.weights_path,
        mean=fitted.mean,
        scale=fitted.scale,
        layers=fitted.layers,
        seen=pack_keys([k for k, part in zip(photos.keys, photos.part, strict=True) if part != "test"]),
        tested=pack_keys([k for k, part in zip(photos.keys, photos.part, strict=True) if part == "test"]),
        temperature=fitted.temperature,
        unknown=unknown,
        also=store.parts()[1:],
        networks=store.networks(),
        record={
            **settings.as_record(),
            **fitted.how,
            **_origin(store, views),
            **_counts(photos, chosen),
            "corrections": asdict(store.corrections.effect(store.table)),
            "train_accuracy": float((probabilities.argmax(axis=1) == chosen.targets).mean()),
            "train_log_loss": log_loss(chosen.targets, probabilities),
            "keep_judged_on": JUDGED_ON if unknown else "",
            "seconds": round(time.perf_counter() - started, 2),
            "versions": versions(),
        },
    )


@dataclass(frozen=True)
class Labelled:
    """The labelled photos of a store, each different photo once, and their parts of the split.

    `labels` are as corrected, "" for a photo that a correction leaves out; it keeps its part.
    """

    rows: Rows
    keys: list[str]
    labels: list[str]
    part: NDArray[np.str_]
    unlabelled: int
    duplicates: int


def labelled(store: Store, seed: int, val: float) -> Labelled:
    """Take the labelled, different photos of a store and split them by their labels as they came.

    So no correction moves a photo from one part to another. One that came without a label, and has it from
    a correction, is for training, or whatever the data names it for; for testing it is not used.

    Raises
    ------
    BreedsError
        If they cannot be split into what training and evaluation need.
    """
    table, corrected = store.table, store.corrected
    rows = table.labelled_rows()
    keys, labels, given = ([column[row] for row in rows] for column in (table.key, table.label, table.split))
    part = dict(zip(keys, draw_parts(keys, labels, seed, val, given).tolist(), strict=True))
    for row in np.flatnonzero(corrected.label.given() & ~table.label.given()).tolist():
        if table.key[row] not in part and table.split[row] != "test":
            part[table.key[row]] = table.split[row] or "train"
            rows.append(row)
    rows.sort()
    keys, labels = ([column[row] for row in rows] for column in (table.key, corrected.label))
    if not any(labels):
        raise BreedsError(
            f"The photos in {store.path} have no labels; extract from a folder with a subfolder per "
            f"class, or name a CSV file with --labels."
        )
    parts = [part[key] for key in keys]
    check_parts(keys, labels, parts, val)
    _refuse_unknown(store, labels)
    total = sum(map(part.__contains__, table.key))
    return Labelled(np.array(rows), keys, labels, np.array(parts), len(table) - total, total - len(rows))


def _refuse_unknown(store: Store, labels: Sequence[str]) -> None:
    """Refuse a class that answers could not be told from a refusal by."""
    taken = next(filter(means_unknown, labels), None)
    if taken is not None:
        raise BreedsError(
            f"{store.path} has a class called {taken}, as photos of none of the classes are answered; rename "
            f"the folder or the label and extract again, which computes no photo again, or leave the class "
            f"out with --classes."
        )


@dataclass(frozen=True)
class Chosen:
    """The photos that a head is fitted to, an entry for each.

    `rows` are theirs in the store. `folds` are those of cross-validation, None if a class has a single photo;
    `validation` says which photos a head decides by when to stop. `available` is how many there were to
    choose from: more than are chosen, where memory holds no more.
    """

    rows: Rows
    keys: list[str]
    labels: list[str]
    classes: list[str]
    targets: Rows
    folds: Rows | None
    validation: NDArray[np.bool_]
    available: int


def choose(photos: Labelled, settings: TrainingSettings, most: int) -> Chosen:
    """Choose what a head is fitted to, about `most` photos at most."""
    for_fit = np.isin(photos.part, ("train", "val") if settings.kind.validates else ("train",))
    candidates = np.flatnonzero(for_fit & (np.array(photos.labels) != ""))
    classes = np.array(sorted(set(photos.labels) - {""}))
    targets = np.searchsorted(classes, np.array([photos.labels[i] for i in candidates]))
    drawn = draw([photos.keys[i] for i in candidates], targets, most)
    taken, targets = candidates[drawn], targets[drawn]
    keys, labels = ([column[i] for i in taken] for column in (photos.keys, photos.labels))
    validation = photos.part[taken] == "val"
    if not validation.any():
        validation = fold_of(keys, labels, _VALIDATION_FOLDS, settings.seed) == 0
    folds = min(FOLDS, *Counter(labels).values())
    return Chosen(
        photos.rows[taken],
        keys,
        labels,
        classes.tolist(),
        targets,
        fold_of(keys, labels, folds, settings.seed) if folds > 1 else None,
        validation,
        len(candidates),
    )


def draw(keys: Sequence[str], targets: Rows, most: int) -> Rows:
    """Draw about `most` photos: the same share of every class, those whose keys come first; sorted.

    A key is a digest, so its order is as good as any drawn by lot, and the same on every machine. Of a small
    class `_LEAST_OF_CLASS` are drawn, if it has so many.

    Examples
    --------
    >>> draw([f"{i:064x}" for i in range(40)], np.arange(40) % 2, 24)[:5]
    array([0, 1, 2, 3, 4])
    """
    n = len(keys)
    if n <= most:
        return np.arange(n)
    counts = np.bincount(targets)
    share = np.maximum(counts * max(most, 0) // n, np.minimum(counts, _LEAST_OF_CLASS))
    order = np.lexsort((np.array(keys, dtype="S64"), targets))
    number_in_class = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[number_in_class < share[targets[order]]])


def _most(store: Store, memory: int | None, views: int) -> int:
    """Return how many photos training may hold the features of."""
    width = sum(one.width() for one in (store, *store.also))
    each = _COPIES * (1 + views) * width * np.dtype(np.float32).itemsize
    return int((memory_of_machine() // 2 if memory is None else memory) // each)


def _features(store: Store, chosen: Chosen) -> NDArray[np.float32]:
    """Return the features that a head is fitted to, and refuse those that nothing can be learned from."""
    features = store.features(chosen.rows)
    _check_width(store, features)
    if (features == features[0]).all():
        raise BreedsError(
            f"All training photos in {store.path} have the same features, so nothing tells the classes "
            f"apart; extract again with sound weights."
        )
    return features


def _check_width(store: Store, features: NDArray[np.float32]) -> None:
    """Refuse features of another width than the store's networks give, as far as these are known."""
    widths = [config.width for config, _ in store.parts()]
    if all(widths) and sum(widths) != features.shape[1]:
        raise BreedsError(
            f"{store.path} has {features.shape[1]} features a photo, and its config ({store.config}) gives "
            f"{sum(widths)}; extract again, into another --store."
        )


def _fit(
    features: NDArray[np.float32],
    views: Sequence[NDArray[np.float32]],
    chosen: Chosen,
    settings: TrainingSettings,
) -> Fitted:
    """Fit the head to the photos and, below them, their views."""
    number = 1 + len(views)
    data = TrainingData(
        np.vstack([features, *views]) if views else features,
        np.tile(chosen.targets, number),
        None if chosen.folds is None else np.tile(chosen.folds, number),
        np.tile(chosen.validation, number),
        np.arange(number * len(features)) >= len(features),
    )
    with limited(1):  # where there is work for more threads, a head says so
        return settings.kind.train(data, settings)


def _origin(store: Store, views: Sequence[Store]) -> dict[str, Any]:
    """Say where the features came from; absolute, so that any folder will do to evaluate from."""
    return {
        "store": str(store.path.absolute()),
        "also": [str(other.path.absolute()) for other in store.also],
        "views": [view.config.view for view in views],
    }


def _counts(photos: Labelled, chosen: Chosen) -> dict[str, Any]:
    """Say how many photos had which part, how many of them the head has seen, and which classes are small."""
    used = (np.array(photos.labels) != "") | (photos.part == "test")  # labels as they came are tested too
    parts = Counter(photos.part[used].tolist())
    drawn = len(chosen.rows)
    return {
        "n_train": parts["train"],
        "n_val": parts["val"],
        "n_test": parts["test"],
        **({"n_drawn": drawn, "n_available": chosen.available} if drawn < chosen.available else {}),
        "unlabelled": photos.unlabelled,
        "duplicates": photos.duplicates,
        "few": {label: n for label, n in sorted(Counter(chosen.labels).items()) if n < FEW},
    }


def _opened(store: Store | str | os.PathLike[str]) -> Store:
    return store if isinstance(store, Store) else Store(store)
