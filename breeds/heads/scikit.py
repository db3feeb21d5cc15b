"""Loading scikit-learn without what Breeds has no use for.

It loads pandas to know a table when it is given one, and pandas loads pyarrow where that is installed. Breeds
gives it arrays: a command does without both, which start in half a second and take 200 MB of address space.
Where little of that is left, OpenBLAS asks for memory for ever instead of giving up.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from breeds.started import commanded


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
