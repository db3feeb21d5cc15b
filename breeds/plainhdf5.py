"""HDF5 files that may come from strangers: opened where they are open already, and nothing but plain data."""

from __future__ import annotations

import errno
import fcntl
import math
from io import FileIO, IOBase
from typing import Any

import h5py

#: How many bytes one block of a dataset may have; ours have some hundred thousand.
MOST_IN_A_BLOCK = 2**26
#: What the system says where a file's own bytes are at fault, not the disk or the permissions.
FAULTS_OF_THE_FILE = (errno.EINVAL, errno.EOVERFLOW)


def open_on(file: IOBase) -> h5py.File:
    """Open the HDF5 file that is open as `file`, whatever its name stands for by now; close it before `file`.

    Raises
    ------
    BlockingIOError
        If another program has it open to write.
    OSError
        If it is damaged or cannot be read.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as HDF5 does itself, and all who write by it
    except BlockingIOError:
        raise
    except OSError:  # no locks here, as on some NFS
        pass
    return h5py.File(_Exact(file.fileno(), closefd=False), "r")


class _Exact(FileIO):
    """A file that gives as many bytes as are asked for, or fails: HDF5 takes what it is given for all."""

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            read = super().readinto(view[done:])
            if not read:
                raise OSError(errno.EINVAL, "it ends too early")
            done += read
        return done


def plain_dataset(found: Any, name: str) -> h5py.Dataset:
    """Return a dataset if reading it takes no more than the file's own bytes.

    Everything about it that could send HDF5 elsewhere, or make much of little, is refused before
    anything is read: data in other files, text in heaps, compression, blocks of more than
    `MOST_IN_A_BLOCK`, and more data than the file has bytes.

    Raises
    ------
    ValueError
        If it is not so; the text says why, and begins with `name`.
    """
    # Text of variable length lies in heaps whose damage HDF5 does not survive.
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external or found.dtype.kind == "O":
        raise ValueError(f"{name} is not a plain dataset")
    settings = found.id.get_create_plist()
    filters = {settings.get_filter(number)[0] for number in range(settings.get_nfilters())}
    if filters - {h5py.h5z.FILTER_FLETCHER32}:
        raise ValueError(f"{name} is compressed")
    size = found.file.id.get_filesize()
    block = math.prod(found.chunks or (0,)) * found.dtype.itemsize
    if block > min(size, MOST_IN_A_BLOCK) or found.nbytes > size:
        raise ValueError(f"{name} claims more data than the file holds, or than is read at once")
    return found
