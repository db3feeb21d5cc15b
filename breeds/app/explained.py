"""Where the network looked at photos of the store: computed once for all pictures of it, kept for a while."""

from __future__ import annotations

import asyncio

from breeds.app.desk import Answered, Desk
from breeds.backbones.pipeline import KeyAndPath

# Each takes 800 bytes for every class and more for large photos: 12 MB for 120 breeds.
_KEPT = 128


class Explained:
    """Answers for photos of the store with their explanations.

    Parameters
    ----------
    desk
        Computes them.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._asked: dict[str, asyncio.Task[Answered]] = {}

    async def answer(self, photo: KeyAndPath) -> Answered:
        """Return the answer for a photo by the model in use.

        Raises
        ------
        BusyError
            If too many photos wait already.
        BreedsError
            If the network cannot be opened.
        """
        key = photo[0]
        task = self._asked.pop(key, None)
        if task is None or self._is_stale(task):
            task = asyncio.ensure_future(self._ask(photo))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # is told to who waits
        self._asked[key] = task  # as the newest
        while len(self._asked) > _KEPT:
            self._asked.pop(next(iter(self._asked)))
        return await asyncio.shield(task)  # others may wait for it too

    def _is_stale(self, task: asyncio.Task[Answered]) -> bool:
        if not task.done():
            return False
        if task.cancelled() or task.exception():
            return True
        found = task.result()
        return found.explanation is None or found.model is not self._desk.model

    async def _ask(self, photo: KeyAndPath) -> Answered:
        return await asyncio.wrap_future(self._desk.ask([photo], explain=True).futures[0])
