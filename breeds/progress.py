"""How far something has come, shown where a command runs on a terminal, and to nobody else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

from breeds.started import commanded

T = TypeVar("T", covariant=True)


class Progress(AbstractContextManager[Any], Protocol[T]):
    """What is shown: items that pass by, or what `update` counts."""

    def __iter__(self) -> Iterator[T]:
        """Yield the items."""
        ...

    def update(self, n: float = 1) -> object:
        """Count more of them."""
        ...


def progress(items: Iterable[T] | None = None, **how: Any) -> Progress[T]:
    """Return the items, and show how far they are; `how` as ``tqdm.tqdm`` takes it."""
    if not commanded():  # tqdm would start a thread even where it shows nothing
        return _Unseen(items or ())
    from tqdm import tqdm

    shown: Progress[T] = tqdm(items, disable=None, **how)
    return shown


class _Unseen(AbstractContextManager[None], Generic[T]):
    def __init__(self, items: Iterable[T]) -> None:
        self._items = items

    def __exit__(self, *_: object) -> None:
        return

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def update(self, n: float = 1) -> None:
        """Show nothing."""
