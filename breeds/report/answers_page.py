"""A page of the answers: every photo with what was said of it, to filter and to sort."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import numpy as np

from breeds.config import FeatureConfig
from breeds.errors import PhotoError
from breeds.files import check_writable
from breeds.heads.model import Model
from breeds.outputs import PAGE, check_output
from breeds.photos import MemoryPhoto, photo_at
from breeds.photos.addresses import is_url
from breeds.prediction import Answer
from breeds.report.photos import Served, Thumbnail, shown, thumbnail, thumbnails
from breeds.report.render import link, write_page

#: Thumbnails of so many bytes together, of some 400 photos, are embedded; if there are more, all are files.
EMBEDDED_BYTES = 2 * 10**6
#: What a breed is called that is none of the model's, in the page's filter.
_NONE = "none"


@dataclass(frozen=True, slots=True)
class _Note:
    """What is kept of an answer until the page is written: the classes' numbers, not their names."""

    path: str
    key: str
    error: str
    unknown: bool = False
    best: int = 0
    probability: float = 0.0
    second: int = 0
    second_probability: float = 0.0
    small: bytes = b""


class AnswersPage:
    """Notes the answers that come by, and writes a page of them when all have come.

    Parameters
    ----------
    path
        The page. Pictures that are too many to be in it go into a folder beside it, ``NAME_files``.
    inputs
        What the same run reads.
    embedded
        Bytes of thumbnails that the page may hold.

    Raises
    ------
    BreedsError
        At once, if page or folder cannot be written, or something else is where the page would be.
    """

    def __init__(self, path: Path, inputs: Iterable[str] = (), embedded: int = EMBEDDED_BYTES) -> None:
        check_output(path, PAGE, inputs)
        check_writable(_Files.of(path) / "picture.jpg")
        self._path, self._embedded = path, embedded
        self._notes: list[_Note] = []

    def watch(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """Yield the answers as they come, and keep a few numbers of each."""
        for answer in answers:
            self._notes.append(_note(answer))
            yield answer

    def write(self, model: Model, model_path: Path, views: Sequence[str] = ()) -> int:
        """Write the page, whole or not at all, and return its size in bytes.

        Parameters
        ----------
        model, model_path
            What answered, and the file that it came from.
        views
            Over which views the answers are averaged, beside the photos as they are.

        Raises
        ------
        BreedsError
            If it cannot be written.
        """
        notes = [note for note in self._notes if not note.error]
        trained_on = model.seen_keys()
        with _Files(self._path) as files:
            return write_page(
                "answers.html",
                self._path,
                "answers.js" if notes else "",
                cards=self._cards(notes, files),
                files=files,
                groups=_groups(notes, model.classes),
                without=[(note, self._address(note.path)) for note in self._notes if note.error],
                total=len(self._notes),
                answered=len(notes),
                unknown=sum(note.unknown for note in notes),
                seen=sum(note.key in trained_on for note in notes),
                model=model,
                model_path=model_path,
                weights=" and ".join(dict.fromkeys(_weights(config) for config, _ in model.parts)),
                random=any(config.weights == "random" for config, _ in model.parts),
                views=list(views),
            )

    def _cards(self, notes: list[_Note], files: _Files) -> Iterator[dict[str, Any]]:
        """Yield a card for each answer; thumbnails are made as the page asks for them."""
        common = _common_folder(note.path for note in notes)
        # What came from the web was kept small: its bytes are no more those of its key.
        found = thumbnails(
            ("", MemoryPhoto(note.small)) if note.small else (note.key, photo_at("", note.path))
            for note in notes
        )
        for note, picture in zip(notes, _placed(found, files, self._embedded), strict=True):
            yield {
                "note": note,
                "name": os.path.basename(note.path) or note.path,
                "folder": _below(common, os.path.dirname(note.path)),
                "address": self._address(note.path),
                "group": _NONE if note.unknown else str(note.best),
                **shown(picture),
            }

    def _address(self, path: str) -> str:
        """Return where a photo is, seen from the page, or "" if nothing is there."""
        return link(path, self._path) if os.path.isfile(path) else ""


class _Files:
    """The folder beside a page for its thumbnails; only what is not there yet is ever written.

    A file's name follows from its bytes: what has that name and those bytes is used, and what has the
    name and other bytes is not ours, and stays. If the page comes to nothing, what was made goes too.
    """

    def __init__(self, page: Path) -> None:
        self.folder = self.of(page)
        self.used = False
        self._made: list[Path] = []

    @staticmethod
    def of(page: Path) -> Path:
        """Return the folder that belongs to a page."""
        return page.with_name(f"{page.stem}_files")

    def __enter__(self) -> _Files:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        for path in self._made:
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):  # it is not empty: others' files are in it
            self.folder.rmdir()

    def place(self, thumbnail: Thumbnail) -> Thumbnail | Served:
        """Put a thumbnail into the folder and return where it is served from; itself if that cannot be."""
        if not self.used:
            self.folder.mkdir(exist_ok=True)
        path = self.folder / f"{hashlib.sha256(thumbnail.data).hexdigest()[:32]}.jpg"
        try:
            with open(path, "xb") as file:
                self._made.append(path)
                file.write(thumbnail.data)
        except FileExistsError:
            if not _holds(path, thumbnail.data):
                return thumbnail
        self.used = True
        src = quote(os.fsencode(f"{self.folder.name}/{path.name}"))
        return Served(src, thumbnail.width, thumbnail.height)


