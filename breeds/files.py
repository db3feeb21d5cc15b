"""Files that are whole or not there at all: write aside, fsync, rename; one writer at a time.

And one way to read them, whoever put them there: regular files only, without ever waiting for one, of a
size that its kind can have.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from breeds.errors import BreedsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A temporary file of ours: the name of what it will be, and a number drawn for it alone.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp", re.DOTALL)
_LONGEST_NAME = 255
# What a lock file says of its holder, and all that is ever repeated from one.
_HOLDER = re.compile(r"process \d+ on [\w.-]{1,255} since [\d:\- ]{19}")
# Nothing is waited for, such as the other end of a pipe.
_AT_ONCE = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class UnfitError(OSError):
    """What a path leads to is not to be read, whatever it holds: its `strerror` says why."""


def open_regular(path: str | Path, most: int) -> BufferedReader:
    """Open a regular file for reading; what is checked is what is open, whatever becomes of its name.

    Parameters
    ----------
    most
        How many bytes a file of this kind can have.

    Raises
    ------
    UnfitError
        If it is no regular file (a pipe, a device, a folder), or has more bytes.
    OSError
        If it is not there, or cannot be opened.
    """
    _check_regular(os.stat(path), most)  # opening some devices does something already
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | _AT_ONCE))  # noqa: SIM115
    try:
        _check_regular(os.fstat(file.fileno()), most)
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: str | Path, most: int) -> bytes:
    """Read all of a regular file, as `open_regular` opens it.

    Raises
    ------
    UnfitError
        As `open_regular` does, and if the file grows meanwhile.
    OSError
        If it is not there, or cannot be read.
    """
    with open_regular(path, most) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:  # as files of the system's say, such as /proc/kmsg, which wait, or lose what is read
            return b""
        data = file.read(size + 1)
        if len(data) > size:
            raise UnfitError(errno.EFBIG, "it grew while it was being read")
        return data


def read_safetensors(path: Path, most: int) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read all arrays of a safetensors file, and its metadata, out of bytes that were read once.

    Raises
    ------
    OSError
        As `read_regular` does.
    SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError
        If it is damaged, or something else.
    """
    from safetensors.numpy import load

    data = read_regular(path, most)
    arrays = load(data)  # checks the header, and gives all but the metadata in it
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return arrays, dict(header.get("__metadata__") or {})


