"""Files that are read by parts, on this machine or by an address: the only module that imports fsspec.

What is asked for is what a person has named on the command line, or in a call; a store's own word leads
nowhere (`breeds.photos.sources` keeps what was named). What fails in passing is tried again a few times:
not all of fsspec's file systems do that themselves, and none of them for an answer that was cut off.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from breeds.errors import BreedsError, GoneError
from breeds.files import open_regular
from breeds.photos.limits import size_fault
from breeds.selection import is_address, shown
from breeds.started import missing

T = TypeVar("T")

#: How long to wait before each further try, in seconds.
PAUSES = (0.2, 1.0, 3.0)
# Seconds for a connection and for each read; the tries are ours, so that they do not multiply.
_S3 = {"connect_timeout": 10, "read_timeout": 30, "retries": {"max_attempts": 0}}
# What `breeds[cloud]` brings; for others, fsspec says what is missing.
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "http": "aiohttp", "https": "aiohttp"}
# Names that a listing's entries have for when an object was written.
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
_NO_KEY = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError"}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file by its path or its address; `size` in bytes and `mtime_ns` are those of when it was listed.

    The address may hold a password, and is not shown.
    """

    address: str = field(repr=False)
    size: int
    mtime_ns: int = 0

    @staticmethod
    def here(path: str) -> SourceFile:
        """Look at a file on this machine.

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
        return SourceFile(path, status.st_size, status.st_mtime_ns)

    @property
    def name(self) -> str:
        """The path, or the address as it may be shown."""
        return shown(self.address) if is_address(self.address) else self.address

    def opened(self) -> io.RawIOBase:
        """Return it as one of Python's files, which is read as it is asked, without any bytes ahead."""
        return _Raw(self)

    def read_at(self, at: int, size: int) -> bytes:
        """Return `size` bytes from byte `at` on, fewer only at the end.

        Raises
        ------
        BreedsError
            If it is not there or not allowed, or the network fails in every try.
        """
        size = min(size, self.size - at)
        if size <= 0:
            return b""
        if is_address(self.address):
            return _tried(self.address, lambda: self._part(at, size))
        try:
            with open_regular(self.address, sys.maxsize) as file:
                file.seek(at)
                return file.read(size)
        except (OSError, ValueError) as error:
            raise _unreadable(self.address, error) from None

    def _part(self, at: int, size: int) -> bytes:
        system, path = _opened(self.address)
        data: bytes = system.cat_file(path, start=at, end=at + size)
        if len(data) != size:
            raise EOFError(f"{len(data)} of {size} bytes came")
        return data

    def read_whole(self) -> bytes:
        """Return all bytes of a photo that is a file of its own at an address.

        Raises
        ------
        GoneError
            If it has none or too many, or is not there any more, or has another size by now.
        BreedsError
            As `read_at` does.
        """
        if fault := size_fault(self.size):
            raise GoneError(fault)

        def ask() -> bytes:
            system, path = _opened(self.address)
            # A byte more than it had when it was listed: so a longer one is noticed, however long.
            data: bytes = system.cat_file(path, start=0, end=self.size + 1)
            if len(data) != self.size and system.info(path)["size"] != self.size:
                raise GoneError("changed while it was being read; run again")
            if len(data) != self.size:
                raise EOFError(f"{len(data)} of {self.size} bytes came")
            return data

        try:
            return _tried(self.address, ask)
        except _MissingError:
            raise GoneError("no such file") from None


