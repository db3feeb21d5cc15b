"""What a head is trained on: the labelled photos of a store, their parts of the split, and their folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from breeds.errors import BreedsError
from breeds.features import Store
from breeds.labels import means_unknown
from breeds.split import check_parts, draw_parts, fold_of

FOLDS = 5
DENSE_VALIDATION_FOLDS = 8
Rows = NDArray[np.intp]


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
    `decides` says which photos the dense head decides by when to stop.
    """

    rows: Rows
    keys: list[str]
    labels: list[str]
    classes: list[str]
    targets: Rows
    folds: Rows | None
    decides: NDArray[np.bool_]


def choose(photos: Labelled, head: str, seed: int) -> Chosen:
    """Choose what a head is fitted to; the dense head takes the photos for validation along."""
    for_fit = np.isin(photos.part, ("train", "val") if head == "dense" else ("train",))
    for_fit &= np.array(photos.labels) != ""
    keys, labels = ([column[i] for i in np.flatnonzero(for_fit)] for column in (photos.keys, photos.labels))
    decides = photos.part[for_fit] == "val"
    if head == "dense" and not decides.any():
        decides = fold_of(keys, labels, DENSE_VALIDATION_FOLDS, seed) == 0
    classes = sorted(set(photos.labels) - {""})
    targets = np.searchsorted(np.array(classes), np.array(labels))
    return Chosen(photos.rows[for_fit], keys, labels, classes, targets, folds_of(keys, labels, seed), decides)


def folds_of(keys: Sequence[str], labels: Sequence[str], seed: int) -> Rows | None:
    """Return the fold of each photo, None if a class has a single one."""
    folds = min(FOLDS, *Counter(labels).values())
    return fold_of(keys, labels, folds, seed) if folds > 1 else None
