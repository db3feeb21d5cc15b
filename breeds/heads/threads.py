"""How many threads a sum is shared by: that belongs to the whole process, and is put back."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from threadpoolctl import ThreadpoolController

_TURN = threading.RLock()


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Let numpy and the like compute in so many threads while the block runs.

    One block at a time: of two that began in turn and ended in turn, the second would put back what the first
    had set. So what else belongs to the whole process, such as filters of warnings, is safely set inside.
    """
    with _TURN, _libraries(len(sys.modules)).limit(limits=threads):
        yield


@lru_cache(1)
def _libraries(modules: int) -> ThreadpoolController:
    """Find the libraries that compute in threads: it takes longer than many a sum.

    Only imports bring more of them, so they are looked for again when there are other `modules`.
    """
    return ThreadpoolController()
