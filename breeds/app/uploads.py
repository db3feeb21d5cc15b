"""Photos that came with a request, as private temporary files within bounds; names are only shown.

A body is read piece by piece: nothing is decoded, and no more is kept than may be. The folder is locked
while its process lives, so the next one can tell and clean up what a killed one left behind.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from breeds.photos.decode import MAX_BYTES

#: How many photos one request may have, and how many other fields of how many bytes.
MOST_FILES, MOST_FIELDS, MOST_FIELD_BYTES = 256, 16, 8192
#: How many bytes all photos that are here at once may have, as a multiple of what one request may have.
_REQUESTS_AT_ONCE = 4
_PREFIX, _LOCK = "breeds-app-", "lock"
_LONGEST_NAME = 255


class RefusedError(Exception):
    """A request that is not served: the status of the answer, and a sentence for people."""

    def __init__(self, status: int, sentence: str, retry_after: int = 0) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence
        self.headers = {"retry-after": str(retry_after)} if retry_after else {}


@dataclass
class Upload:
    """A photo that came: where its bytes are, their key, and what the sender calls it.

    `error` says why there is none: then there is no file.
    """

    name: str
    path: str = ""
    key: str = ""
    size: int = 0
    error: str = ""


@dataclass
class Form:
    """What came with a request: photos in order, and text by the name of its field."""

    uploads: list[Upload] = field(default_factory=list)
    fields: dict[str, list[str]] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Return the first text of a field, "" if there is none."""
        return next(iter(self.fields.get(name, [])), "")

    def texts(self, name: str) -> list[str]:
        """Return all texts of a field that are not empty."""
        return [text for text in self.fields.get(name, []) if text]


class Uploads:
    """The folder for photos of requests: only its owner may enter, and it is gone at the end.

    Parameters
    ----------
    most_bytes
        What all photos of one request may have.
    base
        Where the folder is made; by default, where the system has its temporary files.
    """

    def __init__(self, most_bytes: int, base: Path | None = None) -> None:
        self.most_bytes = most_bytes
        self._here = 0
        self._numbers: Iterator[int] = count()
        base = base or Path(tempfile.gettempdir())
        _remove_leftovers(base)
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))  # 0700
        self._lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with suppress(OSError):  # no locks here, as on some NFS
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_path(self) -> str:
        """Return a path for a new file, which nothing that a stranger says is part of."""
        return str(self.folder / f"{next(self._numbers)}.photo")

    def keep(self, upload: Upload, data: bytes) -> None:
        """Keep the bytes of a photo that came otherwise, such as from the web.

        Raises
        ------
        RefusedError
            If there is no room.
        """
        self.take_room(len(data))
        upload.size, upload.path, upload.key = len(data), self.new_path(), hashlib.sha256(data).hexdigest()
        with no_room_left(), open(upload.path, "xb", opener=_private) as file:
            file.write(data)

    def remove(self, uploads: list[Upload]) -> None:
        """Remove the files of these photos."""
        for upload in uploads:
            if upload.path:
                with suppress(OSError):
                    os.unlink(upload.path)
            self._here -= upload.size
            upload.path, upload.size = "", 0

    def take_room(self, size: int) -> None:
        """Count bytes that are about to be written.

        Raises
        ------
        RefusedError
            If requests keep too many already.
        """
        if self._here + size > _REQUESTS_AT_ONCE * self.most_bytes:
            raise RefusedError(503, "Too many photos are being sent at once; try again in a moment.", 2)
        self._here += size

    async def receive(self, content_type: str, body: AsyncIterator[bytes]) -> Form:
        """Read a body of multipart/form-data; on any error nothing of it is kept.

        Raises
        ------
        RefusedError
            If it is no such body, or too large, or has too many parts.
        """
        kind, options = parse_options_header(content_type.encode("latin-1", "replace").decode("latin-1"))
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise RefusedError(415, "Send the photos as multipart/form-data, in the field files.")
        parts = _Parts(self)
        try:
            parser = MultipartParser(boundary, parts.callbacks)  # type: ignore[arg-type]
            async for piece in body:
                with no_room_left():
                    parser.write(piece)
            parser.finalize()
            if not parts.ended:
                raise RefusedError(400, "The body ends in the middle of a part.")
            return parts.form
        except FormParserError:
            parts.give_up()
            raise RefusedError(400, "The body is not well-formed multipart/form-data.") from None
        except BaseException:
            parts.give_up()
            raise


