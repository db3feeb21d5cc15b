"""A look at every photo before any work: its key, its shape, and what is wrong with it, or may be."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from breeds.errors import BreedsError, PhotoError
from breeds.features.columns import PACKED, Keys, Names, Rows, Texts
from breeds.machine import run_ahead
from breeds.metrics import FEW
from breeds.photos import Listing, Photo, key_of, look
from breeds.text import progress

#: A JPEG need not be decoded in full to know that it can be: this is small, and thus fast.
_LONGEST = 32


@dataclass
class Seen:
    """The photos of a listing, in its order, one row each: about 60 bytes and the path's length.

    Attributes
    ----------
    root, path, label, split
        As the listing has them.
    key
        Of each photo's bytes; zeros where they could not be read.
    width, height
        Of the photo upright, in pixels, int32 (n,); 0 where it could not be decoded.
    bad
        The rows of photos that cannot be used, each with its reason.
    ignored, missing
        As in `breeds.photos.Listing`.
    seconds
        How long the look at all of them took.
    """

    root: str
    path: Texts
    label: Names
    split: Names
    key: Keys
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    bad: dict[int, str] = field(default_factory=dict)
    ignored: int = 0
    missing: int = 0
    seconds: float = 0.0

    def __len__(self) -> int:
        return len(self.path)

    @property
    def good(self) -> Rows:
        """The rows of the photos that can be used."""
        return np.flatnonzero(self.width)

    def elongation(self, rows: Rows) -> NDArray[np.float64]:
        """Return how many times as long as their shorter side the longer side of photos is."""
        width, height = self.width[rows].astype(np.float64), self.height[rows].astype(np.float64)
        return np.maximum(width, height) / np.minimum(width, height)

    def shorter(self, rows: Rows) -> NDArray[np.int32]:
        """Return the shorter side of photos, in pixels."""
        return np.minimum(self.width[rows], self.height[rows])


def see(listing: Listing, workers: int) -> Seen:
    """Read and decode every photo of a listing, whose photos the result takes the place of.

    Raises
    ------
    BreedsError
        If the photos are in files of many.
    """
    started, photos = time.perf_counter(), listing.photos
    if not isinstance(photos, list):
        raise BreedsError(f"The photos of {listing.root} are no files in a folder here; name such a folder.")
    keys, widths, heights, bad = bytearray(), array("i"), array("i"), {}
    for row, (key, width, height, reason) in enumerate(_looks(photos, workers)):
        keys += bytes.fromhex(key) or bytes(PACKED.itemsize)
        widths.append(width)
        heights.append(height)
        if reason:
            bad[row] = reason
    seen = Seen(
        root=listing.root,
        path=Texts.of(photo.name for photo in photos),
        label=Names.of(photo.label for photo in photos),
        split=Names.of(photo.split for photo in photos),
        key=Keys(np.frombuffer(keys, dtype=PACKED)),
        width=np.frombuffer(widths, dtype=np.int32),
        height=np.frombuffer(heights, dtype=np.int32),
        bad=bad,
        ignored=listing.ignored,
        missing=listing.missing,
        seconds=time.perf_counter() - started,
    )
    photos.clear()
    return seen


def _looks(listed: Sequence[Photo], workers: int) -> Iterator[tuple[str, int, int, str]]:
    """Yield key, width, height and reason of every photo, in order."""
    stop = threading.Event()

    def one(photo: Photo) -> tuple[str, int, int, str]:
        key = ""
        try:
            data = photo.read()
            key = key_of(data)
            shown = look(data, _LONGEST, stop)
        except PhotoError as error:
            return key, 0, 0, str(error)
        return key, shown.width, shown.height, ""

    photos = progress(listed, desc="looking", unit=" photos", leave=False, delay=1)
    with ThreadPoolExecutor(workers) as pool:
        try:
            for _, seen in run_ahead(pool, one, photos, window=64):
                yield seen
        finally:
            stop.set()  # after Ctrl-C, nobody wants what is still being decoded


#: A photo longer than this many times its shorter side is of an odd shape.
ELONGATED = 3.0
#: A photo whose shorter side is below this share of the network's input is small.
SMALL = 0.5


@dataclass(frozen=True)
class Class:
    """A class and its photos: `usable` can be decoded, `different` of these are no copies."""

    name: str
    usable: int
    different: int
    unreadable: int


@dataclass
class Found:
    """What was found out about photos.

    Attributes
    ----------
    classes
        In the order of their names; "" holds the photos without a label, if there are any.
    copies
        Rows of photos that are the same, byte for byte, a group each.
    duplicates
        How many photos are copies of another one.
    conflicts
        The groups of rows that are the same photo under different labels or in different parts of the
        split, readable or not: what extraction refuses.
    odd, small
        Rows of photos that are elongated, or small for the network's input; the worst first.
    """

    classes: list[Class]
    copies: list[Rows]
    duplicates: int
    conflicts: list[Rows]
    odd: Rows
    small: Rows

    @property
    def labelled(self) -> list[Class]:
        """The classes, without the photos that have no label."""
        return [one for one in self.classes if one.name]

    @property
    def few(self) -> list[Class]:
        """The classes with fewer different photos than training can rest on, the smallest first."""
        return sorted(
            (one for one in self.labelled if one.different < FEW), key=lambda one: (one.different, one.name)
        )

    @property
    def unlabelled(self) -> int:
        """How many usable photos have no label."""
        return sum(one.usable for one in self.classes if not one.name)


def find(seen: Seen, size: int) -> Found:
    """Look for all that a person should know before photos are extracted at an input `size`."""
    good = seen.good
    groups = _same_bytes(seen)
    copies = [group for rows in groups if len(group := rows[seen.width[rows] > 0]) > 1]
    conflicts = [rows for rows in groups if _differ(seen, rows)]
    elongation, shorter = seen.elongation(good), seen.shorter(good)
    odd = np.argsort(-elongation, kind="stable")
    small = np.argsort(shorter, kind="stable")
    return Found(
        classes=_classes(seen),
        copies=[rows for rows in copies if not _differ(seen, rows)],
        duplicates=sum(len(rows) - 1 for rows in copies),
        conflicts=conflicts,
        odd=good[odd[elongation[odd] > ELONGATED]],
        small=good[small[shorter[small] < SMALL * size]],
    )


def _same_bytes(seen: Seen) -> list[Rows]:
    """Return the rows of photos with the same key, a group each, in the order of their first rows."""
    read = np.flatnonzero(seen.key.packed != b"")
    _, place, count = np.unique(seen.key.packed[read], return_inverse=True, return_counts=True)
    several = np.flatnonzero(count[place] > 1)
    ordered = several[np.argsort(place[several], kind="stable")]
    groups = np.split(read[ordered], np.flatnonzero(np.diff(place[ordered])) + 1)
    return sorted((rows for rows in groups if len(rows)), key=lambda rows: int(rows[0]))


def _differ(seen: Seen, rows: Rows) -> bool:
    return any(len(np.unique(column.codes[rows])) > 1 for column in (seen.label, seen.split))


def _classes(seen: Seen) -> list[Class]:
    good = seen.good
    names, codes = seen.label.names, seen.label.codes
    first = seen.key.take(good).first_rows()
    usable, different, everything = (
        np.bincount(codes[rows], minlength=len(names)).tolist() for rows in (good, good[first], slice(None))
    )
    return [Class(name, usable[i], different[i], everything[i] - usable[i]) for i, name in enumerate(names)]
