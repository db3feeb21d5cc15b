"""A store as a table for other tools: what is known of each photo, what a model says of it, its features."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds.features import Store
from breeds.features.columns import PACKED, locate
from breeds.heads.model import Model, check_stores
from breeds.labels import UNKNOWN
from breeds.outputs import FEATURES_PARQUET
from breeds.parquet import Column, written

#: Bytes of features in a row group, and rows at most.
GROUP_BYTES, GROUP_ROWS = 2**24, 2**14


def export_features(store: Store, path: Path, model: Model | None = None) -> int:
    """Write a row for each photo of a store, a row group in memory at a time, and return how many there are.

    Parameters
    ----------
    store
        The store, or stores beside each other; labels are as corrected, if its corrections were asked for.
    path
        The file of Parquet; `docs/tables.md` lists its columns.
    model
        Adds what it says of every photo.

    Raises
    ------
    BreedsError
        If the store is damaged or not the model's, or the file cannot be written.
    """
    if model is not None:
        check_stores(store, model)
    width = sum(one.width() for one in (store, *store.also))
    columns: dict[str, Column] = dict.fromkeys(("key", "path", "label", "split"), str)
    if model is not None:
        columns |= {"breed": str, "probability": float, "guess": str, "unknown_score": float}
        columns |= dict.fromkeys(_shares(model), float)
    columns["features"] = width
    rows = min(GROUP_ROWS, GROUP_BYTES // (4 * max(1, width)) or 1)
    with written(path, columns, FEATURES_PARQUET, _about(store, model)) as append:
        start = 0
        for features in store.blocks(rows):
            block = _known(store, model, slice(start, start + len(features)))
            if model is not None:
                block |= _said(model, features)
            append({**block, "features": features})
            start += len(features)
    return start


def _shares(model: Model) -> list[str]:
    """Return the names of the columns of a model's probabilities, in the order of its classes."""
    return [f"p_{name}" for name in model.classes]


def _about(store: Store, model: Model | None) -> dict[str, Any]:
    """Return what the file says of itself: where paths start, configs, and what the model's numbers mean."""
    config, *also = [json.loads(config.to_json()) for config, _ in store.parts()]
    about = {"root": store.table.root, "config": config, "also": also}
    if model is not None:
        threshold = model.unknown.threshold if model.unknown else None
        about |= {"classes": model.classes, "unknown_threshold": threshold}
    return about


def _known(store: Store, model: Model | None, rows: slice) -> dict[str, Any]:
    """Return what is known of some photos without their features."""
    table = store.corrected
    split = [part or None for part in table.split[rows]]
    return {
        "key": table.key[rows],
        "path": table.path[rows],
        "label": [label or None for label in table.label[rows]],
        "split": split if model is None else list(_parts(model, table.key.packed[rows], split)),
    }


def _parts(model: Model, keys: NDArray[np.bytes_], named: list[str | None]) -> Iterator[str | None]:
    """Yield the part that each photo had for a model: what the data names it for, if it says nothing."""
    seen, tested = (
        locate(np.sort(np.ascontiguousarray(known).view(PACKED).ravel()), keys) >= 0
        for known in (model.seen, model.tested)
    )
    for was_seen, was_tested, name in zip(seen, tested, named, strict=True):
        yield (name if name == "val" else "train") if was_seen else "test" if was_tested else name


def _said(model: Model, features: NDArray[np.float32]) -> dict[str, Any]:
    """Return what a model says of some photos."""
    shares = model.probabilities(features)
    best = shares.argmax(axis=1)
    guess = [model.classes[i] for i in best]
    excess = model.unknown.excess(features) if model.unknown else None
    strange = model.unknown.is_unknown(features) if model.unknown else np.zeros(len(best), dtype=bool)
    return {
        "breed": [UNKNOWN if is_strange else name for name, is_strange in zip(guess, strange, strict=True)],
        "probability": shares.max(axis=1),
        "guess": guess,
        "unknown_score": [None] * len(best) if excess is None else excess,
        **dict(zip(_shares(model), shares.T, strict=True)),
    }
