"""Rounds of photos to look at: one is kept while people work on it, the next is made in the background."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, wait
from dataclasses import dataclass

import numpy as np

from breeds.app.workshop import State, Workshop
from breeds.errors import BreedsError
from breeds.heads.neighbours import NEAREST, Neighbour
from breeds.review import Item, label_next, queue
from breeds.text import certainty, say, visible

#: How many photos a round has.
MOST = 50
# When so few are left, the next round is made.
_FEW = 5


@dataclass(frozen=True)
class Case:
    """A photo that is asked about, and the training photos most like it."""

    item: Item
    nearest: list[Neighbour]


@dataclass(frozen=True)
class Round:
    """Photos to look at, in order.

    Attributes
    ----------
    number
        Of the rounds of its kind.
    problem
        Why there are none, in a sentence.
    """

    number: int
    made_for: State
    cases: list[Case]
    problem: str = ""

    def fits(self, state: State) -> bool:
        """Whether it was made for the same model and the same photos: corrections may be others."""
        tables = [one.store and one.store.table for one in (self.made_for, state)]
        return self.made_for.model is state.model and tables[0] is tables[1]

    def open(self, settled: Collection[str]) -> list[Case]:
        """Return the photos on which nothing has been said, nor on the photo that one is nearly."""
        return [case for case in self.cases if not {case.item.key, case.item.twin} & set(settled)]


Make = Callable[[State, Collection[str]], list[Case]]


class Rounds:
    """The rounds of one kind.

    Parameters
    ----------
    workshop
        Has the model and the photos.
    make
        Makes a round, of a state and the keys of photos that are not to be asked about.
    """

    def __init__(self, workshop: Workshop, make: Make) -> None:
        self._workshop, self._make = workshop, make
        self._lock = threading.Lock()
        self._used: Round | None = None
        self._coming: Future[Round] | None = None
        self._number = 0

    def get(self, skipped: Collection[str], patience: float = 0.0, after: int = 0) -> Round | None:
        """Return the round in use, or None if the first is still being made after `patience` seconds.

        Parameters
        ----------
        skipped
            Keys of photos that are not asked about now.
        after
            The number of a round that is done with: then the next one is used.
        """
        state = self._workshop.state
        with self._lock:
            self._take(state, after)
            used = self._used
            if used is None or not used.fits(state) or len(used.open(settled(state, skipped))) <= _FEW:
                self._begin(state, skipped)
            coming = self._coming
        if coming is not None and (used is None or used.number == after):
            wait([coming], patience)
            with self._lock:
                self._take(state, after)
        if self._used is None or self._used.number == after:
            return None
        return self._used

    def _take(self, state: State, after: int) -> None:
        """Use the round that was made, if it is time for it."""
        if self._coming is None or not self._coming.done():
            return
        made, used = self._coming.result(), self._used
        if not made.fits(state):
            self._coming = None
        elif used is None or not used.fits(state) or used.number == after:
            self._used, self._coming = made, None

    def _begin(self, state: State, skipped: Collection[str]) -> None:
        """Make a round in the background, unless one is being made, or waits."""
        if self._coming is not None:
            return
        self._number += 1
        self._coming = Future()
        arguments = (self._coming, self._number, state, [*skipped])
        threading.Thread(target=self._work, args=arguments, daemon=True).start()

    def _work(self, future: Future[Round], number: int, state: State, skipped: list[str]) -> None:
        try:
            found = Round(number, state, self._make(state, skipped))
        except BreedsError as error:
            found = Round(number, state, [], str(error))
        except Exception as error:  # a defect of ours, or no memory
            say(f"error: what to look at: {type(error).__name__}: {error}", file=sys.stderr)
            found = Round(number, state, [], "What to look at cannot be worked out; the terminal says why.")
        future.set_result(found)


def settled(state: State, skipped: Collection[str]) -> set[str]:
    """Return the keys of the photos that are not asked about: people have said what they are, or skipped."""
    words = set() if state.store is None else {*state.store.corrections.last}
    return words | {*skipped}


def labels_to_check(state: State, skipped: Collection[str]) -> list[Case]:
    """Make a round of labelled photos, the most worthwhile first."""
    if state.store is None:
        return []
    items = queue(state.store, state.model, state.store.corrections, MOST, skipped)
    return _cases(state, items)


def photos_to_label(state: State, skipped: Collection[str]) -> list[Case]:
    """Make a round of photos without a label, those first that a label would teach the model most about."""
    if state.store is None or not has_unlabelled(state):
        return []
    found = label_next(state.store, state.model, state.store.corrections, MOST, skipped)
    items = [
        Item(
            kind="unlabelled",
            key=one.key,
            path=one.path,
            label="",
            reason=f"the model says {visible(one.suggestion)}, {certainty(one.probability)}, before "
            f"{visible(one.second)}, {certainty(one.second_probability)}",
            suggestion=one.suggestion,
            probability=one.probability,
            part="train",
        )
        for one in found
    ]
    return _cases(state, items)


def has_unlabelled(state: State) -> bool:
    """Say whether the store has photos that came without a label."""
    return state.store is not None and "" in state.store.table.label.names


def one_case(state: State, key: str) -> Case | None:
    """Return what is to be said of any photo of the store; None if the store does not know it."""
    row = state.row(key)
    if row is None or state.store is None:
        return None
    store, model = state.store, state.model
    feature = store.features(np.array([row]))
    answer = model.probabilities(feature)[0]
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
    return Case(item, _others(key, state.nearest(feature, NEAREST + 1)[0]))


def _cases(state: State, items: list[Item]) -> list[Case]:
    if not items or state.store is None:
        return []
    row_of = [state.row(item.key) for item in items]
    features = state.store.features(np.array(row_of))
    return [
        Case(item, _others(item.key, nearest))
        for item, nearest in zip(items, state.nearest(features, NEAREST + 1), strict=True)
    ]


def _others(key: str, nearest: list[Neighbour]) -> list[Neighbour]:
    return [near for near in nearest if near.key != key][:NEAREST]
