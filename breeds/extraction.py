"""Photos to features: list the photos, compute what the store lacks, and write the store.

Photos are read twice: once for their keys, then only those of which no feature is at hand. So what is refused
is refused before anything is computed, a photo that is there twice is computed once, and what is known costs
its first reading alone.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from breeds.backbones import Engine
from breeds.backbones.pipeline import Pipeline
from breeds.backbones.resolve import open_engine, resolve
from breeds.calibration import calibrated
from breeds.config import FeatureConfig, Network
from breeds.errors import BreedsError, GoneError, PhotoError, attempt
from breeds.features import (
    FeatureLookup,
    Store,
    Table,
    Writer,
    check_config,
    extend_store,
    journal_folder,
    lock_file,
    write_store,
)
from breeds.features.columns import PACKED, Keys, Names, Rows, Texts, first_of_each
from breeds.features.journal import clear
from breeds.features.table import refuse_another_data_set, refuse_conflicts, refuse_nothing_left
from breeds.files import check_writable, hold
from breeds.machine import Ahead, run_ahead
from breeds.photos import Listing, Photo, find_photos, key_of, photo_at
from breeds.photos.photo import ListedPhoto, RejectedPhoto, Stamp
from breeds.selection import Selection, is_address
from breeds.text import progress

if TYPE_CHECKING:
    from breeds.backbones.ray import RayPipeline

__all__ = ["Summary", "extract"]

#: Gives the photo of a row of the table.
PhotoOf = Callable[[int], Photo]

# Photos on another machine that are read at once, as each is mostly waited for; and how many wait in order,
# where they are names, and where they may be bytes.
_AT_ONCE, _NAMES, _BYTES = 16, 64, 16


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


def make_table(
    listing: Listing, trusted: Table | None, workers: int, cluster: RayPipeline | None = None
) -> tuple[Table, PhotoOf]:
    """Read every photo of a listing for its key; those that cannot be read are the table's quarantine.

    Parameters
    ----------
    listing
        Its photos are gone afterwards: the table takes their place.
    trusted
        An older table whose keys are taken over where path, size and time are the same.
    cluster
        Whose nodes read photos that are files of their own, instead of this machine.

    Returns
    -------
    Table
        In the order of the photos' names.
    PhotoOf
        Gives a row's photo to read it again; a tar's are found by where they begin, 8 bytes a photo.

    Raises
    ------
    BreedsError
        If no photo can be used, one is there with two answers, or something cannot be read just now.
    """
    root = listing.root if is_address(listing.root) else os.path.abspath(listing.root)
    if cluster is not None:
        cluster.root = "" if is_address(root) else root
    rows = _Rows()
    old = trusted if trusted is not None and trusted.root == root else Table(root)
    _identify(rows, listing, old, workers, cluster)
    choice = listing.choose([*rows.labels, *(photo.label for photo in rows.rejected)])
    chosen = (row for row, label in enumerate(rows.labels) if choice.keeps(label))
    order = np.array(sorted(chosen, key=rows.names.__getitem__), dtype=np.intp)
    table = Table(
        root=root,
        key=Keys(np.frombuffer(rows.keys, dtype=PACKED)).take(order),
        path=Texts.of_bytes(rows.names[row] for row in order),
        label=Names.of(rows.labels).take(order),
        split=Names.of(rows.splits).take(order),
        size=np.frombuffer(rows.sizes, dtype=np.int64)[order],
        mtime_ns=np.frombuffer(rows.times, dtype=np.int64)[order],
        rejected=sorted((photo.name, photo.reason) for photo in rows.rejected if choice.keeps(photo.label)),
    )
    if not len(table) and not table.rejected:
        raise BreedsError(
            f"No photos in {listing.root} ({listing.ignored} other files); name what holds your photos."
        )
    refuse_conflicts(table)
    refuse_nothing_left(table)
    at = np.frombuffer(rows.at, dtype=np.int64)[order]
    return table, lambda row: photo_at(root, table.path[row], int(at[row]), int(table.size[row]))


class _Rows:
    """Rows as photos are identified, about 130 bytes each with a name of 30 letters."""

    def __init__(self) -> None:
        self.keys = bytearray()
        self.names: list[bytes] = []
        self.labels: list[str] = []
        self.splits: list[str] = []
        self.sizes, self.times, self.at = array("q"), array("q"), array("q")
        self.rejected: list[RejectedPhoto] = []
        self._same: dict[str, str] = {}

    def add(self, photo: ListedPhoto, key: str, stamp: Stamp) -> None:
        """Add a photo; all of a class share one text."""
        self.keys += bytes.fromhex(key)
        self.names.append(os.fsencode(photo.name))
        self.labels.append(self._same.setdefault(photo.label, photo.label))
        self.splits.append(self._same.setdefault(photo.split, photo.split))
        self.sizes.append(stamp[0])
        self.times.append(stamp[1])
        self.at.append(getattr(photo, "at", -1))


def _identify(rows: _Rows, listing: Listing, old: Table, workers: int, cluster: RayPipeline | None) -> None:
    """Add every photo of a listing to the rows, which takes the listing's photos away."""

    def with_stamp(photo: ListedPhoto) -> tuple[ListedPhoto, Stamp | None]:
        row = old.path.find(photo.name) if len(old) else -1
        return photo, (int(old.size[row]), int(old.mtime_ns[row])) if row >= 0 else None

    are_files = isinstance(listing.photos, list)
    threads = max(workers, _AT_ONCE if is_address(listing.root) else 1)
    photos = progress(listing.photos, desc="looking", unit=" photos", leave=False, delay=1)
    listing.photos = []
    with ThreadPoolExecutor(threads) as pool:
        ahead: Ahead = partial(run_ahead, pool, window=_NAMES if are_files else _BYTES)
        if cluster is not None and are_files:
            ahead = cluster.run_ahead
        for (photo, _), found in ahead(identify, map(with_stamp, photos)):
            if isinstance(found, PhotoError):
                rows.rejected.append(RejectedPhoto(photo.name, str(found), label=photo.label))
            else:
                key, stamp = found
                rows.add(photo, key or old.key[old.path.find(photo.name)], stamp)


def identify(item: tuple[ListedPhoto, Stamp | None]) -> tuple[str, Stamp] | PhotoError:
    """Return a photo's key, size and time; no key if size and time are those that came with it."""
    return attempt(_identified, *item)


def _identified(photo: ListedPhoto, known: Stamp | None) -> tuple[str, Stamp]:
    if isinstance(photo, RejectedPhoto):
        raise PhotoError(photo.reason)
    stamp = photo.stamp()
    return "" if stamp == known and stamp[1] else key_of(photo.read()), stamp


def extract_missing(
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