def _check_regular(status: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnfitError(errno.EINVAL, "not a regular file")
    if status.st_size > most:
        mebibytes = f"{status.st_size / 2**20:.0f} MiB is over the limit of {most // 2**20} MiB"
        raise UnfitError(errno.EFBIG, mebibytes)


def cache_folder() -> Path:
    """Return where what can be made again is kept: ``$BREEDS_CACHE``, or the user's cache folder."""
    chosen = os.environ.get("BREEDS_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "breeds"


def check_writable(path: Path) -> None:
    """Make sure that a file could be written at `path`, before any work, leaving nothing behind.

    Raises
    ------
    BreedsError
        If `path` is a folder, or no file can be made in its folder (or where that folder would go).
    """
    if os.path.isdir(path):
        raise BreedsError(f"Cannot write {path}: it is a folder; name a file.")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise BreedsError(f"Cannot write {path}: it is not a regular file; name another.")
    if len(os.fsencode(_aside(path).name)) > _LONGEST_NAME:
        raise BreedsError(f"Cannot write {path}: its name is too long; choose a shorter one.")
    folder = path.absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BreedsError(f"Cannot write {path}: {error.strerror}; choose another place.") from None


@contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success fsync it and rename it into place.

    A crash at any instant leaves the old file, or the new one, never a part. On an exception the
    temporary file is removed and `path` is untouched.

    Raises
    ------
    BreedsError
        If the disk is full or the place cannot be written.
    """
    with temporary_beside(path) as aside:
        yield aside
        commit(aside, path)


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` for `commit` to rename; whatever is left there is removed.

    A shared lock (flock) is held on the file while the block runs: that is how others know that its
    writer lives, in whatever container or machine. h5py must be told ``locking=False`` to write it.

    Raises
    ------
    BreedsError
        If the disk is full or the place cannot be written.
    """
    path = Path(os.path.realpath(path))  # a link stays a link: what it points to is replaced
    aside, handle = None, None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        aside, handle = _create_aside(path)
        yield aside
    except OSError as error:
        reason = error.strerror or str(error)
        raise BreedsError(f"Cannot write {path}: {reason}; nothing was changed there.") from error
    finally:
        if aside is not None and handle is not None:
            with suppress(OSError):
                aside.unlink()
            os.close(handle)


def _create_aside(path: Path) -> tuple[Path, int]:
    """Create a temporary file of a name of its own, and lock it before anybody takes it for a leftover."""
    while True:
        aside = _aside(path)
        handle = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(aside)):
                return aside, handle
        except (BlockingIOError, FileNotFoundError):
            pass  # taken for a leftover between the two steps
        except OSError:  # no locks here, as on some NFS: nobody else can take one either
            return aside, handle
        os.close(handle)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def commit(aside: Path, path: Path) -> None:
    """Fsync the file `aside`, rename it to `path` in the same folder, and fsync the folder."""
    path = Path(os.path.realpath(path))
    with open(aside, "rb") as file:
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Fsync a folder: what was renamed or removed in it stays so."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of writers that were killed: those whose lock can be taken."""
    for leftover in folder.glob(".*.tmp"):
        if not _TEMPORARY.fullmatch(leftover.name):
            continue
        # Whatever cannot be opened or locked is left alone.
        with suppress(OSError):
            handle = os.open(leftover, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()
            finally:
                os.close(handle)


@contextmanager
def hold(path: Path, what: str, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; the system frees it if the process dies.

    A lock file that was there before is removed, never written: it may be another name of somebody's file.
    (The library filelock empties what it locks, and cannot say who holds it.)

    Parameters
    ----------
    what
        What is written, for the text.
    patience
        For how many seconds to wait for another process that holds it.

    Raises
    ------
    BreedsError
        If another process holds it (the text names `what` and that process), or it is a link.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _lock_in_time(path, patience)
    except _HeldError as holder:
        raise BreedsError(f"{what} is being written by {holder}; wait for it, or stop it.") from None
    except OSError as error:
        raise BreedsError(f"Cannot write {path}: {error.strerror}.") from None
    try:
        text = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
        try:
            os.pwrite(handle, text.encode(errors="replace"), 0)
        except OSError as error:
            raise BreedsError(f"Cannot write {path}: {error.strerror}.") from None
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


class _HeldError(Exception):
    """Another process holds a lock: the text says which."""


def _lock_in_time(path: Path, patience: float) -> int:
    """Lock `path` as soon as its holder lets go of it, if that is within `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        try:
            return _lock(path)
        except _HeldError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.01)


def _lock(path: Path) -> int:
    """Create and lock `path`, making sure that the file locked is the one that the name stands for.

    The holder removes the file before letting go, so a lock won on a removed file is no lock.
    """
    while True:
        handle, created = _open_lock(path)
        kept = False
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UnfitError(errno.EINVAL, "it is not a regular file; remove it")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.lstat(path)):
                    if created:
                        kept = True
                        return handle
                    path.unlink()  # its holder was killed
        except BlockingIOError:
            raise _HeldError(_holder(handle)) from None
        finally:
            if not kept:
                os.close(handle)


def _open_lock(path: Path) -> tuple[int, bool]:
    """Open a lock file, and say whether it was created just now; a link is never followed."""
    how = os.O_RDWR | os.O_NOFOLLOW | _AT_ONCE
    while True:
        with suppress(FileExistsError):
            return os.open(path, how | os.O_CREAT | os.O_EXCL, 0o644), True
        if path.is_symlink():
            raise UnfitError(errno.ELOOP, "it is a link, which no lock of ours is; remove it")
        with suppress(FileNotFoundError):
            return os.open(path, how), False


def _holder(handle: int) -> str:
    """Return what a lock file says of its holder, if it says it as we do."""
    text = os.pread(handle, 400, 0).decode(errors="replace").strip()
    return text if _HOLDER.fullmatch(text) else "another process"
