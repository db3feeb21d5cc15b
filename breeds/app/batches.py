"""Review batches: photos to look at, one batch in use, the next made in the background; and what is said."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, wait
from dataclasses import dataclass

import numpy as np

from breeds.app.state import AppState, Snapshot
from breeds.errors import BreedsError
from breeds.features.corrections import Added, Correction
from breeds.heads.explain import NEAREST, Neighbour
from breeds.review import Item, label_next, queue
from breeds.review.folder import spelling
from breeds.text import certainty, printable, say, visible

#: How many photos a batch has.
MOST = 50
# When so few are left, the next batch is made.
_FEW = 5
#: What can be said of a photo: it is what is suggested, it is what it is labelled, it is something else, it
#: is to be left out; or nothing is said now.
SAYINGS = ("agree", "keep", "relabel", "out", "skip")
#: How many of the things done can be taken back.
MOST_DONE = 1000


@dataclass(frozen=True)
class Case:
    """A photo that is asked about, and the training photos most like it."""

    item: Item
    nearest: list[Neighbour]


@dataclass(frozen=True)
class Batch:
    """Photos to look at, in order.

    Attributes
    ----------
    number
        Of the batches of its kind.
    problem
        Why there are none, in a sentence.
    """

    number: int
    made_for: Snapshot
    cases: list[Case]
    problem: str = ""

    def fits(self, now: Snapshot) -> bool:
        """Whether it was made for the same model and the same photos: corrections may be others."""
        tables = [one.store and one.store.table for one in (self.made_for, now)]
        return self.made_for.model is now.model and tables[0] is tables[1]

    def open(self, now: Snapshot, skipped: Collection[str]) -> list[Case]:
        """Return the photos that are still to be looked at, and can still be what is suggested.

        Nothing has been said on them, nor on the photo that one is nearly; `skipped` are not asked about now.
        """
        words = set() if now.store is None else {*now.store.corrections.last}
        settled, classes = words | {*skipped}, {*now.classes, ""}
        return [
            case
            for case in self.cases
            if not {case.item.key, case.item.twin} & settled
            and case.item.suggestion in classes
            and now.row(case.item.key) is not None
        ]


class Batches:
    """The batches of one kind.

    Parameters
    ----------
    state
        Has the model and the photos.
    make
        Lists its photos, as `breeds.review.queue` and `breeds.review.label_next` do.
    """

    def __init__(self, state: AppState, make: Callable[..., list[Item]]) -> None:
        self._state, self._make = state, make
        self._lock = threading.Lock()
        self._used: Batch | None = None
        self._coming: Future[Batch] | None = None
        self._number = 0

    def get(self, skipped: Collection[str], patience: float = 0.0, after: int = 0) -> Batch | None:
        """Return the batch in use, or None if the first is still being made after `patience` seconds.

        Parameters
        ----------
        skipped
            Keys of photos that are not asked about now.
        after
            The number of a batch that is done with: then the next one is used.
        """
        now = self._state.now
        with self._lock:
            self._take(now, after)
            used = self._used
            if used is None or not used.fits(now) or len(used.open(now, skipped)) <= _FEW:
                self._begin(now, skipped)
            coming = self._coming
        if coming is not None and (used is None or used.number == after):
            wait([coming], patience)
            with self._lock:
                self._take(now, after)
        if self._used is None or self._used.number == after:
            return None
        return self._used

    def _take(self, now: Snapshot, after: int) -> None:
        """Use the batch that was made, if it is time for it."""
        if self._coming is None or not self._coming.done():
            return
        made, used = self._coming.result(), self._used
        if not made.fits(now):
            self._coming = None
        elif used is None or not used.fits(now) or used.number == after:
            self._used, self._coming = made, None

    def _begin(self, now: Snapshot, skipped: Collection[str]) -> None:
        """Make a batch in the background, unless one is being made, or waits."""
        if self._coming is not None:
            return
        self._number += 1
        self._coming = Future()
        arguments = (self._coming, self._number, now, [*skipped])
        threading.Thread(target=self._work, args=arguments, daemon=True).start()

    def _work(self, future: Future[Batch], number: int, now: Snapshot, skipped: list[str]) -> None:
        try:
            items: list[Item] = []
            if now.store is not None:
                items = self._make(now.store, now.model, now.store.corrections, MOST, skipped)
            made = Batch(number, now, _cases(now, items))
        except BreedsError as error:
            made = Batch(number, now, [], str(error))
        except Exception as error:  # a defect of ours, or no memory
            say(f"error: what to look at: {type(error).__name__}: {error}", file=sys.stderr)
            made = Batch(number, now, [], "What to look at cannot be worked out; the terminal says why.")
        future.set_result(made)


def one_case(now: Snapshot, key: str) -> Case | None:
    """Return what is to be said of any photo of the store; None if the store does not know it."""
    row = now.row(key)
    if row is None or now.store is None:
        return None
    store, model = now.store, now.model
    answer = model.probabilities(store.features(np.array([row])))[0]
    best = int(answer.argmax())
    seen = model.has_seen(key)
    reason = (
        f"the model says {visible(model.classes[best])}, {certainty(float(answer[best]))}"
        f"{', but it was trained on this very photo' if seen else ''}"
    )
    item = Item(
        kind="asked",
        key=key,
        path=store.table.path[row],
        label=store.corrected.label[row],
        reason=reason,
        suggestion=model.classes[best],
        probability=float(answer[best]),
        part="train" if seen or not store.table.label[row] else "test",
    )
    return _cases(now, [item])[0]


def _cases(now: Snapshot, items: list[Item]) -> list[Case]:
    if not items or now.store is None:
        return []
    features = now.store.features_of([item.key for item in items])
    return [
        Case(item, [near for near in nearest if near.key != item.key][:NEAREST])
        for item, nearest in zip(items, now.nearest(features, NEAREST + 1), strict=True)
    ]


class ElsewhereError(Exception):
    """Something else has been said of the photo since it was shown: its text says so."""


@dataclass(frozen=True)
class Seen:
    """A photo as it is now: its label, and whether a person has said so.

    Attributes
    ----------
    came, label
        The label of the store, and as corrected.
    said
        The label that a correction gives, None if there is none.
    mark
        Another one when something else is said of the photo; what is done names the one that it has seen.
    """

    key: str
    path: str
    came: str
    label: str
    said: str | None
    mark: str


@dataclass(frozen=True)
class Done:
    """Something that was said, and what taking it back needs.

    `was` is the label before, `label` the one after; both are "" where there is none.
    """

    number: int
    saying: str
    key: str
    path: str
    was: str
    label: str
    added: Added | None


class Review:
    """The photos to look at, and what was done with them since the application began.

    Attributes
    ----------
    done
        What can be taken back, the last at the end.
    skipped
        Keys of photos that are not asked about until the application ends.
    batches
        By name: labels to check, and photos to label.

    Parameters
    ----------
    state
        Keeps the corrections.
    """

    def __init__(self, state: AppState) -> None:
        self._state = state
        self.done: list[Done] = []
        self.skipped: set[str] = set()
        self.batches = {"check": Batches(state, queue), "label": Batches(state, label_next)}
        self._number = 0

    def case(self, key: str, name: str = "check") -> Case | None:
        """Return what is to be said of a photo; of one that a batch still asks about, what the batch says."""
        now = self._state.now
        batch = self.batches[name].get(self.skipped)
        cases = batch.open(now, self.skipped) if batch is not None and batch.fits(now) else []
        return next((case for case in cases if case.item.key == key), None) or one_case(now, key)

    def look(self, key: str) -> Seen:
        """Return a photo as it is now.

        Raises
        ------
        BreedsError
            If the store does not know it.
        """
        now = self._state.now
        row = now.row(key)
        if row is None or now.store is None:
            raise BreedsError("The store does not know this photo, or not any more.")
        store = now.store
        came, label = store.table.label[row], store.corrected.label[row]
        last = store.corrections.last.get(key)
        mark = mark_of(repr((key, label, last)))
        return Seen(key, store.table.path[row], came, label, None if last is None else last.label, mark)

    def name_of(self, mark: str) -> str:
        """Return the name that has this mark, as `mark_of` gives it.

        Raises
        ------
        BreedsError
            If nothing is called so any more.
        """
        name = next((name for name in self._state.now.classes if mark_of(name) == mark), None)
        if name is None:
            raise BreedsError("What was suggested is no class any more; look at the photo again.")
        return name

    def named(self, typed: str, is_new: bool) -> str:
        """Return the class that somebody has typed, whatever its spelling.

        Raises
        ------
        BreedsError
            If there is no such class, and none was to be made.
        """
        typed = typed.strip()
        if not typed:
            raise BreedsError("Say what it is: type a class, or choose one.")
        classes = self._state.now.classes
        exact = [name for name in classes if typed in (name, printable(name))]
        alike = exact or [name for name in classes if spelling(name) == spelling(typed)]
        if alike:
            return alike[0]
        if not is_new:
            raise BreedsError(
                f"There is no class {typed[:80]!r} yet; tick “a new class” if there is to be one."
            )
        return typed

    def say(self, saying: str, key: str, mark: str, label: str = "") -> Done | None:
        """Keep what somebody says of a photo; None if that was said already, as by a second click.

        Parameters
        ----------
        saying
            One of `SAYINGS`.
        mark
            Of the photo as it was seen (`Seen.mark`).
        label
            What the photo is; for ``keep`` the label that was seen. It means nothing for ``out``, ``skip``.

        Raises
        ------
        ElsewhereError
            If something else was said meanwhile; then nothing is changed.
        BreedsError
            If the photo cannot be labelled so, or it cannot be kept.
        """
        with self._state.lock:
            self._state.refresh()
            seen = self.look(key)
            if saying == "skip":
                if key in self.skipped:
                    return None
                self.skipped.add(key)
                return self._keep("skip", seen, seen.label, None)
            label = "" if saying == "out" else label
            if seen.said == label:
                return None
            if seen.mark != mark:
                raise ElsewhereError(_elsewhere(seen))
            was = visible(seen.came).strip()
            added = self._state.correct([Correction(key, label, was, note=f"review: {saying}")])
            self.skipped.discard(key)
            return self._keep(saying, seen, label, added)

    def _keep(self, saying: str, seen: Seen, label: str, added: Added | None) -> Done:
        self._number += 1
        done = Done(self._number, saying, seen.key, seen.path, seen.label, label, added)
        self.done.append(done)
        del self.done[:-MOST_DONE]
        return done

    def undo(self, number: int) -> Done | None:
        """Take back the last thing that was done, if it has this number; None if it was taken back already.

        Raises
        ------
        BreedsError
            If the file of corrections has been changed since.
        """
        with self._state.lock:
            if not self.done or self.done[-1].number != number:
                return None
            last = self.done[-1]
            if last.added is None:
                self.skipped.discard(last.key)
            else:
                self._state.take_back(last.added)
            self.done.pop()
            return last


def mark_of(name: str) -> str:
    """Return what stands for a name in a form, which cannot hold every name as it is."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _elsewhere(seen: Seen) -> str:
    if seen.said is None:
        what = f"it is {visible(seen.label)} again" if seen.label else "it has no label again"
    else:
        what = f"it was called {visible(seen.label)}" if seen.label else "it was left out"
    return f"Meanwhile, as in another window, {what}; so nothing was changed. This is the photo as it is now."
