"""Where photos are that are no files in a folder here: tars, Parquet files, and folders on other machines."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

from breeds.errors import BreedsError
from breeds.photos import cloud, rows, tars
from breeds.photos.cloud import Remote
from breeds.photos.endings import CONTAINERS, PACKED, is_photo
from breeds.photos.find import Layout
from breeds.photos.inside import remember
from breeds.photos.local import Local
from breeds.photos.photo import FilePhoto
from breeds.photos.tars import File, Found
from breeds.places import is_address, shown

#: How many files a pattern may name.
MOST_FILES = 100_000

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")
_MAGIC = re.compile(r"[{*?\[]")
_WEB = ("http://", "https://")


@dataclass
class Streamed:
    """Photos that are read as a stream: in files of many, or each a file on another machine.

    Parameters
    ----------
    root
        What all names start from: a folder, or an address without passwords.
    files
        Files of many photos by their names from `root`, in order.
    objects
        Photos that are files of their own, in order, `base` being their folder's address.
    ignored
        How many other files were passed over.
    """

    root: str
    files: list[tuple[str, File]] = field(default_factory=list)
    objects: list[tuple[FilePhoto, Remote]] = field(default_factory=list)
    base: str = field(default="", repr=False)
    ignored: int = 0

    def found(
        self, read: Callable[[Iterable[File]], Iterator[Iterable[Found | None]]] | None = None
    ) -> Iterator[tuple[int, Found]]:
        """Yield each photo of the files, in order, and the number of its file; `Found.path` is from `root`.

        Parameters
        ----------
        read
            Yields what `inside` gives for each file, in order.

        Raises
        ------
        BreedsError
            If a file cannot be read just now, or is none of its kind.
        """
        files = [file for _, file in self.files]
        contents = read(files) if read else map(inside, files)
        for number, ((name, _), photos) in enumerate(zip(self.files, contents, strict=True)):
            for photo in photos:
                if photo is None:
                    self.ignored += 1
                    continue
                photo.path = f"{name}/{photo.path}".rstrip("/")
                yield number, photo


def inside(file: File) -> Iterator[Found | None]:
    """Yield every photo of a file of many, as `breeds.photos.tars.found_in` does."""
    return rows.found_in(file) if _is_parquet(file.name) else tars.found_in(file, is_photo)


def streamed(data: Path | str) -> Streamed | None:
    """Return the photos of a source that are read as a stream, or None if it is a folder of files, or a list.

    Parameters
    ----------
    data
        A tar, a Parquet file, or a folder that has nothing else, here or by an address; several by a pattern
        such as ``photos-{000..009}.tar`` or ``photos-*.tar``; or the address of a folder of photos.

    Raises
    ------
    BreedsError
        If nothing is there, or it cannot be looked at.
    """
    text = os.fspath(data)
    if text.lower().endswith(PACKED):
        raise BreedsError(
            f"{_shown(text)} is compressed: its photos have no places; unpack it to a plain tar."
        )
    if is_address(text):
        return _of_address(text)
    if os.path.isdir(text):
        names = _shards(text)
        return _local(text, names) if names else None
    if os.path.exists(text):
        is_one = text.lower().endswith(CONTAINERS) and os.path.isfile(text)
        return _local(*_parted(text, [text])) if is_one else None
    if not (_MAGIC.search(text) and text.lower().endswith(CONTAINERS)):
        return None
    found = [path for name in _spelled_out(text) for path in _expanded(name)]
    return _local(*_parted(text, found))


def _shown(text: str) -> str:
    return shown(text) if is_address(text) else text


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(".parquet")


def _shards(folder: str) -> list[str]:
    """Return the files of many photos in a folder that has no folders and no photos beside them."""
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir() or is_photo(entry.name):
                    return []
                if entry.name.lower().endswith(CONTAINERS):
                    names.append(entry.name)
    except OSError:  # as will be told when it is listed
        return []
    return names


def _expanded(pattern: str) -> list[str]:
    """Return the files here that a pattern without braces fits."""
    if os.path.lexists(pattern):
        return [pattern]
    found = glob.glob(pattern)
    if not found:
        raise BreedsError(f"No such file: {pattern}; name the tars or Parquet files that are there.")
    return found


def _parted(pattern: str, paths: list[str]) -> tuple[str, list[str]]:
    """Return the folder of what a pattern names, as far as it is one for all, and the names from there."""
    folder = _plain_folder(pattern)
    return folder, [path[len(folder) :].lstrip("/") for path in paths]


def _plain_folder(pattern: str) -> str:
    magic = _MAGIC.search(pattern)
    return os.path.dirname(pattern[: magic.start()] if magic else pattern)


def _local(folder: str, names: list[str]) -> Streamed:
    names = sorted(set(names), key=os.fsencode)
    files: list[tuple[str, File]] = [(name, Local.of(os.path.join(folder, name))) for name in names]
    return Streamed(folder, files)


def _spelled_out(pattern: str) -> list[str]:
    """Return every name that braces stand for: ``{000..009}`` and ``{train,val}``."""
    texts: list[list[str]] = []
    at = count = 0
    for found in _BRACES.finditer(pattern):
        choices = _choices(found[1])
        count = (count or 1) * len(choices)
        if count > MOST_FILES:
            raise BreedsError(f"{_shown(pattern)} names more than {MOST_FILES} files; name fewer at a time.")
        texts += [[pattern[at : found.start()]], choices]
        at = found.end()
    return ["".join(parts) for parts in product(*texts, [pattern[at:]])]


def _choices(inside: str) -> list[str]:
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        return inside.split(",")
    first, last = int(numbers[1]), int(numbers[2])
    if last - first >= MOST_FILES:
        raise BreedsError(f"{{{inside}}} names more than {MOST_FILES} files; name fewer at a time.")
    return [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]


def _of_address(address: str) -> Streamed:
    if "::" in address:
        raise BreedsError(f"{shown(address)}: addresses inside of addresses are not taken; name one.")
    if address.lower().startswith(("file://", "local://")):
        raise BreedsError(f"{shown(address)} is on this machine; name its path instead.")
    is_web = address.lower().startswith(_WEB)
    path = shown(address) if is_web else address
    if path.lower().endswith(CONTAINERS):
        return _of_addresses(address, is_web)
    if is_web:
        raise BreedsError(
            f"{shown(address)} names no tar and no Parquet file, and folders of the web cannot be listed."
        )
    return _of_folder(address.rstrip("/"))


def _of_addresses(pattern: str, is_web: bool) -> Streamed:
    """Return the files of many photos that an address or a pattern of it names."""
    files: dict[str, Remote] = {}
    for address in _spelled_out(pattern):
        for found in [cloud.found(address)] if is_web else _fitting(address):
            if found is None:
                raise BreedsError(
                    f"Nothing is at {shown(address)}; look at its name, and at what you may read there."
                )
            files[found.name] = found
    root = _plain_folder(shown(pattern))
    for name, file in files.items():
        remember(name, file)
    ordered = sorted(files, key=os.fsencode)
    return Streamed(root, [(name[len(root) + 1 :], files[name]) for name in ordered])


def _fitting(address: str) -> list[Remote | None]:
    """Return the files that an address fits, whose last part may have * and ?."""
    folder, _, last = address.rpartition("/")
    if not _MAGIC.search(last):
        return [cloud.found(address)]
    found: list[Remote | None] = [file for name, file in cloud.listed(folder) if fnmatchcase(name, last)]
    return found or [None]


def _of_folder(address: str) -> Streamed:
    """Return the photos below an address, or the files of many photos if there are only those."""
    photos: dict[str, Remote] = {}
    files: dict[str, Remote] = {}
    others = 0
    for name, file in cloud.walk(address):
        if name == "labels.csv":
            raise BreedsError(
                f"{shown(address)} has a labels.csv, which is read in folders here only; put the photos into "
                f"a folder for each class, or into tars with their labels."
            )
        hidden = any(part.startswith(".") for part in name.split("/"))
        if not hidden and is_photo(name):
            photos[name] = file
        elif not hidden and name.lower().endswith(CONTAINERS):
            files[name] = file
        else:
            others += 1
    root = shown(address)
    if not photos:
        if not files:
            raise BreedsError(f"No photos in {root} ({others} other files); name what holds your photos.")
        for name, file in files.items():
            remember(f"{root}/{name}", file)
        return Streamed(
            root, [(name, files[name]) for name in sorted(files, key=os.fsencode)], ignored=others
        )
    remember(root, address)
    layout = Layout.of(list(photos))
    ordered = sorted(photos, key=os.fsencode)
    objects = [(layout.photo(name), photos[name]) for name in ordered]
    return Streamed(root, objects=objects, base=address, ignored=others + len(files))
