"""A bounded queue from which requests are served in turn, one thing of each, however many each has."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class FullError(Exception):
    """There is no room for so many."""


class Turns(Generic[T]):
    """What requests wait for, taken one of each request in turn: two hundred do not hold up one.

    Parameters
    ----------
    most
        How many may wait, over all requests.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._requests: OrderedDict[int, deque[T]] = OrderedDict()
        self._count = self._number = 0
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return self._count

    def room(self) -> int:
        """Return how many more may wait."""
        return self._most - self._count

    def add(self, items: Sequence[T]) -> int:
        """Let the things of one request wait, all or none, and return the request's number.

        Raises
        ------
        FullError
            If there is no room for all of them.
        """
        with self._changed:
            if len(items) > self._most - self._count:
                raise FullError
            self._number += 1
            if items:
                self._requests[self._number] = deque(items)
                self._count += len(items)
                self._changed.notify(len(items))
            return self._number

    def take(self) -> T | None:
        """Return what is next, as soon as there is something; None once closed."""
        with self._changed:
            while not self._requests:
                if self._closed:
                    return None
                self._changed.wait()
            number, waiting = self._requests.popitem(last=False)
            item = waiting.popleft()
            self._count -= 1
            if waiting:  # its next one comes after those of all others
                self._requests[number] = waiting
            return item

    def drop(self, number: int) -> None:
        """Forget what still waits of a request."""
        with self._changed:
            self._count -= len(self._requests.pop(number, ()))

    def close(self) -> None:
        """Take nothing more; who waits in `take` is told."""
        with self._changed:
            self._closed = True
            self._requests.clear()
            self._count = 0
            self._changed.notify_all()
