"""App state: the model in use, its store and corrections; read again when files change, and changed."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from breeds.errors import BreedsError, PhotoError
from breeds.features import Store
from breeds.features.columns import Keys
from breeds.features.corrections import Added, Correction, Corrections, add, corrections_path, undo
from breeds.heads.explain import NEAREST, Neighbour, TrainingPhotos
from breeds.heads.model import Model
from breeds.photos import key_of, photo_at
from breeds.review import Again, Taught, teach, train_again
from breeds.text import say

T = TypeVar("T")

_KEY = re.compile("[0-9a-f]{64}")
# How many trainings are kept to be told of: each has its model.
_TRAININGS = 20
# Seconds between two looks at the files.
_TICK = 1.0


@dataclass(frozen=True)
class Snapshot:
    """What is in use at one moment; it stays as it is, and another takes its place.

    Attributes
    ----------
    model, store
        The model; the store of its photos with people's corrections, None if it cannot be opened.
    """

    model: Model
    store: Store | None

    def row(self, key: str) -> int | None:
        """Return a row of a photo in the store, None if the store does not know it."""
        if self.store is None or not _KEY.fullmatch(key):
            return None
        row = int(self.store.table.key.rows_of(Keys.of([key]))[0])
        return None if row < 0 else row

    def read(self, key: str) -> bytes:
        """Return the bytes of a photo of the store, as `read_as` does."""
        row = self.row(key)
        if row is None or self.store is None:
            raise PhotoError("the store has no such photo")
        return read_as(key, os.path.join(self.store.table.root, self.store.table.path[row]))

    @cached_property
    def _training(self) -> TrainingPhotos:
        return TrainingPhotos(self.model, self.store)

    def nearest(self, features: NDArray[np.float32], k: int = NEAREST) -> list[list[Neighbour]]:
        """Return the `k` training photos most like each of some, by their features, float32 (n, width)."""
        return [[] for _ in features] if self.store is None else self._training.nearest(features, k)

    @cached_property
    def classes(self) -> list[str]:
        """All names that photos have, or that the model answers with."""
        labels: set[str] = set()
        if self.store is not None:
            labels = {*self.store.table.label.names, *self.store.corrections.labels.values()}
        return sorted({*self.model.classes, *labels} - {""}, key=lambda name: (name.casefold(), name))

    @cached_property
    def untrained(self) -> int:
        """How many labelled photos of the store, without a correction, the model knows nothing of."""
        if self.store is None:
            return 0
        table = self.store.table
        keys = table.key.take(table.labelled_rows()).packed
        known = self.model.seen_keys() | self.model.tested_keys() | self.store.corrections.last.keys()
        return int((~np.isin(np.unique(keys), Keys.of(known).packed)).sum())


def read_as(key: str, path: str) -> bytes:
    """Return the bytes of a photo.

    Raises
    ------
    PhotoError
        If they are not there any more, or others than its key says.
    """
    data = photo_at("", path).read()
    if key_of(data) != key:
        raise PhotoError("changed since its features were computed")
    return data


@dataclass(frozen=True)
class Trained:
    """A training here, by its number: what it changed, None if it failed, and then why."""

    number: int
    again: Again | None
    problem: str = ""
    search: bool = False


class _Read(Generic[T]):
    """What is read from files, and again when they have changed; what cannot be read is said."""

    def __init__(self, read: Callable[[Sequence[Path]], T]) -> None:
        self._read = read
        self._seen: object = None
        self._paths: list[Path] = []
        self.value: T | None = None
        self.problem: BreedsError | None = None

    def refresh(self, paths: list[Path]) -> bool:
        """Read them if they are others than they were; say whether what is in use is another now."""
        seen = [paths, *map(_signature, paths)]  # before reading: a change meanwhile is seen next time
        if seen == self._seen:
            return False
        is_same_place = paths == self._paths
        self._seen, self._paths = seen, paths
        try:
            self.value, self.problem = self._read(paths), None
            return True
        except (BreedsError, OSError) as error:
            self.problem = BreedsError(
                str(error) if isinstance(error, BreedsError) else f"{paths[0]}: {error}."
            )
            if is_same_place:
                return False
            self.value = None
            return True


def _signature(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class AppState:
    """A model with its store, if that is there.

    Attributes
    ----------
    model_path
        The file of the model.
    lock
        Held by what changes the corrections.
    on_change
        Told of the model when it, its store or corrections are others.
    trainings
        The trainings here, the last one at the end.

    Parameters
    ----------
    model_path
        The model.
    store
        Where its store is; by default, where it was at training.

    Raises
    ------
    BreedsError
        If there is no such model, or the store that was named is not its own.
    """

    def __init__(self, model_path: Path, store: Path | None = None) -> None:
        self.model_path = model_path
        self.lock = threading.RLock()
        self.on_change: Callable[[Model], object] = lambda _: None
        self.trainings: deque[Trained] = deque(maxlen=_TRAININGS)
        self._named = store
        self._busy = threading.Lock()
        self._busy_with = ""
        self._models = _Read(self._load)
        self._stores = _Read(lambda paths: Store(*paths, corrected=False))
        self._words = _Read(lambda paths: Corrections.load(paths[0]))
        self._misfit: BreedsError | None = None
        self._now: Snapshot | None = None
        #: The labels that the model in use was trained with, None if they are not known; a training's store.
        self._base: dict[str, str] | None = None
        self._trained_on: Store | None = None
        self.refresh()
        problem = self._stores.problem or self._misfit
        if problem is not None:
            if store is not None:
                raise problem
            say(f"the training photos are not shown: {problem}", file=sys.stderr)
        if self._words.problem is not None:
            say(f"no corrections are used: {self._words.problem}", file=sys.stderr)

    # What is in use

    @property
    def now(self) -> Snapshot:
        """What is in use."""
        assert self._now is not None
        return self._now

    @property
    def problems(self) -> list[str]:
        """What cannot be read any more, in sentences; what was read before stays in use."""
        found = (self._models.problem, self._stores.problem, self._misfit, self._words.problem)
        return [str(problem) for problem in found if problem is not None]

    def refresh(self) -> Snapshot:
        """Read again what has changed on disk, and return what is in use.

        Raises
        ------
        BreedsError
            If there is no model that was ever read.
        """
        with self.lock:
            new_model = self._models.refresh([self.model_path])
            if self._models.value is None:
                assert self._models.problem is not None
                raise self._models.problem
            model = self._models.value
            changed = self._stores.refresh(self._store_paths(model)) | new_model
            store = self._stores.value
            self._misfit = _misfit(store, model, self.model_path)
            if self._misfit is not None:
                store = None
            if store is not None:
                changed |= self._words.refresh([corrections_path(store.path)])
                words = self._words.value
                store = store.with_corrections(Corrections() if words is None else words)
            if changed or self._now is None:
                before, self._now = self._now, Snapshot(model, store)
                if store is not None and (before is None or before.store is None or new_model):
                    self._base = self._labels_of_training(model, store)
                self.on_change(model)
            return self._now

    def _load(self, paths: Sequence[Path]) -> Model:
        model = Model.load(paths[0])
        if self._named is not None:
            model.record["store"] = str(self._named)
        return model

    def _store_paths(self, model: Model) -> list[Path]:
        also = model.record.get("also", [])
        others = [Path(str(path)) for path in also] if isinstance(also, list) else []
        return [Path(str(model.record.get("store", ""))), *others]

    def _labels_of_training(self, model: Model, store: Store) -> dict[str, str] | None:
        """Find out what corrections a model was trained with: those that are there, or a training's."""
        wanted = str(model.record.get("corrections", {}).get("sha256", ""))
        if not wanted:
            return {}
        for one in (store, self._trained_on):
            if one is not None and one.corrections.effect(one.table).sha256 == wanted:
                return one.corrections.labels
        return None

    def watch(self) -> None:
        """Look at the files every now and then, as long as the process lives."""

        def look() -> None:
            while True:
                time.sleep(_TICK)
                self.refresh()

        threading.Thread(target=look, daemon=True).start()

    # What changes it

    def correct(self, corrections: Sequence[Correction]) -> Added:
        """Add people's words on photos, and return what taking them back needs.

        Raises
        ------
        BreedsError
            As `breeds.features.corrections.add` does, or if there is no store.
        """
        with self.lock:
            added = add(corrections_path(self._need_store().path), corrections)
            self.refresh()
            return added

    def take_back(self, added: Added) -> None:
        """Undo what `correct` has done, as `breeds.features.corrections.undo` does."""
        with self.lock:
            undo(corrections_path(self._need_store().path), added)
            self.refresh()

    def _need_store(self) -> Store:
        store = self.refresh().store
        if store is None:
            why = next(iter(self.problems), "it cannot be opened.")
            raise BreedsError(f"This needs the store of the model's photos: {why}")
        return store

    @property
    def changes(self) -> int | None:
        """How many labels the model was not trained with; None if that is not known."""
        now, base = self.now, self._base
        if now.store is None:
            return 0
        if base is None:
            return None
        labels, changed = now.store.corrections.labels, 0
        for key in {*labels, *base}:
            if labels.get(key) != base.get(key) and (row := now.row(key)) is not None:
                came = now.store.table.label[row]
                changed += labels.get(key, came) != base.get(key, came)
        return changed

    def train_again(self, search: bool = False) -> Trained:
        """Train the model again and use it; what came of it is kept in `trainings`.

        Raises
        ------
        BreedsError
            If something is being trained or taught already.
        """
        with self._alone("The model is being trained"):
            return self._trained(search)

    def _trained(self, search: bool = False) -> Trained:
        number = self.trainings[-1].number + 1 if self.trainings else 1
        try:
            store = self._need_store()
            again = train_again(self.model_path, store, store.corrections, search)
            self._trained_on = store
            self.refresh()
            found = Trained(number, again, search=search)
        except BreedsError as error:
            found = Trained(number, None, str(error), search)
        self.trainings.append(found)
        return found

    def teach(self, label: str, photos: Sequence[tuple[str, bytes]]) -> tuple[Taught, Trained | None]:
        """Put photos into a class, and train again if there are new ones.

        Raises
        ------
        BreedsError
            As `breeds.review.teach` does, or if something is being trained or taught already.
        """
        with self._alone("Photos are being taught"):
            try:
                taught = teach(self._need_store(), label, photos)
            finally:
                self.refresh()
            return taught, self._trained() if taught.written else None

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """Let one at a time change model or store: these take long, and corrections go on meanwhile."""
        if not self._busy.acquire(blocking=False):
            raise BreedsError(
                f"{self._busy_with} just now, maybe in another window; wait until that is done."
            )
        self._busy_with = what
        try:
            yield
        finally:
            self._busy.release()


def _misfit(store: Store | None, model: Model, model_path: Path) -> BreedsError | None:
    if store is None or store.config.digest == model.config.digest:
        return None
    return BreedsError(
        f"{store.path} is of another config ({store.config}) than {model_path} ({model.config}); name the "
        f"store that the model was trained on with --store."
    )
