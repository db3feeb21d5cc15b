"""What reading and decoding every photo says of it: its key, its shape, or why it cannot be used."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from breeds.errors import PhotoError
from breeds.features.columns import PACKED, Keys, Names, Rows, Texts
from breeds.photos import FilePhoto, Listing, key_of, look
from breeds.progress import progress
from breeds.workers import run_ahead

#: A JPEG need not be decoded in full to know that it can be: this is small, and thus fast.
_LONGEST = 32


@dataclass
class Seen:
    """The photos of a listing, in its order, one row each: about 60 bytes and the path's length.

    Attributes
    ----------
    path, label, split
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
    """Read and decode every photo of a listing, whose photos the result takes the place of."""
    started = time.perf_counter()
    keys, widths, heights, bad = bytearray(), array("i"), array("i"), {}
    for row, (key, width, height, reason) in enumerate(_looks(listing, workers)):
        keys += bytes.fromhex(key) or bytes(PACKED.itemsize)
        widths.append(width)
        heights.append(height)
        if reason:
            bad[row] = reason
    seen = Seen(
        path=Texts.of(photo.name for photo in listing.photos),
        label=Names.of(photo.label for photo in listing.photos),
        split=Names.of(photo.split for photo in listing.photos),
        key=Keys(np.frombuffer(keys, dtype=PACKED)),
        width=np.frombuffer(widths, dtype=np.int32),
        height=np.frombuffer(heights, dtype=np.int32),
        bad=bad,
        ignored=listing.ignored,
        missing=listing.missing,
        seconds=time.perf_counter() - started,
    )
    listing.photos.clear()
    return seen


def _looks(listing: Listing, workers: int) -> Iterator[tuple[str, int, int, str]]:
    """Yield key, width, height and reason of every photo, in order."""
    stop = threading.Event()

    def one(photo: FilePhoto) -> tuple[str, int, int, str]:
        key = ""
        try:
            data = photo.read()
            key = key_of(data)
            shown = look(data, _LONGEST, stop)
        except PhotoError as error:
            return key, 0, 0, str(error)
        return key, shown.width, shown.height, ""

    photos = progress(listing.photos, desc="looking", unit=" photos", leave=False, delay=1)
    with ThreadPoolExecutor(workers) as pool:
        try:
            for _, seen in run_ahead(pool, one, photos, window=64):
                yield seen
        finally:
            stop.set()  # after Ctrl-C, nobody wants what is still being decoded
