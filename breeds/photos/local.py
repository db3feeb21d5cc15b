"""A file on this machine that holds many photos, read by parts."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from breeds.errors import BreedsError
from breeds.files import open_regular


@dataclass(frozen=True, slots=True)
class Local:
    """A file by its path; `size` in bytes and `mtime_ns` are those of when it was listed."""

    address: str
    size: int
    mtime_ns: int = 0

    @staticmethod
    def of(path: str) -> Local:
        """Look at a file.

        Raises
        ------
        BreedsError
            If it cannot be looked at, or is no regular file.
        """
        try:
            with open_regular(path, sys.maxsize) as file:
                status = os.fstat(file.fileno())
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from None
        return Local(path, status.st_size, status.st_mtime_ns)

    @property
    def name(self) -> str:
        """The path."""
        return self.address

    def read_at(self, at: int, size: int) -> bytes:
        """Return `size` bytes from byte `at` on, fewer only at the end.

        Raises
        ------
        BreedsError
            If it cannot be read.
        """
        try:
            with open_regular(self.address, sys.maxsize) as file:
                file.seek(at)
                return file.read(max(0, min(size, self.size - at)))
        except (OSError, ValueError) as error:
            raise _unreadable(self.address, error) from None


def _unreadable(path: str, error: Exception) -> BreedsError:
    reason = getattr(error, "strerror", None) or error
    return BreedsError(f"{path} cannot be read: {reason}; nothing is lost: mend that and run again.")
