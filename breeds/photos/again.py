"""A photo again by its path, also inside of a file of many; and a photo of what another program has.

Another machine is asked only for what `remember` was told of, as the command line, or a call, has named it.
"""

from __future__ import annotations

import io
import os
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from breeds.errors import BreedsError, GoneError, PhotoError
from breeds.photos import parquet, storage, tars
from breeds.photos.addresses import is_url
from breeds.photos.decode import upright_rgb
from breeds.photos.limits import MAX_BYTES
from breeds.photos.photo import (
    FilePhoto,
    MemoryPhoto,
    ObjectPhoto,
    ParquetPhoto,
    Photo,
    RejectedPhoto,
    TarPhoto,
)
from breeds.photos.storage import SourceFile
from breeds.selection import CONTAINERS, is_address, is_container, is_parquet

_GONE = "no such file"
# What an array's last axis can be, beside none.
_BANDS = (1, 3, 4)
# Files of many photos and folders of photos on other machines, by how they are shown.
_files: dict[str, SourceFile] = {}
_folders: dict[str, str] = {}


def remember(shown: str, what: SourceFile | str) -> None:
    """Let paths that begin with `shown` lead to a file of many photos, or to a folder's address."""
    if isinstance(what, str):
        _folders[shown] = what
    else:
        _files[shown] = what


def photo_at(root: str, name: str, at: int = -1, size: int = 0) -> Photo:
    """Return the photo of a path; whether it is there, and may be read, is found when it is read.

    Parameters
    ----------
    root, name
        A folder, a file of many photos or an address, and the path from there; "" and a whole path.
    at, size
        Where it begins in a tar, and how many bytes it has, if that is known: then nothing is looked up.
    """
    path = os.path.join(root, name)
    if not is_address(path) and not any(f"{ending}/" in path.lower() for ending in CONTAINERS):
        return FilePhoto(name, root=root)
    try:
        for container, inside in _split(path):
            file = _files.get(container)
            if file is None and not is_address(container) and os.path.isfile(container):
                file = SourceFile.here(container)
            if file is not None:
                return _inside(file, inside, name, at, size)
        return _object(path, name, size) if is_address(path) else FilePhoto(name, root=root)
    except (BreedsError, GoneError) as error:
        return RejectedPhoto(name, str(error).rstrip("."))


def photo_of(value: Any) -> Photo:
    """Return what another program has as a photo; an image is held as a bitmap of its pixels.

    Parameters
    ----------
    value
        A path (text or `os.PathLike`), the bytes of a photo's file, a Pillow image, or an array, uint8
        (height, width), grey, or (height, width, bands), of 1, 3 or 4 bands: grey, RGB, or RGB and how
        opaque.

    Raises
    ------
    PhotoError
        If it is none of these, or cannot be a photo.
    """
    if isinstance(value, str | os.PathLike):
        path = os.fsdecode(value)
        if is_url(path):
            raise PhotoError("is on the web; fetch it, and give its bytes")
        return photo_at("", path)
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        if not 0 < len(data) <= MAX_BYTES:
            raise PhotoError(f"{len(data)} bytes; a photo has 1 to {MAX_BYTES}")
        return MemoryPhoto(data)
    if isinstance(value, np.ndarray):
        value = _image_of(value)
    if not isinstance(value, Image.Image):
        raise PhotoError(f"{type(value).__name__} is no photo; give a path, bytes, an image or an array")
    bitmap = io.BytesIO()
    upright_rgb(value).save(bitmap, "BMP")
    return MemoryPhoto(bitmap.getvalue())


def _image_of(array: NDArray[Any]) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in _BANDS)
    if not fits or array.dtype != np.uint8 or not array.size:
        raise PhotoError(
            f"an array of {array.dtype} {array.shape} is no photo; give uint8 of shape (height, width, 3)"
        )
    return Image.fromarray(array)


def _split(path: str) -> list[tuple[str, str]]:
    """Return where a path may go into a file of many photos: that file's path, and the name in it."""
    parts = path.split("/")
    return [
        ("/".join(parts[:at]), "/".join(parts[at:]))
        for at in range(1, len(parts))
        if is_container(parts[at - 1])
    ]


def _inside(file: SourceFile, inside: str, name: str, at: int, size: int) -> Photo:
    if is_parquet(file.name):
        number = parquet.row_number(inside)
        return RejectedPhoto(name, _GONE) if number < 0 else ParquetPhoto(name, file, number, size)
    if at < 0:
        at, size = _places(file).get(inside, (-1, 0))
    return (
        TarPhoto(name, file, at, size)
        if at >= 0
        else RejectedPhoto(name, "no photo of this name is in the tar")
    )


def _object(path: str, name: str, size: int) -> Photo:
    for folder, address in _folders.items():
        if path.startswith(f"{folder}/"):
            address += path[len(folder) :]
            file = SourceFile(address, size) if size else storage.find(address)
            return RejectedPhoto(name, _GONE) if file is None else ObjectPhoto(name, file)
    return RejectedPhoto(name, "is on another machine, which is asked only where the command names it")


@lru_cache(maxsize=4)
def _places(file: SourceFile) -> dict[str, tuple[int, int]]:
    return tars.places_in(file)