class _Raw(io.RawIOBase):
    """A file that is read by parts, as Python's."""

    def __init__(self, file: SourceFile) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._file.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._file.read_at(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class _MissingError(BreedsError):
    """Nothing is there."""


def find(address: str) -> SourceFile | None:
    """Return a file by its address, or None if nothing is there, or no file.

    Raises
    ------
    BreedsError
        If it cannot be looked up.
    """

    def ask() -> SourceFile | None:
        system, path = _opened(address)
        entry = system.info(path)
        return _file(address, entry) if entry["type"] == "file" else None

    try:
        return _tried(address, ask)
    except _MissingError:
        return None


def list_folder(address: str) -> list[tuple[str, SourceFile]]:
    """Return the files in a folder by its address, with their names, in order.

    Raises
    ------
    BreedsError
        If it cannot be listed.
    """
    base = address.rstrip("/") + "/"
    entries = ((name, entry) for name, entry in _entries(base) if entry["type"] == "file")
    return [(name, _file(base + name, entry)) for name, entry in entries]


def walk(address: str) -> Iterator[tuple[str, SourceFile]]:
    """Yield every file below an address, folder by folder: its name from there, and the file.

    Memory holds one folder's entries at a time, about 1 kB each.

    Raises
    ------
    BreedsError
        If nothing is there, or it cannot be listed.
    """
    base = address.rstrip("/") + "/"
    waiting, is_empty = [""], True
    while waiting:
        inside = waiting.pop()
        folders = []
        for name, entry in _entries(base + inside):
            if not name:
                yield ".", _file(base, entry)  # passed over, and counted
            elif entry["type"] == "directory":
                folders.append(f"{inside}{name}/")
            else:
                is_empty = False
                yield inside + name, _file(f"{base}{inside}{name}", entry)
        waiting += sorted(folders, reverse=True)
    if is_empty:
        raise BreedsError(nothing_at(address))


def _entries(address: str) -> list[tuple[str, dict[str, Any]]]:
    def ask() -> list[tuple[str, dict[str, Any]]]:
        system, path = _opened(address)
        folder = path.rstrip("/") + "/"
        entries = system.ls(folder.rstrip("/"), detail=True, refresh=True)
        names = ((_after(str(entry["name"]), folder), entry) for entry in entries)
        # A folder may be an object too, which is nothing; what is below a name such as "a//b" is not reached.
        kept = ((name, entry) for name, entry in names if name or entry["type"] == "directory")
        return sorted(kept, key=lambda pair: pair[0])

    return _tried(address, ask)


def _after(name: str, folder: str) -> str:
    """Return the name of an entry in its folder, "" for what is none."""
    name = name.rstrip("/")
    if "://" in name and "://" not in folder:
        name = name.partition("://")[2]
    if not name.startswith(folder):
        return ""
    name = name[len(folder) :]
    return "" if "/" in name or name in (".", "..") else name


def _file(address: str, entry: dict[str, Any]) -> SourceFile:
    when = next((entry[name] for name in _TIMES if isinstance(entry.get(name), datetime)), None)
    return SourceFile(address, int(entry.get("size") or 0), int(when.timestamp()) * 10**9 if when else 0)


def _opened(address: str) -> tuple[Any, str]:
    """Return what reaches an address, kept by fsspec for the next time, and the path there."""
    scheme = address.partition("://")[0].lower()
    options: dict[str, Any] = {"config_kwargs": _S3} if scheme in ("s3", "s3a") else {}
    try:
        import fsspec

        system: tuple[Any, str] = fsspec.url_to_fs(address, use_listings_cache=False, **options)
    except ImportError as error:
        package = "fsspec" if error.name == "fsspec" else _PACKAGES.get(scheme)
        if package is not None:
            raise BreedsError(missing(package)) from None
        raise BreedsError(
            f"To reach {shown(address)} a package is missing ({str(error).rstrip('.')}); install it with pip."
        ) from None
    except ValueError as error:
        if "rotocol" not in str(error):
            raise
        raise BreedsError(
            f"{shown(address)}: nothing here reaches such addresses; try s3:// or gs://."
        ) from None
    return system


def _tried(address: str, ask: Callable[[], T]) -> T:
    """Return what `ask` gives, in the first try that does not fail in passing.

    Raises
    ------
    BreedsError
        What went wrong, in a sentence that shows no password.
    """
    for pause in (*PAUSES, None):
        try:
            return ask()
        except (BreedsError, GoneError):
            raise
        except Exception as error:  # its libraries raise nearly anything
            _refuse_for_good(address, error)
            if pause is None:
                raise BreedsError(
                    f"{shown(address)} cannot be read just now ({type(error).__name__}, tried "
                    f"{len(PAUSES) + 1} times); nothing is lost: run the command again when it can."
                ) from None
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _refuse_for_good(address: str, error: Exception) -> None:
    name, text = shown(address), str(error)
    if isinstance(error, FileNotFoundError) or "NoSuchBucket" in text:
        raise _MissingError(nothing_at(address)) from None
    if _NO_KEY & {kind.__name__ for kind in type(error).__mro__}:
        raise BreedsError(
            f"There is no key to read {name} with; set one up as its storage asks, such as by AWS_PROFILE."
        ) from None
    if isinstance(error, PermissionError) or " 403" in text or "status=403" in text or "status=401" in text:
        raise BreedsError(
            f"Reading {name} is not allowed with the key that is set up; ask its owner."
        ) from None
    if isinstance(error, MemoryError | NotImplementedError | IsADirectoryError):
        raise BreedsError(f"{name} cannot be read ({type(error).__name__}).") from None


def nothing_at(address: str) -> str:
    """Say that nothing is there."""
    return f"Nothing is at {shown(address)}; look at its name, and at what you may read there."


def _unreadable(path: str, error: Exception) -> BreedsError:
    reason = getattr(error, "strerror", None) or error
    return BreedsError(f"{path} cannot be read: {reason}; nothing is lost: mend that and run again.")
