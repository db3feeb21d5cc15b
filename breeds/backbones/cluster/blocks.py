"""Items in blocks, on their way to actors: each is answered once, whatever dies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from breeds.errors import PhotoError

#: Each block has at most twice as many items as the one before; so long it should take, in seconds, and so
#: many it has at most.
BLOCK_SECONDS, MOST = 2.0, 512
#: How often a block is tried before its items are tried alone, and how often one alone.
TRIES, TRIES_ALONE = 2, 3
#: How many blocks an actor has at once: one is computed while the next one travels.
DEPTH = 2


@dataclass(eq=False)
class Block:
    """Items with their numbers; `alone` is one that may have killed its process."""

    items: list[tuple[int, Any]]
    tries: int = 0
    alone: bool = False


class Load:
    """What one actor is given: how many blocks it has, and how large the next is to be."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.blocks = 0
        self.has_alone = False

    def note(self, items: int, seconds: float) -> None:
        """Size the next block by how long this many items took."""
        fitting = int(items / max(seconds, 1e-6) * BLOCK_SECONDS)
        self.size = max(1, min(2 * items, fitting, MOST))


class Blocks:
    """The blocks of some items: those to be tried again first, then the next ones.

    Parameters
    ----------
    items
        Taken as they are needed.
    may_start
        Says of an item's number whether it may be given out yet.
    """

    def __init__(self, items: Iterable[Any], may_start: Callable[[int], bool]) -> None:
        self._fresh: Iterator[tuple[int, Any]] = iter(enumerate(items))
        self._next = next(self._fresh, None)
        self._again: deque[Block] = deque()
        self._may_start = may_start

    @property
    def are_out(self) -> bool:
        """Whether all have been given out."""
        return self._next is None and not self._again

    def take(self, load: Load) -> Block | None:
        """Return a block for an actor, or None if it is to have none now."""
        if load.has_alone or load.blocks >= DEPTH:
            return None
        if self._again:
            if self._again[0].alone and load.blocks:
                return None
            block = self._again.popleft()
        elif self._next is None or not self._may_start(self._next[0]):
            return None
        else:
            block = Block([self._next, *islice(self._fresh, load.size - 1)])
            self._next = next(self._fresh, None)
        load.blocks += 1
        load.has_alone = block.alone
        return block

    def give_back(self, load: Load, block: Block) -> None:
        """Note that an actor has no more to do with a block."""
        load.blocks -= 1
        load.has_alone = False

    def try_again(self, block: Block, blamed: bool) -> PhotoError | None:
        """Queue a block that was lost, or say that its item is given up.

        Parameters
        ----------
        blamed
            Whether its process has died, and not only what came back was lost.
        """
        block.tries += blamed
        if block.alone and block.tries >= TRIES_ALONE:
            return PhotoError(f"the process that read it died {TRIES_ALONE} times")
        if not block.alone and block.tries >= TRIES:
            self._again.extend(Block([item], alone=True) for item in block.items)
        else:
            self._again.append(block)
        return None
