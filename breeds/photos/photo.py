"""One photo to classify, wherever its bytes are."""

from __future__ import annotations

from typing import Protocol


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
        """
        ...
