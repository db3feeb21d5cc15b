"""Photos that come with a request: read by Starlette within our bounds, and held until they are answered.

Small photos are in memory, larger ones in temporary files without a name, which the system removes whatever
becomes of this process. Nothing is decoded here, and names that strangers give are only shown.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from breeds.errors import PhotoError
from breeds.photos.limits import size_fault

#: How many photos one request may have, and how many other fields of how many bytes.
MOST_FILES, MOST_FIELDS, MOST_FIELD_BYTES = 256, 16, 8192
#: How many bytes all requests that are here at once may have, as a multiple of what one may have.
_REQUESTS_AT_ONCE = 4
_LONGEST_NAME = 255


class RefusedError(Exception):
    """A request that is not served: the status of the answer, and a sentence for people."""

    def __init__(self, status: int, sentence: str, retry_after: int = 0) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence
        self.headers = {"retry-after": str(retry_after)} if retry_after else {}


class Upload:
    """A photo that came with a request.

    Parameters
    ----------
    name
        What the sender calls it.
    file
        Its bytes, None if there are none.
    error
        Why there are none.
    """

    label = split = group = ""

    def __init__(self, name: str, file: Any = None, error: str = "") -> None:
        self.name, self.error = name, error
        self._file = file
        self._lock = threading.Lock()

    def read(self) -> bytes:
        """Return the photo's bytes.

        Raises
        ------
        PhotoError
            If there are none, or the request is over.
        """
        with self._lock:
            if self.error or self._file is None or self._file.closed:
                raise PhotoError(self.error or "nobody waits for it any more")
            self._file.seek(0)
            data: bytes = self._file.read()
            return data

    def fill(self, data: bytes) -> None:
        """Take the bytes of a photo that came otherwise, such as from the web."""
        self._file = SpooledTemporaryFile(MultiPartParser.spool_max_size)  # noqa: SIM115
        self._file.write(data)

    def close(self) -> None:
        """Let the bytes go."""
        with self._lock:
            if self._file is not None:
                self._file.close()


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
    """Reads what comes with requests, as long as there is room for it.

    Parameters
    ----------
    most_bytes
        What all photos of one request may have.

    Attributes
    ----------
    here
        How many bytes the requests have that are here now.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.here = 0

    @asynccontextmanager
    async def received(self, request: Request) -> AsyncIterator[Form]:
        """Read a body of multipart/form-data; its photos are let go when the block ends.

        Raises
        ------
        RefusedError
            If it is no such body, has too many parts, or there is no room for it.
        """
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise RefusedError(415, "Send the photos as multipart/form-data, in the field files.")
        with self.room(int(request.headers.get("content-length", self.most_bytes))):
            form = Form()
            try:
                for name, value in await _parsed(request):
                    if isinstance(value, UploadFile):
                        upload = _upload(value)
                        if name == "files" and (upload.name or value.size):  # else the form had no photo
                            form.uploads.append(upload)
                    else:
                        form.fields.setdefault(name, []).append(value)
                yield form
            finally:
                for upload in form.uploads:
                    upload.close()

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Take room for so many bytes while the block runs.

        Raises
        ------
        RefusedError
            If other requests have taken it.
        """
        if self.here + size > _REQUESTS_AT_ONCE * self.most_bytes:
            raise RefusedError(503, "Too many photos are being sent at once; try again in a moment.", 2)
        self.here += size
        try:
            yield
        finally:
            self.here -= size


class _Parser(MultiPartParser):
    """Notes whether a body came to its end: Starlette takes what is whole of one that is cut."""

    ended = False

    def on_end(self) -> None:
        self.ended = True


async def _parsed(request: Request) -> list[tuple[str, str | UploadFile]]:
    parser = _Parser(
        request.headers,
        request.stream(),
        max_files=MOST_FILES,
        max_fields=MOST_FIELDS,
        max_part_size=MOST_FIELD_BYTES,
    )
    try:
        found = (await parser.parse()).multi_items()
    except MultiPartException as error:
        is_too_much = "aximum" in error.message
        raise RefusedError(413 if is_too_much else 400, f"{error.message.rstrip('.')}.") from None
    except ValueError:  # such as a charset that decodes nothing
        raise RefusedError(400, "The body is not well-formed multipart/form-data.") from None
    except OSError as error:
        raise RefusedError(
            507, f"The photos cannot be kept while they are answered: {error.strerror}."
        ) from None
    if not parser.ended:
        raise RefusedError(400, "The body ends in the middle of a part.")
    return found


def _upload(sent: UploadFile) -> Upload:
    """Return a photo as it was sent: its name is the last part of a path, of bounded length."""
    name = (sent.filename or "").replace("\\", "/").rpartition("/")[2][:_LONGEST_NAME]
    return Upload(name, sent.file, size_fault(sent.size or 0))


def too_large(most_bytes: int) -> str:
    """Return the sentence for a request that has too many bytes."""
    return f"The request is larger than {most_bytes // 10**6} MB; send fewer photos at once."
