"""The table of photos that are read as a stream, and where to read those again whose features are missing.

Two passes: one over all bytes, from beginning to end, for the keys; then single photos by their places, and
only those of which no feature is at hand. So what is refused is refused before anything is computed, a photo
that is there twice is computed once, and what is known costs its first reading alone. A new photo is read
twice.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from breeds.errors import BreedsError, PhotoError, attempt
from breeds.features import Table
from breeds.features.columns import PACKED, Keys, Names, Texts
from breeds.machine import Ahead, run_ahead
from breeds.photos import key_of
from breeds.photos.cloud import ObjectPhoto, Remote
from breeds.photos.local import Local
from breeds.photos.photo import FilePhoto, Photo
from breeds.photos.rows import ParquetPhoto
from breeds.photos.sources import Streamed, inside
from breeds.photos.tars import File, Found, TarPhoto
from breeds.places import is_address
from breeds.progress import progress

if TYPE_CHECKING:
    from breeds.backbones.ray import RayPipeline

#: Photos on another machine that are read at once, as each is mostly waited for.
AT_ONCE = 16


@dataclass(frozen=True)
class Places:
    """Where each row's photo is, 12 bytes a photo: its file's number, and its first byte or row there."""

    table: Table
    files: Sequence[File]
    base: str
    file: NDArray[np.int32]
    at: NDArray[np.int64]

    def __call__(self, row: int) -> Photo:
        """Return a row's photo."""
        number, at, size = int(self.file[row]), int(self.at[row]), int(self.table.size[row])
        name = self.table.path[row]
        if number < 0:
            return ObjectPhoto(name, Remote(f"{self.base}/{name}", size))
        file = self.files[number]
        if file.name.lower().endswith(".parquet"):
            return ParquetPhoto(name, file, at, size)
        return TarPhoto(name, file, at, size)


class _Rows:
    """Rows as they are found, about 130 bytes each with a name of 30 letters."""

    def __init__(self) -> None:
        self.keys = bytearray()
        self.paths: list[bytes] = []
        self.labels: list[str] = []
        self.splits: list[str] = []
        self.sizes, self.times, self.at = array("q"), array("q"), array("q")
        self.files = array("i")
        self.aside: list[tuple[str, str, str]] = []
        self._same: dict[str, str] = {}

    def add(self, found: Found, file: int, mtime_ns: int) -> None:
        """Add a photo, or what is to be set aside."""
        label = self._same.setdefault(found.label, found.label)  # one text for all photos of a class
        if found.error:
            self.aside.append((found.path, found.error, label))
            return
        self.keys += bytes.fromhex(found.key)
        self.paths.append(os.fsencode(found.path))
        self.labels.append(label)
        self.splits.append(self._same.setdefault(found.split, found.split))
        self.sizes.append(found.size)
        self.times.append(mtime_ns)
        self.at.append(getattr(found.photo, "at", getattr(found.photo, "row", -1)))
        self.files.append(file)

    def of_classes(self, keep: set[str] | None) -> list[int]:
        """Return the rows of some classes, or all, in the order of their paths."""
        rows = [row for row, label in enumerate(self.labels) if keep is None or label in keep]
        return sorted(rows, key=self.paths.__getitem__)