class _Parts:
    """The parts of a body as they come: files to disk, with their key computed on the way; fields to text."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self.form = Form()
        self.ended = False
        self._total = self._fields = 0
        self._header = self._value = b""
        self._disposition = b""
        self._file: BinaryIO | None = None
        self._upload: Upload | None = None
        self._digest = hashlib.sha256()
        self._field = ""
        self._text = bytearray()

    @property
    def callbacks(self) -> dict[str, Callable[..., None]]:
        names = ("part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data",
                 "part_end", "end")  # fmt: skip
        return {f"on_{name}": getattr(self, f"_{name}") for name in names}

    def give_up(self) -> None:
        if self._file is not None:
            self._file.close()
        self._uploads.remove(self.form.uploads)

    def _part_begin(self) -> None:
        self._header = self._value = self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition.decode("latin-1"))
        if kind != b"form-data" or b"name" not in options:
            raise RefusedError(400, "A part of the body has no name.")
        self._field = options[b"name"].decode("utf-8", "replace")
        self._file = self._upload = None
        if b"filename" in options:
            self._begin_file(_shown_name(options[b"filename"]))
            return
        self._fields += 1
        if self._fields > MOST_FIELDS:
            raise RefusedError(413, f"The request has more than {MOST_FIELDS} fields beside its photos.")
        self._text = bytearray()

    def _begin_file(self, name: str) -> None:
        if len(self.form.uploads) == MOST_FILES:
            raise RefusedError(413, f"The request has more than {MOST_FILES} photos; send them in several.")
        self._upload = Upload(name)
        if self._field != "files":  # not for us: its bytes are passed over, and counted by the guard
            return
        self.form.uploads.append(self._upload)
        self._upload.path = self._uploads.new_path()
        self._file = open(self._upload.path, "xb", opener=_private)  # noqa: SIM115
        self._digest = hashlib.sha256()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        size = end - start
        if self._upload is None:
            if len(self._text) + size > MOST_FIELD_BYTES:
                raise RefusedError(413, f"A field of the request has more than {MOST_FIELD_BYTES} bytes.")
            self._text += data[start:end]
        elif self._file is not None:
            self._total += size
            if self._total > self._uploads.most_bytes:
                raise RefusedError(413, too_large(self._uploads.most_bytes))
            if self._upload.size + size > MAX_BYTES:
                self._set_aside(f"over the limit of {MAX_BYTES // 2**20} MiB")
                return
            self._uploads.take_room(size)
            self._upload.size += size
            piece = memoryview(data)[start:end]
            self._file.write(piece)
            self._digest.update(piece)

    def _set_aside(self, reason: str) -> None:
        """Keep no more of a photo, and say why in its row."""
        assert self._file is not None and self._upload is not None
        self._file.close()
        self._file = None
        self._uploads.remove([self._upload])
        self._upload.error = reason

    def _part_end(self) -> None:
        if self._upload is None:
            self.form.fields.setdefault(self._field, []).append(self._text.decode("utf-8", "replace"))
        elif self._file is not None:
            self._file.close()
            self._file = None
            self._upload.key = self._digest.hexdigest()
            if not self._upload.size and not self._upload.name:  # a form without a chosen file sends this
                self.form.uploads.remove(self._upload)
                self._uploads.remove([self._upload])

    def _end(self) -> None:
        self.ended = True


@contextmanager
def no_room_left() -> Iterator[None]:
    """Make a refusal of what goes wrong in writing a photo.

    Raises
    ------
    RefusedError
        If it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise RefusedError(
            507, f"The photos cannot be kept while they are answered: {error.strerror}."
        ) from None


def too_large(most_bytes: int) -> str:
    """Return the sentence for a request that has too many bytes."""
    return f"The request is larger than {most_bytes // 10**6} MB; send fewer photos at once."


def _shown_name(sent: bytes) -> str:
    """Return what the sender calls a photo, to be shown: the last part of a path, of bounded length."""
    name = sent.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    return name[:_LONGEST_NAME]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _remove_leftovers(base: Path) -> None:
    """Remove the folders of processes that were killed: ours, no links, and whose lock can be taken."""
    for folder in base.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            handle = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
