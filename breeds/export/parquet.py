"""Tables as Parquet for other tools: a store, what is known of each photo and what a model says of it.

A table is written block by block, so memory holds one block of rows, however many there are. pyarrow is
loaded when it is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds.features import Store
from breeds.features.columns import PACKED, locate
from breeds.files import write_aside
from breeds.heads.model import Model, check_stores
from breeds.outputs import FEATURES_PARQUET, Kind
from breeds.text import UNKNOWN

#: What a column holds: text, numbers (float64), or so many float32 in each row.
Column = type[str] | type[float] | int
#: Takes the columns of a block of rows, by name: sequences with None where there is nothing, or arrays.
Append = Callable[[Mapping[str, Any]], None]
_DIFFERENT = ("key", "path")
# What stands for bytes of a name that are no Unicode, which Parquet's text cannot hold.
_NO_UNICODE = dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")


def text(name: str) -> str:
    r"""Return text that Parquet can hold: as it is, but for bytes that are no Unicode.

    Examples
    --------
    >>> ascii(text("caf\udce9\n"))
    "'caf\\ufffd\\n'"
    """
    return name.translate(_NO_UNICODE)


@contextmanager
def written(
    path: Path, columns: Mapping[str, Column], kind: Kind, about: Mapping[str, Any]
) -> Iterator[Append]:
    """Give a function that appends a block of rows, a row group each; the file is whole or not there at all.

    Parameters
    ----------
    columns
        What each column holds, in order.
    kind
        What the file is, which it says of itself.
    about
        Plain JSON values that it says too, in its metadata under ``breeds``.

    Raises
    ------
    BreedsError
        If the disk is full or the place cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    def typed(column: Column) -> Any:
        if isinstance(column, int):
            return pa.list_(pa.field("element", pa.float32(), nullable=False), column)
        return pa.string() if column is str else pa.float64()

    schema = pa.schema([(text(name), typed(column)) for name, column in columns.items()])

    def array(values: Any, column: Column) -> Any:
        if isinstance(column, int):
            return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=typed(column))
        if column is str:
            values = [value if value is None else text(value) for value in values]
        return pa.array(values, type=typed(column))

    def append(block: Mapping[str, Any]) -> None:
        arrays = [array(block[name], column) for name, column in columns.items()]
        writer.write_batch(pa.record_batch(arrays, schema=schema))

    with write_aside(path) as aside, open(aside, "wb") as file:
        # Of what is different in each row a dictionary would only be given up again.
        repeated = [name for name, column in columns.items() if column is str and name not in _DIFFERENT]
        words = list(map(text, repeated))
        with parquet.ParquetWriter(file, schema, compression="zstd", use_dictionary=words) as writer:
            yield append
            # In the file's own metadata: a table that others make of this one does not say so of itself.
            writer.add_key_value_metadata({"breeds": json.dumps({**about, "format": kind.mark})})


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
