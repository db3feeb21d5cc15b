"""One photo to classify: in a file, a tar, Parquet, a bucket, on the web, or in memory, all read alike."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from breeds.errors import GoneError
from breeds.files import UnfitError, read_regular
from breeds.photos.limits import MAX_BYTES, size_fault
from breeds.photos.parquet import read_row
from breeds.photos.storage import SourceFile

#: A file's size in bytes and its time, in nanoseconds, 0 where nobody knows it.
Stamp = tuple[int, int]


class Photo(Protocol):
    """A photo, wherever its bytes are.

    Attributes
    ----------
    name
        Its path from the root of the listing, or its address as it may be shown; "" in memory.
    label, split, group
        What the data says of it; "" where it says nothing.
    """

    name: str
    label: str
    split: str
    group: str

    def read(self) -> bytes:
        """Return the bytes of the photo's file.

        Raises
        ------
        PhotoError
            If they cannot be had; `GoneError` if they are not there any more.
        BreedsError
            If they cannot be had just now, as of a network that fails.
        """
        ...


@dataclass(slots=True, kw_only=True)
class _Labelled:
    """What the data says of a photo, whatever kind it is of."""

    label: str = ""
    split: str = ""
    group: str = ""


@dataclass(slots=True)
class FilePhoto(_Labelled):
    """A photo that is a file here; `name` starts from the folder `root`, "" for the one that we are in."""

    name: str
    root: str = field(default="", compare=False)

    @property
    def path(self) -> str:
        """What opens it."""
        return os.path.join(self.root, self.name)

    def stamp(self) -> Stamp:
        """Return the file's size and time."""
        try:
            status = os.stat(self.path)
        except (OSError, ValueError) as error:
            raise GoneError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
        return status.st_size, status.st_mtime_ns

    def read(self) -> bytes:
        """Read the file."""
        try:
            data = read_regular(self.path, MAX_BYTES)
        except FileNotFoundError:
            raise GoneError("no such file") from None
        except UnfitError as error:
            raise GoneError(error.strerror) from None
        except (OSError, ValueError) as error:
            raise GoneError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
        if not data:
            raise GoneError("empty file (0 bytes)")
        return data


@dataclass(slots=True)
class TarPhoto(_Labelled):
    """A photo in a tar: its bytes are `size` from byte `at` on, or `data` where they have just been read."""

    name: str
    tar: SourceFile
    at: int
    size: int
    data: bytes | None = field(default=None, repr=False)

    def stamp(self) -> Stamp:
        """Return its size, and the tar's time."""
        return self.size, self.tar.mtime_ns

    def read(self) -> bytes:
        """Read its part of the tar."""
        if self.data is not None:
            return self.data
        if fault := size_fault(self.size):
            raise GoneError(fault)
        data = self.tar.read_at(self.at, self.size)
        if len(data) != self.size:
            raise GoneError("the tar changed while it was being read; run again")
        return data


@dataclass(slots=True)
class ParquetPhoto(_Labelled):
    """A photo in a row of a Parquet file, or `data` where it has just been read."""

    name: str
    parquet: SourceFile
    row: int
    size: int = 0
    data: bytes | None = field(default=None, repr=False)

    def stamp(self) -> Stamp:
        """Return its size, and the file's time."""
        return self.size, self.parquet.mtime_ns

    def read(self) -> bytes:
        """Read its row."""
        return read_row(self.parquet, self.row) if self.data is None else self.data


@dataclass(slots=True)
class ObjectPhoto(_Labelled):
    """A photo that is a file of its own on another machine, such as an object in a bucket."""

    name: str
    file: SourceFile

    def stamp(self) -> Stamp:
        """Return the file's size and time."""
        return self.file.size, self.file.mtime_ns

    def read(self) -> bytes:
        """Fetch the file."""
        return self.file.read_whole()


@dataclass(slots=True)
class WebPhoto(_Labelled):
    """A photo by its address on the web, which `fetch` asks for each time it is read."""

    name: str
    fetch: Callable[[str], bytes] = field(repr=False)

    def read(self) -> bytes:
        """Fetch the photo."""
        return self.fetch(self.name)


@dataclass(slots=True)
class MemoryPhoto(_Labelled):
    """A photo in memory: the bytes of its file."""

    data: bytes = field(repr=False)
    name: str = ""

    def read(self) -> bytes:
        """Return the bytes."""
        return self.data


@dataclass(slots=True)
class RejectedPhoto(_Labelled):
    """What was named as a photo and cannot be one: reading it gives the reason."""

    name: str
    reason: str

    def read(self) -> bytes:
        """Raise the reason."""
        raise GoneError(self.reason)


#: What a listing has.
ListedPhoto = FilePhoto | TarPhoto | ParquetPhoto | ObjectPhoto | RejectedPhoto