def identify_streamed(
    source: Streamed,
    trusted: Table | None,
    top: int | None = None,
    classes: Sequence[str] | None = None,
    cluster: RayPipeline | None = None,
) -> tuple[Table, Places]:
    """Read all photos once for their keys; those that cannot be used go to the table's quarantine.

    A file that is cut off is among these, by its own name: so not all of its photos are there.

    Parameters
    ----------
    trusted
        An older table, whose keys are taken over for photos that are files of their own on another machine,
        where path, size and time are the same. Files of many photos are read.
    top, classes
        As in `breeds.photos.find_photos`.
    cluster
        Whose nodes read instead of this machine: files of many photos each on one.

    Raises
    ------
    BreedsError
        If something cannot be read just now, or the classes are not there.
    """
    if cluster is not None:  # whose processes are in other folders
        source.files[:] = [(name, _absolute(file)) for name, file in source.files]
    rows = _Rows()
    root = source.root if is_address(source.root) else os.path.abspath(source.root)
    old = trusted if trusted is not None and trusted.root == root else Table(root)
    with progress(desc="looking", unit=" photos", leave=False, delay=1) as shown:
        for number, found, mtime_ns in _all(source, old, cluster):
            rows.add(found, number, mtime_ns)
            shown.update()
    keep = _kept_classes(rows, top, classes, root)
    order = np.array(rows.of_classes(keep), dtype=np.intp)
    labels, splits = Names.of(rows.labels), Names.of(rows.splits)
    table = Table(
        root=root,
        key=Keys(np.frombuffer(rows.keys, dtype=PACKED)).take(order),
        path=Texts.of_bytes(rows.paths[row] for row in order),
        label=labels.take(order),
        split=splits.take(order),
        size=np.frombuffer(rows.sizes, dtype=np.int64)[order],
        mtime_ns=np.frombuffer(rows.times, dtype=np.int64)[order],
        quarantine=sorted((p, reason) for p, reason, label in rows.aside if keep is None or label in keep),
    )
    if not len(table) and not table.quarantine:
        raise BreedsError(f"No photos in {root} ({source.ignored} other files); name what holds your photos.")
    file = np.frombuffer(rows.files, dtype=np.int32)[order]
    at = np.frombuffer(rows.at, dtype=np.int64)[order]
    return table, Places(table, [file for _, file in source.files], source.base, file, at)


def _all(source: Streamed, old: Table, cluster: RayPipeline | None) -> Iterator[tuple[int, Found, int]]:
    """Yield every photo with the number of its file, -1 for its own, and that file's time."""
    for number, found in source.found(partial(_contents, cluster) if cluster else None):
        found.data = None
        yield number, found, source.files[number][1].mtime_ns

    def with_stamp(item: tuple[FilePhoto, Remote]) -> tuple[Remote, bool]:
        photo, file = item
        row = old.path.find(photo.name)
        stamp = (file.size, file.mtime_ns)
        return file, row >= 0 and bool(file.mtime_ns) and stamp == (old.size[row], old.mtime_ns[row])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        ahead: Ahead = cluster.run_ahead if cluster else partial(run_ahead, pool, window=AT_ONCE)
        for (photo, file), (_, key) in zip(
            source.objects, ahead(_key, map(with_stamp, source.objects)), strict=True
        ):
            found = Found(photo.name, photo.label, photo.split, size=file.size)
            if isinstance(key, PhotoError):
                found.error = str(key)
            else:
                found.key = key or old.key[old.path.find(photo.name)]
            yield -1, found, file.mtime_ns


def _key(item: tuple[Remote, bool]) -> str | PhotoError:
    """Return a file's key, "" if it is known."""
    file, is_known = item
    return "" if is_known else attempt(lambda: key_of(file.read_whole()))


def _contents(cluster: RayPipeline, files: Iterable[File]) -> Iterator[list[Found | None]]:
    """Yield what is in each file, in order, read on a cluster's nodes."""
    for _, found in cluster.run_ahead(_listed, files, most=1):
        yield [Found("", error=str(found))] if isinstance(found, PhotoError) else found


def _absolute(file: File) -> File:
    return replace(file, address=os.path.abspath(file.address)) if isinstance(file, Local) else file


def _listed(file: File) -> list[Found | None]:
    result = list(inside(file))
    for found in result:
        if found is not None:
            found.data = None  # stays where it is
    return result


def _kept_classes(rows: _Rows, top: int | None, classes: Sequence[str] | None, root: str) -> set[str] | None:
    """Return the classes that are asked for, or None for all."""
    if top is None and classes is None:
        return None
    labels = [*rows.labels, *(label for _, _, label in rows.aside)]
    counts = Counter(label for label in labels if label)
    if not counts:
        raise BreedsError(f"The photos in {root} have no labels, so no classes can be chosen.")
    if classes is None:
        return {label for label, _ in sorted(counts.items(), key=lambda c: (-c[1], c[0]))[:top]}
    unknown = sorted({*classes} - counts.keys())
    if unknown:
        raise BreedsError(
            f"No photos of {', '.join(unknown)} in {root}; its classes are {', '.join(sorted(counts))}."
        )
    return {*classes}
