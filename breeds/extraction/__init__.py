"""Photos to features: what is missing, in which order, beside the engine; bad photos set aside."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from breeds.backbones.pipeline import Pipeline
from breeds.backbones.resolve import open_engine, resolve
from breeds.config import FeatureConfig
from breeds.extraction.asked import Selection
from breeds.extraction.missing import extract_missing
from breeds.extraction.table import make_table, refuse_another_data_set, refuse_nothing_left
from breeds.features import (
    FeatureIndex,
    Store,
    Table,
    assemble,
    check_config,
    lock_file,
    shard_folder,
)
from breeds.features.calibration import calibrated
from breeds.files import check_writable, hold
from breeds.photos import Listing

if TYPE_CHECKING:
    from breeds.backbones.ray import RayPipeline

__all__ = ["Selection", "Summary", "extract"]


@dataclass(frozen=True)
class Summary:
    """What an extraction did: ``photos == features + len(quarantined)``, always.

    `damaged` are shards that were set aside, `mended` says what was wrong with the store as it was: nothing
    was taken from it then. `nodes` says of a cluster's nodes how many photos each has computed, and `rate`
    how many they all did in a second.
    """

    store: Path
    config: FeatureConfig
    photos: int
    features: int
    new: int
    changed: bool
    duplicates: int
    ignored: int
    missing: int
    quarantined: list[tuple[str, str]]
    damaged: list[Path]
    mended: str
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
    engine: str = "auto",
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
        The HDF5 file to write; its shards go to the folder ``NAME.shards`` beside it.
    workers
        Threads that read and decode.
    trust_mtime
        Take a file whose path, size and time have not changed for unchanged, without reading it.
    plain
        For a view: the store of the photos as they are, whose int8 network it shares.
    cluster
        Where photos are read and computed instead of here; shards and store are written here all the same.
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
    listing = selection.streamed() or selection.find()
    config, weights = resolve(config, engine)
    old = _open_old(store, config)
    table, place = make_table(listing, weights, old if trust_mtime else None, workers, selection, cluster)
    photos = len(table) + len(table.quarantine)
    del old  # it is read again under the lock

    with hold(lock_file(store), str(store)):
        old = _open_old(store, config)  # another run may have just finished
        if old is not None:
            refuse_another_data_set(store, old.table, table)
        config, network = calibrated(config, store, old, plain, table, lambda: weights)
        index = _index(config, old, store, table)
        opener = partial(open_engine, config, lambda: weights, engine, network)
        if cluster is not None:
            cluster.prepare(lambda: weights, network)
        computing = nullcontext(cluster) if cluster is not None else Pipeline(opener, workers)
        with computing as pipeline:
            table, new = extract_missing(table, index, shard_folder(store), pipeline, place)
        refuse_nothing_left(table)
        changed = old is None or bool(old.damage()) or old.table != table
        if changed:
            assemble(store, table, index, pipeline.name or (old.engine if old else ""))
    return Summary(
        store=store,
        config=config,
        photos=photos,
        features=len(table),
        new=new,
        changed=changed,
        duplicates=len(table) - len(table.key.first_rows()),
        ignored=listing.ignored,
        missing=listing.missing if isinstance(listing, Listing) else 0,
        quarantined=table.quarantine,
        damaged=index.damaged,
        mended=old.damage() if old else "",
        seconds=time.perf_counter() - started,
        **(cluster.said() if cluster is not None else {}),
    )


def _open_old(store: Path, config: FeatureConfig) -> Store | None:
    """Open the store as it is, if there is one of this config, whatever photos int8 was calibrated on."""
    if not store.exists():
        return None
    old = Store.open(store)
    check_config(store, old.config, replace(config, calibration=old.config.calibration))
    return old


def _index(config: FeatureConfig, old: Store | None, store: Path, table: Table) -> FeatureIndex:
    """Return where the features at hand are: in the store, and in its shards if that is not enough.

    Nothing is taken from a store whose features do not match their checksum. Photos that could not be
    decoded were looked for in the shards then, and are not again.
    """
    index, folder = FeatureIndex(config), shard_folder(store)
    if old is not None:
        check_config(store, old.config, config)
        if not old.damage():
            old.count_in(index)
    known_bad = np.isin(table.key.packed, old.table.bad_keys.packed) if old else False
    if (index.lacks(table.key) & ~np.asarray(known_bad)).any():
        index.add_shards(folder)
    return index
