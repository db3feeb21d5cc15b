"""One photo to classify, wherever its bytes are: what all kinds have in common, in a file, and in memory."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Protocol

from breeds.errors import GoneError
from breeds.files import UnfitError, read_regular
from breeds.photos.limits import MAX_BYTES


class Photo(Protocol):
    """A photo: a local file, a member of a tar, a row of Parquet, an object, an address, or in memory.

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


@dataclass(slots=True)
class FilePhoto:
    """A photo that is a file here; `name` starts from the folder `root`, "" for the one that we are in."""

    name: str
    label: str = ""
    split: str = ""
    group: str = ""
    root: str = field(default="", compare=False)

    @property
    def path(self) -> str:
        """What opens it."""
        return os.path.join(self.root, self.name)

    def read(self) -> bytes:
        """Read the file, as `Photo.read` says."""
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
class MemoryPhoto:
    """A photo in memory: the bytes of its file."""

    data: bytes = field(repr=False)
    name: str = ""
    label: str = ""
    split: str = ""
    group: str = ""

    def read(self) -> bytes:
        """Return the bytes."""
        return self.data


@dataclass(slots=True)
class RejectedPhoto:
    """What was named as a photo and cannot be one: reading it gives the reason."""

    name: str
    reason: str
    label: str = ""
    split: str = ""
    group: str = ""

    def read(self) -> bytes:
        """Raise the reason."""
        raise GoneError(self.reason)
