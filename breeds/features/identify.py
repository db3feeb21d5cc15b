"""The table of the photos that were asked for: key, label and part of the split, and how to read each again.

Photos are read twice: once for their keys, then only those of which no feature is at hand. So what is refused
is refused before anything is computed, a photo that is there twice is computed once, and what is known costs
its first reading alone.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from breeds.errors import BreedsError, PhotoError, attempt
from breeds.features.columns import PACKED, Keys, Names, Texts
from breeds.features.table import Table
from breeds.machine import Ahead, run_ahead
from breeds.photos import Listing, Photo, key_of, photo_at
from breeds.photos.photo import ListedPhoto, RejectedPhoto, Stamp
from breeds.selection import is_address
from breeds.text import progress

#: Gives the photo of a row of the table.
PhotoOf = Callable[[int], Photo]

#: A store takes photos of another folder than its own if so large a share of the smaller set is common.
SAME_PHOTOS = 0.5
# Photos on another machine that are read at once, as each is mostly waited for; and how many wait in order,
# where they are names, and where they may be bytes.
_AT_ONCE, _NAMES, _BYTES = 16, 64, 16


def make_table(
    listing: Listing, trusted: Table | None, workers: int, ahead: Ahead | None = None
) -> tuple[Table, PhotoOf]:
    """Read every photo of a listing for its key; those that cannot be read are the table's quarantine.

    Parameters
    ----------
    listing
        Its photos are gone afterwards: the table takes their place.
    trusted
        An older table whose keys are taken over where path, size and time are the same.
    ahead
        Reads photos that are files of their own elsewhere, such as on a cluster, instead of this machine.

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
    rows = _Rows()
    old = trusted if trusted is not None and trusted.root == root else Table(root)
    _identify(rows, listing, old, workers, ahead)
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
    _refuse_conflicts(table)
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


def _identify(rows: _Rows, listing: Listing, old: Table, workers: int, ahead: Ahead | None) -> None:
    """Add every photo of a listing to the rows, which takes the listing's photos away."""

    def with_stamp(photo: ListedPhoto) -> tuple[ListedPhoto, Stamp | None]:
        row = old.path.find(photo.name) if len(old) else -1
        return photo, (int(old.size[row]), int(old.mtime_ns[row])) if row >= 0 else None

    are_files = isinstance(listing.photos, list)
    threads = max(workers, _AT_ONCE if is_address(listing.root) else 1)
    photos = progress(listing.photos, desc="looking", unit=" photos", leave=False, delay=1)
    listing.photos = []
    with ThreadPoolExecutor(threads) as pool:
        if ahead is None or not are_files:
            ahead = partial(run_ahead, pool, window=_NAMES if are_files else _BYTES)
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
        path, reason = table.rejected[0]
        raise BreedsError(
            f"None of the {len(table.rejected)} photos in {table.root} can be used; "
            f"the first, {path}: {reason}."
        )