def _holds(path: Path, data: bytes) -> bool:
    try:
        return photo_at("", str(path)).read() == data
    except PhotoError:
        return False


def _placed(
    found: Iterator[Thumbnail | PhotoError], files: _Files, embedded: int
) -> Iterator[Thumbnail | Served | PhotoError]:
    """Yield thumbnails with their addresses: all in the page, or, if too many, all files."""
    first: list[Thumbnail | PhotoError] = []
    size = 0
    for picture in found:
        first.append(picture)
        size += len(picture.data) if isinstance(picture, Thumbnail) else 0
        if size > embedded:
            break
    for picture in chain(first, found):
        if isinstance(picture, PhotoError):
            yield picture
        else:
            yield files.place(picture) if size > embedded else picture


def _note(answer: Answer) -> _Note:
    if answer.probabilities is None:
        return _Note(answer.path, answer.key, answer.error)
    best, second = (int(i) for i in np.argsort(-answer.probabilities, kind="stable")[:2])
    shares = (float(answer.probabilities[i]) for i in (best, second))
    small = b""
    if is_url(answer.path) and isinstance(answer.photo, MemoryPhoto):  # it cannot be read again for the page
        thumb = thumbnail(("", answer.photo))
        small = thumb.data if isinstance(thumb, Thumbnail) else b""
    return _Note(answer.path, answer.key, "", answer.unknown, best, next(shares), second, next(shares), small)


def _groups(notes: list[_Note], classes: list[str]) -> list[tuple[str, str, int]]:
    """Return the breeds that were answered, the most frequent first: group, name, photos."""
    counts = Counter(note.best for note in notes if not note.unknown)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], classes[item[0]]))
    return [(str(best), classes[best], count) for best, count in ordered]


def _common_folder(paths: Iterable[str]) -> str:
    """Return the folder that all paths are in, so that names can leave it out, or "" if there is none."""
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # none at all, or some from the root and some not
        return ""


def _below(common: str, folder: str) -> str:
    """Return a folder as seen from one above it, "" for that one itself."""
    found = os.path.relpath(folder, common) if common else folder
    return "" if found == "." else found


def _weights(config: FeatureConfig) -> str:
    """Return the network of a config and its weights in words."""
    names = {"imagenet": "ImageNet weights", "random": "random weights"}
    return f"{config.backbone} with {names.get(config.weights, f'the weights {config.weights}')}"
