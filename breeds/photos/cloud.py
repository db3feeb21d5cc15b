"""Photos in object storage, and whatever else fsspec reaches: the only module that imports it.

What is asked for is what a person has named on the command line, or in a call; a store's own word leads
nowhere (`breeds.photos.inside` keeps what was named). What fails in passing is tried again a few times.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from breeds.errors import BreedsError, GoneError
from breeds.photos.limits import size_fault
from breeds.places import shown
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


@dataclass(frozen=True, slots=True)
class Remote:
    """A file by its address; `size` in bytes and `mtime_ns` are those of when it was listed.

    The address may hold a password, and is not shown.
    """

    address: str = field(repr=False)
    size: int
    mtime_ns: int = 0

    @property
    def name(self) -> str:
        """The address as it may be shown."""
        return shown(self.address)

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

        def ask() -> bytes:
            system, path = _opened(self.address)
            data: bytes = system.cat_file(path, start=at, end=at + size)
            if len(data) != size:
                raise EOFError(f"{len(data)} of {size} bytes came")
            return data

        return _tried(self.address, ask)

    def read_whole(self) -> bytes:
        """Return all of a photo's bytes.

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


@dataclass(slots=True)
class ObjectPhoto:
    """A photo that is a file of its own on another machine."""

    name: str
    file: Remote
    label: str = ""
    split: str = ""
    group: str = ""

    def read(self) -> bytes:
        """Return the photo's bytes, as `Remote.read_whole` does."""
        return self.file.read_whole()


class _MissingError(BreedsError):
    """Nothing is there."""


def found(address: str) -> Remote | None:
    """Return a file by its address, or None if nothing is there, or no file.

    Raises
    ------
    BreedsError
        If it cannot be looked up.
    """

    def ask() -> Remote | None:
        system, path = _opened(address)
        entry = system.info(path)
        return _remote(address, entry) if entry["type"] == "file" else None

    try:
        return _tried(address, ask)
    except _MissingError:
        return None


def listed(address: str) -> list[tuple[str, Remote]]:
    """Return the files in a folder by its address, with their names, in order.

    Raises
    ------
    BreedsError
        If it cannot be listed.
    """
    base = address.rstrip("/") + "/"
    entries = ((name, entry) for name, entry in _listed(base, "") if entry["type"] == "file")
    return [(name, _remote(base + name, entry)) for name, entry in entries]


def walk(address: str) -> Iterator[tuple[str, Remote]]:
    """Yield every file below an address, folder by folder: its name from there, and the file.

    Memory holds one folder's entries at a time, about 1 kB each.

    Raises
    ------
    BreedsError
        If nothing is there, or it cannot be listed.
    """
    base = address.rstrip("/") + "/"
    waiting, seen = [""], 0
    while waiting:
        inside = waiting.pop()
        folders = []
        for name, entry in _listed(base, inside):
            if not name:
                yield ".", _remote(base, entry)  # passed over, and counted
            elif entry["type"] == "directory":
                folders.append(f"{inside}{name}/")
            else:
                seen += 1
                yield inside + name, _remote(f"{base}{inside}{name}", entry)
        waiting += sorted(folders, reverse=True)
    if not seen:
        raise BreedsError(
            f"Nothing is at {shown(address)}; look at its name, and at what you may read there."
        )


def _listed(base: str, inside: str) -> list[tuple[str, dict[str, Any]]]:
    def ask() -> list[tuple[str, dict[str, Any]]]:
        system, path = _opened(base + inside)
        folder = path.rstrip("/") + "/"
        entries = system.ls(folder.rstrip("/"), detail=True, refresh=True)
        names = ((_after(str(entry["name"]), folder), entry) for entry in entries)
        # A folder may be an object too, which is nothing; what is below a name such as "a//b" is not reached.
        kept = ((name, entry) for name, entry in names if name or entry["type"] == "directory")
        return sorted(kept, key=lambda pair: pair[0])

    return _tried(base + inside, ask)


def _after(name: str, folder: str) -> str:
    """Return the name of an entry in its folder, "" for what is none."""
    name = name.rstrip("/")
    if "://" in name and "://" not in folder:
        name = name.partition("://")[2]
    if not name.startswith(folder):
        return ""
    name = name[len(folder) :]
    return "" if "/" in name or name in (".", "..") else name


def _remote(address: str, entry: dict[str, Any]) -> Remote:
    when = next((entry[name] for name in _TIMES if isinstance(entry.get(name), datetime)), None)
    return Remote(address, int(entry.get("size") or 0), int(when.timestamp()) * 10**9 if when else 0)


def _opened(address: str) -> tuple[Any, str]:
    """Return what reaches an address, kept by fsspec for the next time, and the path there."""
    try:
        import fsspec

        system: tuple[Any, str] = fsspec.url_to_fs(address, **_options(address))
    except ImportError as error:
        scheme = address.partition("://")[0].lower()
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


def _options(address: str) -> dict[str, Any]:
    if address.partition("://")[0].lower() in ("s3", "s3a"):
        return {"config_kwargs": _S3, "use_listings_cache": False}
    return {"use_listings_cache": False}


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
    name = shown(address)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    if isinstance(error, FileNotFoundError) or "NoSuchBucket" in text:
        raise _MissingError(
            f"Nothing is at {name}; look at its name, and at what you may read there."
        ) from None
    if kinds & {
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "DefaultCredentialsError",
    }:
        raise BreedsError(
            f"There is no key to read {name} with; set one up as its storage asks, such as by AWS_PROFILE."
        ) from None
    if isinstance(error, PermissionError) or " 403" in text or "status=403" in text or "status=401" in text:
        raise BreedsError(
            f"Reading {name} is not allowed with the key that is set up; ask its owner."
        ) from None
    if isinstance(error, MemoryError | NotImplementedError | IsADirectoryError):
        raise BreedsError(f"{name} cannot be read ({type(error).__name__}).") from None
