"""Find photos, wherever they are: folders and tables, tars, Parquet files, and folders on other machines."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

from breeds.errors import BreedsError
from breeds.photos import parquet, storage, tars
from breeds.photos.again import remember
from breeds.photos.folders import Layout, Listing, list_folder
from breeds.photos.photo import ListedPhoto, ObjectPhoto, ParquetPhoto, RejectedPhoto
from breeds.photos.storage import SourceFile
from breeds.selection import PACKED, Selection, is_address, is_container, is_parquet, is_photo, shown

#: How many files a pattern may name.
MOST_FILES = 100_000

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")
_MAGIC = re.compile(r"[{*?\[]")
_WEB = ("http://", "https://")


def find_photos(selection: Selection) -> Listing:
    """List photos with their labels.

    Parameters
    ----------
    selection
        Its `data` is a folder with a subfolder per class (a leading WordNet number such as ``n02085620-`` is
        left out of the class's name; subfolders named train, val and test are parts of the split
        with the classes below them), or in Kaggle's layout (``labels.csv`` and ``train/ID.jpg``),
        or flat (no labels); or a CSV file with columns ``path,label[,split]`` or ``id,breed``; or what
        `find_streamed` takes. Its `labels` is a CSV file for photos in a folder here.

    Raises
    ------
    BreedsError
        If nothing is there, no photo is found, or labels or classes do not fit the photos.
    """
    listing = find_streamed(selection.data)
    if listing is None:
        listing = list_folder(Path(selection.data), selection.labels)
    elif selection.labels is not None:
        raise BreedsError(f"--labels is for folders here; {selection.source} says its labels itself.")
    listing.selection = selection
    photos = listing.photos
    if not isinstance(photos, list):
        return listing
    if not photos:
        others = f" ({listing.ignored} other files)" if listing.ignored else ""
        raise BreedsError(f"No photos in {selection.source}{others}; name a folder with JPEG or PNG files.")
    # By the bytes of the paths: that is the order of ASCII texts, which then need no copies of themselves.
    is_plain = all(photo.name.isascii() for photo in photos)
    photos.sort(key=lambda photo: photo.name if is_plain else os.fsencode(photo.name))
    choice = listing.choose(photo.label for photo in photos)
    listing.photos, listing.selection = [photo for photo in photos if choice.keeps(photo.label)], None
    return listing


def photos_in(file: SourceFile) -> Iterator[ListedPhoto | None]:
    """Yield every photo of a tar or a Parquet file, as `breeds.photos.tars.photos_in` does."""
    if not is_parquet(file.name):
        yield from tars.photos_in(file)
        return
    for number, (data, reason, label, split) in enumerate(parquet.rows_of(file)):
        name = parquet.row_name(number)
        if reason:
            yield RejectedPhoto(name, reason, label=label, split=split)
        else:
            kept = data if len(data) <= tars.KEPT_BYTES else None
            yield ParquetPhoto(name, file, number, len(data), kept, label=label, split=split)


def _of_files(root: str, files: dict[str, SourceFile], ignored: int = 0) -> Listing:
    """Return the photos in files of many, by their names from `root`, read when it is their turn."""

    def photos() -> Iterator[ListedPhoto]:
        for name in sorted(files, key=os.fsencode):
            for photo in photos_in(files[name]):
                if photo is None:
                    listing.ignored += 1
                else:
                    photo.name = f"{name}/{photo.name}".rstrip("/")
                    yield photo

    for file in files.values():
        if is_address(file.address):
            remember(file.name, file)
    listing = Listing(root, photos(), ignored)
    return listing


def find_streamed(data: Path | str) -> Listing | None:
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
        shards = _shards(text)
        return _of_files(text, {name: _here(os.path.join(text, name)) for name in shards}) if shards else None
    if not is_container(text):
        return None
    if os.path.isfile(text):
        return _of_files(os.path.dirname(text), {os.path.basename(text): _here(text)})
    return _of_pattern(text, _expanded) if _MAGIC.search(text) and not os.path.exists(text) else None


def _shown(text: str) -> str:
    return shown(text) if is_address(text) else text


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
                if is_container(entry.name):
                    names.append(entry.name)
    except OSError:  # as will be told when it is listed
        return []
    return names


def _here(path: str) -> SourceFile:
    return SourceFile.here(os.path.abspath(path))


def _expanded(pattern: str) -> list[tuple[str, SourceFile]]:
    """Return the files here that a pattern without braces fits, with their names."""
    paths = [pattern] if os.path.lexists(pattern) else glob.glob(pattern)
    if not paths:
        raise BreedsError(f"No such file: {pattern}; name the tars or Parquet files that are there.")
    return [(path, _here(path)) for path in paths]


def _of_pattern(pattern: str, fitting: Callable[[str], Iterable[tuple[str, SourceFile]]]) -> Listing:
    """Return the photos in the files of many that a pattern names, by names from the folder that all are in.

    `fitting` gives those of a pattern without braces.
    """
    magic = _MAGIC.search(pattern)
    root = os.path.dirname(_shown(pattern[: magic.start()] if magic else pattern))
    files = [found for name in _spelled_out(pattern) for found in fitting(name)]
    return _of_files(root, {name[len(root) :].lstrip("/"): file for name, file in files})


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


def _of_address(address: str) -> Listing:
    if "::" in address:
        raise BreedsError(f"{shown(address)}: addresses inside of addresses are not taken; name one.")
    if address.lower().startswith(("file://", "local://")):
        raise BreedsError(f"{shown(address)} is on this machine; name its path instead.")
    is_web = address.lower().startswith(_WEB)
    path = shown(address) if is_web else address
    if is_container(path):
        return _of_pattern(address, _fitting)
    if is_web:
        raise BreedsError(
            f"{shown(address)} names no tar and no Parquet file, and folders of the web cannot be listed."
        )
    return _of_folder(address.rstrip("/"))


def _fitting(address: str) -> list[tuple[str, SourceFile]]:
    """Return the files that an address without braces fits, whose last part may have * and ?."""
    folder, _, last = address.rpartition("/")
    if _MAGIC.search(last) and not address.lower().startswith(_WEB):
        found = [file for name, file in storage.list_folder(folder) if fnmatchcase(name, last)]
    else:
        found = [file for file in [storage.find(address)] if file is not None]
    if not found:
        raise BreedsError(storage.nothing_at(address))
    return [(file.name, file) for file in found]


def _of_folder(address: str) -> Listing:
    """Return the photos below an address, or those in the files of many if there are only such files."""
    root, others = shown(address), 0
    photos: dict[str, SourceFile] = {}
    files: dict[str, SourceFile] = {}
    for name, file in storage.walk(address):
        if name == "labels.csv":
            raise BreedsError(
                f"{root} has a labels.csv, which is read in folders here only; put the photos into "
                f"a folder for each class, or into tars with their labels."
            )
        hidden = any(part.startswith(".") for part in name.split("/"))
        if not hidden and is_photo(name):
            photos[name] = file
        elif not hidden and is_container(name):
            files[name] = file
        else:
            others += 1
    if files and not photos:
        return _of_files(root, files, others)
    remember(root, address)
    layout = Layout.of(list(photos))
    placed = (layout.photo(name) for name in photos)
    listed: list[ListedPhoto] = [
        ObjectPhoto(one.name, photos[one.name], label=one.label, split=one.split) for one in placed
    ]
    return Listing(root, listed, others + len(files))
