"""What people say of photos, one after the other: kept as corrections, each of which can be taken back."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from breeds.app.rounds import (
    Case,
    Round,
    Rounds,
    labels_to_check,
    one_case,
    photos_to_label,
    settled,
)
from breeds.app.workshop import State, Workshop
from breeds.errors import BreedsError
from breeds.features.corrections import Added, Correction
from breeds.review.names import spelling
from breeds.text import printable, visible

#: What can be said of a photo: it is what is suggested, it is what it is labelled, it is something else, it
#: is to be left out; or nothing is said now.
SAYINGS = ("agree", "keep", "relabel", "out", "skip")
#: How many of the things done can be taken back.
MOST_DONE = 1000


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
    rounds
        By name: labels to check, and photos to label.

    Parameters
    ----------
    workshop
        Keeps the corrections.
    """

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self.done: list[Done] = []
        self.skipped: set[str] = set()
        self.rounds = {"check": Rounds(workshop, labels_to_check), "label": Rounds(workshop, photos_to_label)}
        self._number = 0

    def prepare(self, wait: Callable[[], bool]) -> None:
        """Make the first round in the background, when `wait` is over: later trainings are fast then, too."""

        def work() -> None:
            while wait():
                time.sleep(0.2)
            self.rounds["check"].get(self.skipped)

        threading.Thread(target=work, daemon=True).start()

    def open(self, found: Round, state: State) -> list[Case]:
        """Return the photos of a round that are still to be looked at, and can still be what is suggested."""
        classes = {*state.classes, ""}
        return [
            case
            for case in found.open(settled(state, self.skipped))
            if case.item.suggestion in classes and state.row(case.item.key) is not None
        ]

    def case(self, key: str, name: str = "check") -> Case | None:
        """Return what is to be said of a photo; of one that a round still asks about, what the round says."""
        state = self._workshop.state
        found = self.rounds[name].get(self.skipped)
        if found is not None and found.fits(state):
            for case in self.open(found, state):
                if case.item.key == key:
                    return case
        return one_case(state, key)

    def look(self, key: str) -> Seen:
        """Return a photo as it is now.

        Raises
        ------
        BreedsError
            If the store does not know it.
        """
        state = self._workshop.state
        row = state.row(key)
        if row is None or state.store is None:
            raise BreedsError("The store does not know this photo, or not any more.")
        store = state.store
        came, label = store.table.label[row], store.corrected.label[row]
        last = store.corrections.last.get(key)
        mark = hashlib.sha256(repr((key, label, last)).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return Seen(key, store.table.path[row], came, label, None if last is None else last.label, mark)

    def name_of(self, mark: str) -> str:
        """Return the name that has this mark, as `mark_of` gives it.

        Raises
        ------
        BreedsError
            If nothing is called so any more.
        """
        found = next((name for name in self._workshop.state.classes if mark_of(name) == mark), None)
        if found is None:
            raise BreedsError("What was suggested is no class any more; look at the photo again.")
        return found

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
        classes = self._workshop.state.classes
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
        workshop = self._workshop
        with workshop.lock:
            workshop.refresh()
            seen = self.look(key)
            if saying == "skip":
                return self._skip(seen)
            label = "" if saying == "out" else label
            if seen.said == label:
                return None
            if seen.mark != mark:
                raise ElsewhereError(_elsewhere(seen))
            was = visible(seen.came).strip()
            added = workshop.correct([Correction(key, label, was, note=f"review: {saying}")])
            self.skipped.discard(key)
            return self._keep(saying, seen, label, added)

    def _skip(self, seen: Seen) -> Done | None:
        if seen.key in self.skipped:
            return None
        self.skipped.add(seen.key)
        return self._keep("skip", seen, seen.label, None)

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
        with self._workshop.lock:
            if not self.done or self.done[-1].number != number:
                return None
            last = self.done[-1]
            if last.added is None:
                self.skipped.discard(last.key)
            else:
                self._workshop.take_back(last.added)
            self.done.pop()
            return last


def mark_of(name: str) -> str:
    """Return what stands for a name in forms, which cannot hold every name as it is."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _elsewhere(seen: Seen) -> str:
    if seen.said is None:
        what = f"it is {visible(seen.label)} again" if seen.label else "it has no label again"
    else:
        what = f"it was called {visible(seen.label)}" if seen.label else "it was left out"
    return f"Meanwhile, as in another window, {what}; so nothing was changed. This is the photo as it is now."
