"""A photo again by the path that a listing, a store or a person gave it, also inside of a file of many.

Another machine is asked only for what `remember` was told of, as the command line, or a call, has named it.
"""

from __future__ import annotations

import os
from functools import lru_cache

from breeds.errors import BreedsError, GoneError
from breeds.photos import cloud, rows, tars
from breeds.photos.cloud import ObjectPhoto
from breeds.photos.endings import CONTAINERS, is_photo
from breeds.photos.local import Local
from breeds.photos.photo import FilePhoto, Photo, RejectedPhoto
from breeds.photos.tars import File
from breeds.places import is_address

_GONE = "no such file"
# Files of many photos and folders of photos on other machines, by how they are shown.
_files: dict[str, File] = {}
_folders: dict[str, str] = {}


def remember(shown: str, what: File | str) -> None:
    """Let paths that begin with `shown` lead to a file of many photos, or to a folder's address."""
    if isinstance(what, str):
        _folders[shown] = what
    else:
        _files[shown] = what


def photo_at(root: str, name: str) -> Photo:
    """Return the photo of a path; whether it is there, and may be read, is found when it is read.

    Parameters
    ----------
    root, name
        A folder, a file of many photos or an address, and the path from there; "" and a whole path.
    """
    path = os.path.join(root, name)
    if not is_address(path) and not any(f"{ending}/" in path.lower() for ending in CONTAINERS):
        return FilePhoto(name, root=root)
    try:
        return _remote(path) if is_address(path) else _local(path) or FilePhoto(name, root=root)
    except (BreedsError, GoneError) as error:
        return RejectedPhoto(name, str(error).rstrip("."))


def is_there(path: str) -> bool:
    """Say whether a photo is there, as a file of its own or in a file of many on this machine."""
    if is_address(path) or os.path.isfile(path):
        return not is_address(path)
    try:
        return not isinstance(photo := photo_at("", path), FilePhoto) and bool(photo.read())
    except (BreedsError, GoneError):
        return False


def _local(path: str) -> Photo | None:
    for container, name in _split(path):
        if os.path.isfile(container):
            return _member(Local.of(container), name, path)
    return None


def _remote(path: str) -> Photo:
    for container, name in _split(path):
        if container in _files:
            return _member(_files[container], name, path)
    for folder, address in _folders.items():
        if path.startswith(f"{folder}/"):
            found = cloud.found(address + path[len(folder) :])
            if found is None:
                raise GoneError(_GONE)
            return ObjectPhoto(path, found)
    raise GoneError("is on another machine, which is asked only where the command names it")


def _split(path: str) -> list[tuple[str, str]]:
    """Return where a path may go into a file of many photos: that file's path, and the name in it."""
    parts = path.split("/")
    return [
        ("/".join(parts[:at]), "/".join(parts[at:]))
        for at in range(1, len(parts))
        if parts[at - 1].lower().endswith(CONTAINERS)
    ]


def _member(file: File, name: str, path: str) -> Photo:
    if file.name.lower().endswith(".parquet"):
        number = rows.row_number(name)
        if number < 0:
            raise GoneError(_GONE)
        return rows.ParquetPhoto(path, file, number, 0)
    place = _members(file).get(name)
    if place is None:
        raise GoneError("no photo of this name is in the tar")
    return tars.TarPhoto(path, file, *place)


@lru_cache(maxsize=4)
def _members(file: File) -> dict[str, tuple[int, int]]:
    return tars.members_of(file, is_photo)
