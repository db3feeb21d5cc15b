"""Imports of large libraries, faster: without what is not needed, and without a pause for garbage."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quickly(without: tuple[str, ...] = ()) -> Iterator[None]:
    """Import in the block as fast as can be.

    Garbage collection is off meanwhile: imports make many objects and no garbage, and looking for
    it costs scikit-learn's import a quarter of its time.

    Parameters
    ----------
    without
        Packages that the imports find missing, unless they are loaded already: for libraries that
        import a package only to support it, inside ``try: ... except ImportError``.
    """
    blocked = [name for name in without if name not in sys.modules]
    for name in blocked:
        sys.modules[name] = None  # type: ignore[assignment]
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        for name in blocked:
            sys.modules.pop(name, None)
