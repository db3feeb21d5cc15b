"""Photos that come with requests, held within bounds, and answered in order by one engine for all.

Small photos are in memory, larger ones in temporary files without a name, which the system removes whatever
becomes of this process. Names that strangers give are only shown.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from breeds.backbones import Engine
from breeds.backbones.resolve import open_network
from breeds.errors import BreedsError, PhotoError
from breeds.heads.explain import Explanation, check_explainable
from breeds.heads.model import Model
from breeds.machine import cores
from breeds.photos import Photo
from breeds.photos.limits import size_fault
from breeds.prediction import Answer, Evidence, Predictor
from breeds.text import say

#: How many photos one request may have, and how many other fields of how many bytes.
MOST_FILES, MOST_FIELDS, MOST_FIELD_BYTES = 256, 16, 8192
#: How many bytes all requests that are here at once may have, as a multiple of what one may have.
_REQUESTS_AT_ONCE = 4
_LONGEST_NAME = 255
#: How many photos may wait, over all requests.
MOST_WAITING = 1024
# With so few cores, all of them on one photo are as fast as each on its own, and the first answer is sooner.
_FEW_CORES = 4
# Photos that are decoded beside the engine; who leaves waits for no more than these.
_TOGETHER = 16
# Photos of the store whose answers are kept, for several pictures of each; each takes 800 bytes for every
# class and more for large photos: 12 MB for 120 breeds.
_KEPT = 128


class RefusedError(Exception):
    """A request that is not served: the status of the answer, and a sentence for people."""

    def __init__(self, status: int, sentence: str, retry_after: int = 0) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence
        self.headers = {"retry-after": str(retry_after)} if retry_after else {}


class Upload:
    """A photo that came with a request: its name there, and its bytes or why there are none."""

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

    Attributes
    ----------
    most_bytes
        What all photos of one request may have.
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


@dataclass(frozen=True)
class Answered:
    """An answer, with its evidence where the model has any, and the model that gave it."""

    answer: Answer
    model: Model

    @property
    def explanation(self) -> Explanation | None:
        """Where the network looked, None if that is not known."""
        evidence = self.answer.evidence
        return evidence.explanation if isinstance(evidence, Evidence) else None


class InferenceService:
    """Answers the photos of all requests with one model, which can be exchanged at any time.

    One thread computes: its queue is the queue of requests. Who leaves takes with them what has not begun.

    Attributes
    ----------
    model
        The model that answers.
    warm, failure
        Whether its networks are open; why no photo can be answered, "" if that is not known.
    waiting
        How many photos wait.

    Parameters
    ----------
    model
        The first model.
    engine
        One of `breeds.backbones.ENGINE_CHOICES`.
    workers
        Threads that read and decode.
    most_waiting
        How many photos may wait, over all requests.
    opener
        Opens a network as `breeds.backbones.resolve.open_network` does.
    """

    def __init__(
        self,
        model: Model,
        engine: str = "auto",
        workers: int = 2,
        most_waiting: int = MOST_WAITING,
        opener: Callable[..., Engine] = open_network,
    ) -> None:
        self.model = model
        self.failure = ""
        self.warm = False
        self.waiting = 0
        self._engine, self._workers, self._opener = engine, workers, opener
        self._most_waiting = most_waiting
        self._predictor: Predictor | None = None
        self._thread = ThreadPoolExecutor(1)
        self._kept: dict[str, Answered] = {}
        self._stop = threading.Event()

    def start(self) -> Future[None]:
        """Open the networks in the background, and let them compute once, which takes longer at first."""
        return self._thread.submit(self._warm_up)

    def close(self) -> None:
        """End soon, whatever still waits."""
        self._stop.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def use(self, model: Model) -> None:
        """Answer with another model from now on; the networks stay open if they are the same."""
        self.model = model
        self.start()

    def check_room(self, photos: int = 1) -> None:
        """Make sure that so many photos can wait.

        Raises
        ------
        RefusedError
            If not.
        """
        if self.waiting + photos > self._most_waiting:
            seconds = 1 + self.waiting // 10
            sentence = f"Too many photos wait already; try again in {seconds} seconds."
            raise RefusedError(503, sentence, seconds)

    async def answers(self, photos: Sequence[Photo]) -> list[Answered]:
        """Answer for photos, in order; when this is cancelled, nothing more of it is computed.

        One that cannot be read is answered with its reason.

        Raises
        ------
        RefusedError
            If too many wait already.
        BreedsError
            If the network cannot be opened.
        """
        self.check_room(len(photos))
        stop = threading.Event()
        self.waiting += len(photos)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._answered, photos, stop)
        finally:
            stop.set()
            self.waiting -= len(photos)

    async def explained(self, key: str, photo: Photo) -> Answered:
        """Answer for a photo of the store with an explanation: computed once for all pictures of it.

        Raises
        ------
        BreedsError
            If the network cannot be opened.
        """

        def answer() -> Answered:
            found = self._kept.pop(key, None)
            if found is None or found.model is not self.model or found.explanation is None:
                (found,) = self._answered([photo], self._stop)
            self._kept[key] = found  # as the newest
            while len(self._kept) > _KEPT:
                self._kept.pop(next(iter(self._kept)))
            return found

        return await asyncio.get_running_loop().run_in_executor(self._thread, answer)

    # In the thread that computes

    def _answered(self, photos: Sequence[Photo], stop: threading.Event) -> list[Answered]:
        def wanted() -> Iterator[Photo | None]:
            for number, photo in enumerate(photos, 1):
                if stop.is_set() or self._stop.is_set():
                    return
                yield photo
                if number % _TOGETHER == 0:
                    yield None

        try:
            predictor = self._opened()
            found = [Answered(answer, predictor.model) for answer in predictor.answers(wanted())]
            self.failure, self.warm = "", True
        except BreedsError as error:
            self.failure = str(error)
            raise
        return found

    def _opened(self) -> Predictor:
        """Return what answers with the model in use; its networks stay open where the models share them."""
        model, predictor = self.model, self._predictor
        if predictor is not None and (predictor.model is model or predictor.use(model)):
            return predictor
        if predictor is not None:
            predictor.__exit__(None, None, None)
        self._predictor, self.warm = None, False
        self._predictor = Predictor(
            model,
            engine=self._engine,
            workers=self._workers,
            explain=not why_unexplained(model),
            opener=self._open,
        )
        return self._predictor

    def _open(self, *arguments: Any, maps: bool) -> Engine:
        *others, single = arguments
        return self._opener(*others, single or cores() <= _FEW_CORES, maps=maps)

    def _warm_up(self) -> None:
        try:
            predictor = self._opened()
            if not self.warm:
                predictor.warm()
            self.failure, self.warm = "", True
        except Exception as error:  # whatever it is, the thread goes on: another model may be used
            self.failure = str(error) or type(error).__name__
            say(f"no photo can be answered: {self.failure}", file=sys.stderr)


def why_unexplained(model: Model) -> str:
    """Say why where the network looked cannot be shown, "" if it can."""
    try:
        check_explainable(model)
    except BreedsError as error:
        return str(error)
    return ""
