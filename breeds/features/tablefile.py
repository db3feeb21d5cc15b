"""The table in a store's file: how it is written, and how it is read."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import h5py

from breeds.config import FeatureConfig
from breeds.features import hdf5
from breeds.features.columns import Names, Texts
from breeds.features.shards import replaced
from breeds.features.table import COLUMNS, Table, Unread, digest_of
from breeds.text import as_here

#: What a store's file says that it is.
FORMAT = "breeds store 1"
#: The table of a store of so many photos is read when a column is asked for, not when the store is opened.
LARGE = 50_000

#: What reads a column of so many rows (None: any number), by its name in the table and in the file.
_COLUMNS: dict[str, Callable[[h5py.File, str, int | None], Any]] = {
    "key": hdf5.read_keys,
    "path": lambda file, name, rows: Texts.of_padded(hdf5.read_text(file, name, rows)),
    "label": lambda file, name, rows: Names.of_padded(hdf5.read_text(file, name, rows)),
    "split": lambda file, name, rows: Names.of_padded(hdf5.read_text(file, name, rows)),
    "size": hdf5.read_numbers,
    "mtime_ns": hdf5.read_numbers,
    "bad_keys": hdf5.read_keys,
}


def write_table(
    file: h5py.File, table: Table, config: FeatureConfig, engine: str, features_sha256: str
) -> None:
    """Write all but the features, and what binds it to them."""
    hdf5.write_attribute(file, "format", FORMAT)
    hdf5.write_attribute(file, "created", time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    hdf5.write_provenance(file, config, engine)
    hdf5.write_keys(file, table.key)
    hdf5.write_keys(file, table.bad_keys, "bad_keys")
    for name in ("path", "label", "split"):
        hdf5.write_text(file, name, getattr(table, name))
    for name in ("size", "mtime_ns"):
        hdf5.write_column(file, name, getattr(table, name))
    hdf5.write_text(file, "quarantine_path", [path for path, _ in table.quarantine])
    hdf5.write_text(file, "quarantine_reason", [reason for _, reason in table.quarantine])
    about = {
        "rows": len(table),
        "bad": len(table.bad_keys),
        "root": table.root,
        "weights_path": table.weights_path,
        "columns": {name: digest_of(getattr(table, name)) for name in (*COLUMNS, "quarantine", "bad_keys")},
    }
    text = json.dumps(about, sort_keys=True)
    hdf5.write_attribute(file, "about", text)
    hdf5.write_attribute(file, "features_sha256", features_sha256)
    hdf5.write_attribute(file, "table_sha256", _bound(text, config, features_sha256))


def read_about(file: h5py.File, config: FeatureConfig, features_sha256: str) -> dict[str, Any]:
    """Read what a store says of itself: ``rows``, ``root``, ``weights_path``, and each column's checksum.

    It is bound to the config and to the features by one checksum over all of it.

    Raises
    ------
    DamagedError
        If it is not what was written.
    """
    text = hdf5.read_attribute(file, "about")
    if hdf5.read_attribute(file, "table_sha256") != _bound(text, config, features_sha256):
        raise hdf5.DamagedError("the table does not match its checksum")
    try:
        about: dict[str, Any] = as_here(json.loads(text))
        wanted = {"rows": int, "bad": int, "root": str, "weights_path": str, "columns": dict}
        if any(type(about[name]) is not kind for name, kind in wanted.items()) or about["rows"] < 0:
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise hdf5.DamagedError("what it says of itself cannot be read") from None
    return about


def read_table(path: Path, file: h5py.File, about: dict[str, Any]) -> Table:
    """Return the table, whose columns are read now, or when they are asked for if they are large.

    Raises
    ------
    DamagedError
        If it is not what was written.
    """
    columns = {name: read_column(path, file, about, name) for name in (*COLUMNS, "bad_keys")}
    table = Table(about["root"], about["weights_path"], **columns, quarantine=_read_quarantine(file))
    if digest_of(table.quarantine) != about["columns"].get("quarantine"):
        raise hdf5.DamagedError("the table does not match its checksum")
    return table


def read_column(path: Path, file: h5py.File, about: dict[str, Any], name: str) -> Any:
    """Return a column of a store, `Unread` if it is large.

    Raises
    ------
    DamagedError
        If it is not what was written.
    """
    rows, known = about["bad" if name == "bad_keys" else "rows"], about["columns"].get(name)
    table_sha256 = hdf5.read_attribute(file, "table_sha256")

    def read(file: h5py.File) -> Any:
        values = _COLUMNS[name](file, name, rows)
        if digest_of(values) != known:
            raise hdf5.DamagedError("the table does not match its checksum")
        return values

    def read_later() -> Any:
        with hdf5.open_hdf5(path) as again:
            if not hdf5.has(again, "table_sha256") or (
                hdf5.read_attribute(again, "table_sha256") != table_sha256
            ):
                raise replaced(path)
            return read(again)

    return read(file) if rows < LARGE else Unread(rows, read_later)


def _bound(about: str, config: FeatureConfig, features_sha256: str) -> str:
    return hashlib.sha256(f"{about} {config.to_json()} {features_sha256}".encode()).hexdigest()


def _read_quarantine(file: h5py.File) -> list[tuple[str, str]]:
    found = []
    columns = [
        (text for block in hdf5.read_text(file, f"quarantine_{column}") for text in block.tolist())
        for column in ("path", "reason")
    ]
    for path, reason in zip_longest(*columns):
        if not path or not reason:  # a file may claim any number of empty ones
            raise hdf5.DamagedError("quarantine_path and quarantine_reason do not fit each other")
        found.append((os.fsdecode(path), os.fsdecode(reason)))
    return found
