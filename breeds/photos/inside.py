"""Photos by a path that leads into a file of many, such as ``photos-000.tar/rex.jpg``, or to another machine.

Another machine is asked only for what `remember` was told of, as the command line, or a call, has named it.
"""

from __future__ import annotations

import os
from functools import lru_cache

from breeds.errors import BreedsError, GoneError
from breeds.photos import cloud, rows, tars
from breeds.photos.endings import CONTAINERS, is_photo
from breeds.photos.local import Local
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


def read_inside(path: str) -> bytes:
    """Read a photo of a path that is no file's.

    Raises
    ------
    GoneError
        If it leads to nothing, or to another machine that nobody has named.
    """
    try:
        return _read_remote(path) if is_address(path) else _read_local(path)
    except BreedsError as error:
        raise GoneError(str(error).rstrip(".")) from None


def is_there(path: str) -> bool:
    """Say whether a photo is there, as a file of its own or in a file of many on this machine."""
    if is_address(path) or os.path.isfile(path):
        return not is_address(path)
    try:
        return bool(_read_local(path))
    except (BreedsError, GoneError):
        return False


def _read_local(path: str) -> bytes:
    for container, name in _split(path):
        if os.path.isfile(container):
            return _read_member(Local.of(container), name)
    raise GoneError("cannot be read: Not a directory")


def _read_remote(path: str) -> bytes:
    for container, name in _split(path):
        if container in _files:
            return _read_member(_files[container], name)
    for folder, address in _folders.items():
        if path.startswith(f"{folder}/"):
            found = cloud.found(address + path[len(folder) :])
            if found is None:
                raise GoneError(_GONE)
            return found.read()
    raise GoneError("is on another machine, which is asked only where the command names it")


def _split(path: str) -> list[tuple[str, str]]:
    """Return where a path may go into a file of many photos: that file's path, and the name in it."""
    parts = path.split("/")
    return [
        ("/".join(parts[:at]), "/".join(parts[at:]))
        for at in range(1, len(parts))
        if parts[at - 1].lower().endswith(CONTAINERS)
    ]


def _read_member(file: File, name: str) -> bytes:
    if file.name.lower().endswith(".parquet"):
        number = rows.row_number(name)
        if number < 0:
            raise GoneError(_GONE)
        return rows.Row(file, number, 0).read()
    place = _members(file).get(name)
    if place is None:
        raise GoneError("no photo of this name is in the tar")
    return tars.Member(file, *place).read()


@lru_cache(maxsize=4)
def _members(file: File) -> dict[str, tuple[int, int]]:
    return tars.members_of(file, is_photo)
