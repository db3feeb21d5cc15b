"""Photos to features: what is missing, in which order, beside the engine; bad photos set aside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from breeds.backbones import Engine
from breeds.backbones.pipeline import Pipeline
from breeds.backbones.resolve import open_engine, resolve
from breeds.config import FeatureConfig, Network
from breeds.extraction.calibration import calibrated
from breeds.extraction.missing import extract_missing
from breeds.extraction.table import make_table, refuse_another_data_set, refuse_nothing_left
from breeds.features import (
    FeatureLookup,
    Store,
    Table,
    check_config,
    extend_store,
    journal_folder,
    lock_file,
    write_store,
)
from breeds.features.columns import first_of_each
from breeds.features.journal import clear
from breeds.files import check_writable, hold
from breeds.photos import find_photos
from breeds.selection import Selection

if TYPE_CHECKING:
    from breeds.backbones.ray import RayPipeline

__all__ = ["Summary", "extract"]


@dataclass(frozen=True)
class Summary:
    """What an extraction did: ``photos == features + len(quarantined)``, always.

    `damaged` are parts of the journal that were set aside. `nodes` says of a cluster's nodes how many photos
    each has computed, and `rate` how many they all did in a second. `notes` say what was left out.
    """

    store: Path
    config: FeatureConfig
    photos: int
    features: int
    new: int
    changed: bool
    duplicates: int
    notes: list[str]
    quarantined: list[tuple[str, str]]
    damaged: list[Path]
    seconds: float
    nodes: Mapping[str, int] = field(default_factory=dict)
    rate: float = 0.0


def extract(
    selection: Selection,
    store: Path,
    config: FeatureConfig,
    workers: int = 2,
    trust_mtime: bool = False,
    plain: Path | None = None,
    cluster: RayPipeline | None = None,
    engine: str | Engine = "auto",
) -> Summary:
    """Bring the store up to date with the photos selected; only what is missing is computed.

    Memory holds the pixels and features under way, and for each photo a few hundred bytes: its line in
    the table as it was and as it will be (100 each), where its feature is (40), and its listing (150);
    all in all the process grew by 0.6 kB a photo (``benchmarks/memory.py``).

    Parameters
    ----------
    selection, config
        Which photos, and by which config (`breeds.backbones.resolve.resolve` fills in what it leaves open).
    store
        The HDF5 file to write; what is committed meanwhile lies in the folder ``NAME.journal`` beside it.
    workers
        Threads that read and decode.
    trust_mtime
        Take a file whose path, size and time have not changed for unchanged, without reading it.
    plain
        For a view: the store of the photos as they are, whose int8 network it shares.
    cluster
        Where photos are read and computed instead of here; journal and store are written here all the same.
    engine
        What computes, as in `breeds.backbones.resolve.open_engine`.

    Raises
    ------
    BreedsError
        If a user's mistake leaves nothing to do, another process writes the store, or the store is
        another data set's or config's.

    Examples
    --------
    >>> photos, store = Selection(Path("photos")), Path("features/photos.h5")
    >>> summary = extract(photos, store, FeatureConfig(size=224))  # doctest: +SKIP
    """
    started = time.perf_counter()
    check_writable(store)
    listing = find_photos(selection)
    config, weights = resolve(config, engine)
    old = _open_old(store, config)
    table, photo_of = make_table(listing, old.table if old and trust_mtime else None, workers, cluster)
    table.weights_path = "" if weights.path is None else os.path.abspath(weights.path)
    photos = len(table) + len(table.rejected)
    del old  # it is read again under the lock

    with hold(lock_file(store), str(store)):
        old = _open_old(store, config)  # another run may have just finished
        if old is not None:
            refuse_another_data_set(store, old.table, table)
        config, network = calibrated(config, store, old, plain, table, lambda: weights)
        if old is not None:
            check_config(store, old.config, config)
        lookup = FeatureLookup(store, config, old)
        for shard in lookup.damaged:
            shard.rename(shard.with_suffix(".damaged"))
        opener = partial(open_engine, config, lambda: weights, engine, network)
        if cluster is not None:
            cluster.prepare(lambda: weights, network)
        computing = nullcontext(cluster) if cluster is not None else Pipeline(opener, workers)
        with computing as pipeline:
            table, new = extract_missing(table, lookup, journal_folder(store), pipeline, photo_of)
        refuse_nothing_left(table)
        name = pipeline.name or (old.engine if old else "")
        changed = _write(store, old, table, lookup, name, network)
        clear(journal_folder(store), lookup.shards)
    return Summary(
        store=store,
        config=config,
        photos=photos,
        features=len(table),
        new=new,
        changed=changed,
        duplicates=len(table) - len(table.key.first_rows()),
        notes=listing.said(),
        quarantined=table.rejected,
        damaged=lookup.damaged,
        seconds=time.perf_counter() - started,
        **(cluster.said() if cluster is not None else {}),
    )


def _open_old(store: Path, config: FeatureConfig) -> Store | None:
    """Open the store as it is, if there is one of this config, whatever photos int8 was calibrated on."""
    if not store.exists():
        return None
    old = Store(store, corrected=False)
    check_config(store, old.config, replace(config, calibration=old.config.calibration))
    return old


def _write(
    path: Path,
    old: Store | None,
    table: Table,
    lookup: FeatureLookup,
    engine: str,
    network: Callable[[], Network | None],
) -> bool:
    """Write the store, if it has not all that is known already, and say whether it was written.

    Where its photos are all among the new ones, in whatever order, these come after them.
    """
    keys = lookup.keys()
    keys = keys.take(first_of_each(keys.packed))
    unused = keys.take(np.flatnonzero(~np.isin(keys.packed, table.key.packed)))
    if old is not None and np.array_equal(unused.packed, old.unused.packed):
        longer = table.after(old.table.key)
        if longer is not None and longer == old.table:
            return False
        if longer is not None:
            extend_store(old, longer, lookup.rows(longer.key), engine)
            return True
    rows, rest = lookup.rows(table.key), lookup.rows(unused)
    write_store(path, table, lookup.config, rows, engine, (unused, rest), network())
    return True
