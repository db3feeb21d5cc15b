"""scikit-learn as Breeds uses it: loaded without pandas, computing in so many threads.

scikit-learn loads pandas to know a table when it is given one, and pandas loads pyarrow where that is there.
Breeds gives it arrays: a command does without both. They start in half a second, half as long as training
takes in all, and take 200 MB of address space.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

from breeds.started import commanded

_TURN = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """Let pandas not be found while the block imports scikit-learn, in a process of our own without it."""
    blocked = commanded() and "pandas" not in sys.modules
    if blocked:
        sys.modules["pandas"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if blocked:  # scikit-learn looks there for the class of tables
            sys.modules.pop("pandas", None)


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Let numpy and the like compute in so many threads while the block runs.

    One block at a time: of two that began in turn and ended in turn, the second would put back what the first
    had set. So what else belongs to the whole process, such as filters of warnings, is safely set inside.
    """
    with _TURN, threadpool_limits(threads):
        yield
