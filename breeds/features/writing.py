"""Writing a store's file: aside, fsynced and renamed; what is there already is copied by the kernel."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

import h5py

from breeds.config import FeatureConfig, Network
from breeds.features import hdf5
from breeds.features.columns import Keys, Texts
from breeds.features.datasets import (
    BLOCK_ROWS,
    Rowwise,
    as_blocks,
    key_blocks,
    read_digests,
    text_blocks,
    write_column,
    write_features,
)
from breeds.features.store import FORMAT, Store, identity
from breeds.features.table import Table
from breeds.files import write_aside


def write_store(
    path: Path,
    table: Table,
    config: FeatureConfig,
    features: Rowwise,
    engine: str,
    unused: tuple[Keys, Rowwise] | None = None,
    network: Network | None = None,
) -> None:
    """Write the store `path`, a few rows in memory at a time.

    Parameters
    ----------
    features
        Of each row of `table`: sliced, float32 (n, width).
    engine
        What computed them.
    unused
        Keys and features of photos that are not in the table.
    network
        The network of int8.

    Raises
    ------
    BreedsError
        If what is read is damaged, or `path` cannot be written.
    """
    with write_aside(path) as aside, hdf5.create_hdf5(aside) as file:
        hdf5.write_attribute(file, "format", FORMAT)
        if network is not None:
            for name in ("xml", "bin"):
                file.create_dataset(f"network/{name}", data=getattr(network, name))
        digests = {"block_sha256": write_features(file, len(table), features)}
        if unused is not None and len(unused[0]):
            keys, rows = unused
            group = file.create_group("unused")
            digests["unused/key"] = write_column(group, "key", key_blocks(keys), len(keys))
            digests["unused/block_sha256"] = write_features(group, len(keys), rows)
        _write_table(file, table, config, engine, len(unused[0]) if unused else 0, digests)


def extend_store(store: Store, table: Table, features: Rowwise, engine: str) -> None:
    """Write a store anew whose first rows are of the same photos: their features are copied as they are.

    Parameters
    ----------
    table
        As it shall be; labels, paths and all else may be others.
    features
        Of each row of `table`, of which only the last are read.

    Raises
    ------
    BreedsError
        If what is read is damaged, or the file cannot be written.
    """
    with store.opened() as file:
        known = read_digests(file, len(store), store.about["digests"]["block_sha256"])
    whole = len(store) // BLOCK_ROWS
    with write_aside(store.path) as aside:
        _copy(Path(os.path.realpath(store.path)), aside)
        with hdf5.change_hdf5(aside) as file:
            if hdf5.read_attribute(file, "sha256") != store.sha256:
                raise hdf5.replaced(store.path)
            digests = {name: digest for name, digest in store.about["digests"].items() if "/" in name}
            digests["block_sha256"] = write_features(
                file, len(table), features, whole * BLOCK_ROWS, known[: 32 * whole]
            )
            _write_table(file, table, store.config, engine, store.about["unused"], digests)


def _copy(source: Path, target: Path) -> None:
    """Copy a file's bytes into one that is there; where the file system can, they are shared."""
    with open(source, "rb") as old, open(target, "r+b") as new:
        rest = os.fstat(old.fileno()).st_size
        with suppress(OSError):  # not every file system can
            while rest and (copied := os.copy_file_range(old.fileno(), new.fileno(), rest)):
                rest -= copied
    if rest:
        shutil.copyfile(source, target)


def _write_table(
    file: h5py.File, table: Table, config: FeatureConfig, engine: str, unused: int, digests: dict[str, str]
) -> None:
    """Write all but the features, in place of what is there, and what binds everything."""
    hdf5.write_attribute(file, "created", time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    hdf5.write_provenance(file, config, engine)
    digests["key"] = write_column(file, "key", key_blocks(table.key), len(table))
    rejected = {
        "rejected_path": Texts.of(path for path, _ in table.rejected),
        "rejected_reason": Texts.of(reason for _, reason in table.rejected),
    }
    texts = {name: getattr(table, name) for name in ("path", "label", "split")} | rejected
    for name, values in texts.items():
        digests[name] = write_column(file, name, text_blocks(values), len(values))
    for name in ("size", "mtime_ns"):
        digests[name] = write_column(file, name, as_blocks(getattr(table, name)), len(table))
    about = {
        "rows": len(table),
        "unused": unused,
        "root": table.root,
        "weights_path": table.weights_path,
        "digests": digests,
    }
    text = json.dumps(about, sort_keys=True)
    hdf5.write_attribute(file, "about", text)
    hdf5.write_attribute(file, "sha256", identity(text, config))
