"""The table of the photos that were asked for: each one's key, label, part of the split and place."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from breeds.backbones.weights import Weights
from breeds.errors import BreedsError, PhotoError
from breeds.extraction.asked import Selection
from breeds.extraction.streamed import identify_streamed
from breeds.features import Store, Table
from breeds.features.columns import PACKED, Keys, Names, Texts
from breeds.machine import Ahead, run_ahead
from breeds.photos import Listing, key_of
from breeds.photos.photo import FilePhoto, Photo
from breeds.photos.sources import Streamed
from breeds.places import is_address
from breeds.progress import progress

if TYPE_CHECKING:
    from breeds.backbones.ray import RayPipeline

#: Gives the photo of a row of the table.
PlaceOf = Callable[[int], Photo]

#: A file's size in bytes and its time, in nanoseconds.
Stamp = tuple[int, int]

#: A store takes photos of another folder than its own if so large a share of the smaller set is common.
SAME_PHOTOS = 0.5


def make_table(
    listing: Listing | Streamed,
    weights: Weights,
    trusted: Store | None,
    workers: int,
    selection: Selection,
    cluster: RayPipeline | None,
) -> tuple[Table, PlaceOf]:
    """Make the table of a listing, whose photos it takes the place of, and refuse what makes no sense.

    What comes with it says where each row's photo is.

    Raises
    ------
    BreedsError
        If no photo can be used, or one is there with two answers.
    """
    old = trusted.table if trusted else None
    place: PlaceOf
    if cluster is not None:
        root = str(listing.root)
        cluster.root = "" if is_address(root) else os.path.abspath(root)
    if isinstance(listing, Listing):
        table = identify(listing, old, workers, cluster)
        place = partial(_path, table)
        listing.photos.clear()
    else:
        table, place = identify_streamed(listing, old, selection.top, selection.classes, cluster)
        listing.objects.clear()
    if weights.path is not None:
        table.weights_path = os.path.abspath(weights.path)
    _refuse_conflicts(table)
    refuse_nothing_left(table)
    return table, place


def _path(table: Table, row: int) -> Photo:
    return FilePhoto(table.path[row], root=table.root)


def identify(
    listing: Listing, trusted: Table | None, workers: int, cluster: RayPipeline | None = None
) -> Table:
    """Compute every photo's key; those that cannot be read go to the table's quarantine.

    Parameters
    ----------
    trusted
        An older table whose keys are taken over where path, size and time are the same.
    """
    root = os.path.abspath(listing.root)
    old = trusted if trusted is not None and trusted.root == root else Table(root)

    def with_stamp(photo: FilePhoto) -> tuple[str, Stamp | None]:
        row = old.path.find(photo.name)
        path = os.path.join(root, photo.name)  # whatever folder the reader is in
        return path, (int(old.size[row]), int(old.mtime_ns[row])) if row >= 0 else None

    keys, sizes, times, can_be_read = bytearray(), array("q"), array("q"), bytearray()
    quarantine = []
    photos = progress(listing.photos, desc="looking", unit=" photos", leave=False, delay=1)
    with ThreadPoolExecutor(workers) as pool:
        ahead: Ahead = cluster.run_ahead if cluster else partial(run_ahead, pool, window=64)
        for photo, (_, seen) in zip(listing.photos, ahead(look, map(with_stamp, photos)), strict=True):
            can_be_read.append(not isinstance(seen, PhotoError))
            if isinstance(seen, PhotoError):
                quarantine.append((photo.name, str(seen)))
                continue
            keys += bytes.fromhex(seen[0] or old.key[old.path.find(photo.name)])
            sizes.append(seen[1])
            times.append(seen[2])
    return Table(
        root=root,
        key=Keys(np.frombuffer(keys, dtype=PACKED)),
        path=Texts.of(photo.name for photo in compress(listing.photos, can_be_read)),
        label=Names.of(photo.label for photo in compress(listing.photos, can_be_read)),
        split=Names.of(photo.split for photo in compress(listing.photos, can_be_read)),
        size=np.frombuffer(sizes, dtype=np.int64),
        mtime_ns=np.frombuffer(times, dtype=np.int64),
        quarantine=quarantine,
    )


def look(item: tuple[str, Stamp | None]) -> tuple[str, int, int] | PhotoError:
    """Return a file's key, size and time; no key if size and time are the stamp that came with its path."""
    path, stamp = item
    try:
        status = os.stat(path)
        found = (status.st_size, status.st_mtime_ns)
        return ("" if found == stamp else key_of(FilePhoto(path).read())), *found
    except PhotoError as error:
        return type(error)(str(error))
    except (OSError, ValueError) as error:
        return PhotoError(f"cannot be read: {getattr(error, 'strerror', None) or error}")


def _refuse_conflicts(table: Table) -> None:
    """Refuse the same photo under two labels or in two parts of the split."""
    _, first, place = np.unique(table.key.packed, return_index=True, return_inverse=True)
    columns = {"label": table.label, "split": table.split}
    differs = {what: column.codes != column.codes[first[place]] for what, column in columns.items()}
    conflicts = []
    for row in np.flatnonzero(differs["label"] | differs["split"]):
        other = first[place[row]]
        conflicts += [
            f"{table.path[other]} ({what} {column[other] or 'none'}) and "
            f"{table.path[row]} ({what} {column[row] or 'none'})"
            for what, column in columns.items()
            if differs[what][row]
        ]
    if conflicts:
        more = f", and {len(conflicts) - 5} more pairs" if len(conflicts) > 5 else ""
        raise BreedsError(
            f"The same photo, byte for byte, is there with two answers: {'; '.join(conflicts[:5])}"
            f"{more}; remove or relabel one of each pair."
        )


def refuse_another_data_set(store: Path, old: Table, new: Table) -> None:
    """Refuse to make a store of one folder one of another folder.

    A folder that was moved, renamed or copied, also in part, is told by its photos: `SAME_PHOTOS` of
    the smaller of the two sets must be in the other.

    Raises
    ------
    BreedsError
        If it is another; the text names both folders.
    """
    if os.path.realpath(old.root) == os.path.realpath(new.root):
        return
    one, other = np.unique(old.key.packed), np.unique(new.key.packed)
    common = len(np.intersect1d(one, other, assume_unique=True))
    if common < SAME_PHOTOS * min(len(one), len(other)):
        raise BreedsError(
            f"{store} holds the photos of {old.root}, and {common} of the {len(other)} photos in {new.root} "
            f"are among them, so that is another data set (a folder that was only moved or copied is known "
            f"by its photos); name another --store for it."
        )


def refuse_nothing_left(table: Table) -> None:
    """Refuse a table of which every photo was set aside.

    Raises
    ------
    BreedsError
        If it is one; the text gives the first photo's reason.
    """
    if len(table) == 0:
        path, reason = table.quarantine[0]
        raise BreedsError(
            f"None of the {len(table.quarantine)} photos in {table.root} can be used; "
            f"the first, {path}: {reason}."
        )
