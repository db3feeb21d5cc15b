"""Photos to features: the keys of all, the features that are missing, and the store with both."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from breeds.backbones import Engine
from breeds.backbones.convert import CALIBRATION_PHOTOS, quantised_network
from breeds.backbones.pipeline import Pipeline
from breeds.backbones.resolve import open_engine, resolve
from breeds.backbones.weights import Weights
from breeds.config import FeatureConfig, Network
from breeds.errors import GoneError, PhotoError
from breeds.features import (
    FeatureLookup,
    Store,
    Table,
    Writer,
    check_config,
    extend_store,
    journal_folder,
    list_shards,
    lock_file,
    write_store,
)
from breeds.features.columns import Keys, Rows, first_of_each
from breeds.features.identify import PhotoOf, make_table, refuse_another_data_set, refuse_nothing_left
from breeds.features.journal import clear, list_networks, save_network
from breeds.features.lookup import find_network
from breeds.files import check_writable, hold
from breeds.photos import Photo, find_photos
from breeds.selection import Selection, is_address
from breeds.text import progress

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
    if cluster is not None:
        cluster.root = "" if is_address(listing.root) else os.path.abspath(listing.root)
    ahead = None if cluster is None else cluster.run_ahead
    table, photo_of = make_table(listing, old.table if old and trust_mtime else None, workers, ahead)
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
            cluster.prepare(weights, network)
        computing = nullcontext(cluster) if cluster is not None else Pipeline(opener, workers)
        with computing as pipeline:
            table, new = _extract_missing(table, lookup, journal_folder(store), pipeline, photo_of)
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


def calibrated(
    config: FeatureConfig,
    store: Path,
    old: Store | None,
    plain: Path | None,
    table: Table,
    weights: Callable[[], Weights],
) -> tuple[FeatureConfig, Callable[[], Network | None]]:
    """Complete an int8 config by its network: the one the store began with, or one quantised now.

    A new one is calibrated on the first photos by key, so that names and labels have no say in it,
    and it is written into the journal before the first feature that rests on it.

    Parameters
    ----------
    config
        Any config; one that is not int8 comes back as it is.
    store, old
        Where the store is written, and the store as it is, if there is one.
    plain
        For a view: the store of the photos as they are, whose network it shares.
    table
        The photos at hand, whose keys have just been computed.
    weights
        Finds the weights; called only if they are needed.

    Returns
    -------
    config, network
        The config with its network's digest, and what finds the network, or raises BreedsError.
    """
    if config.precision != "int8":
        return config, lambda: None
    begun = old or (Store(plain, corrected=False) if plain and plain.exists() else None)
    folder = journal_folder(store)
    kept = list_networks(folder)
    if begun:
        digest = begun.config.calibration
    elif kept and list_shards(folder):
        digest = next(iter(kept))
    else:
        for other in kept.values():  # of a run that was stopped before its first feature: it binds nobody
            other.unlink(missing_ok=True)
        rows = first_of_each(table.key.packed)[:CALIBRATION_PHOTOS]
        sample = [(table.key[row], os.path.join(table.root, table.path[row])) for row in rows]
        network = quantised_network(config, weights, sample)
        save_network(network, folder)
        return replace(config, calibration=network.digest), lambda: network
    return replace(config, calibration=digest), partial(find_network, digest, [store, *filter(None, [plain])])


def _extract_missing(
    table: Table, lookup: FeatureLookup, folder: Path, pipeline: Pipeline | RayPipeline, photo_of: PhotoOf
) -> tuple[Table, int]:
    """Compute and commit what `lookup` lacks; return the table without what cannot be used."""
    rows = table.key.first_rows()
    rows = rows[lookup.lacks(table.key.take(rows))]
    if not len(rows):
        return table, 0
    bad: dict[str, str] = {}
    writer = Writer(folder, lookup.config)
    with progress(total=len(rows), desc="extracting", unit=" photos", smoothing=0.05) as bar:
        wanted = len(rows)
        while len(rows):
            gone = _compute(table, rows, photo_of, writer, pipeline, bad, bar)
            rows = _twins(table, gone)
    for shard, keys in writer.committed:
        lookup.add_shard(shard, keys)
    return _set_aside(table, bad), wanted - len(bad)


def _compute(
    table: Table,
    rows: Rows,
    photo_of: PhotoOf,
    writer: Writer,
    pipeline: Pipeline | RayPipeline,
    bad: dict[str, str],
    bar: Any,
) -> list[int]:
    """Compute and commit the photos of `rows`; put the others' reasons into `bad`, by key.

    Returns
    -------
    list of int
        The rows of those whose files were removed or changed meanwhile.
    """
    gone = []
    under_way: dict[str, int] = {}  # a cluster gives them back as they are done

    def photos() -> Iterator[tuple[str, Photo]]:
        for row in rows:
            under_way[key := table.key[row]] = row
            yield key, photo_of(row)

    try:
        for (key, _), feature in pipeline.features(photos(), writer.config):
            row = under_way.pop(key)
            bad.pop(key, None)
            if isinstance(feature, PhotoError):
                bad[key] = str(feature)
                gone += [int(row)] if isinstance(feature, GoneError) else []
                writer.commit_if_due(pipeline.name)
            else:
                writer.add(key, feature, pipeline.name)
            bar.update()
    finally:
        writer.commit(pipeline.name)
    assert not under_way
    return gone


def _twins(table: Table, gone: list[int]) -> Rows:
    """Return, for each of these rows, the next one with the same photo, byte for byte, if there is one."""
    packed = table.key.packed
    later = (row + 1 + np.flatnonzero(packed[row + 1 :] == packed[row])[:1] for row in gone)
    return np.concatenate([np.zeros(0, dtype=np.intp), *later])


def _set_aside(table: Table, bad: dict[str, str]) -> Table:
    """Return the table with the rows whose keys are in `bad` moved to its rejected photos."""
    out = np.isin(table.key.packed, Keys.of(bad).packed)
    reasons = [(table.path[row], bad[table.key[row]]) for row in np.flatnonzero(out)]
    kept = table.take(np.flatnonzero(~out))
    return replace(kept, rejected=sorted(table.rejected + reasons))


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
