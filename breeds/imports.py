"""Imports of large libraries, faster: without what is not needed, and without a pause for garbage."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any


@contextmanager
def quickly(without: tuple[str, ...] = (), later: tuple[str, ...] = ()) -> Iterator[None]:
    """Import in the block as fast as can be.

    Garbage collection is off meanwhile: imports make many objects and no garbage, and looking for
    it costs scikit-learn's import a quarter of its time.

    Parameters
    ----------
    without
        Packages that the imports find missing, unless they are loaded already: for libraries that
        import a package only to support it, inside ``try: ... except ImportError``.
    later
        Modules of functions that are loaded when one of their functions is first called.
    """
    placed: dict[str, Any] = dict.fromkeys(without) | {name: _Later(name) for name in later}
    placed = {name: module for name, module in placed.items() if name not in sys.modules}
    sys.modules.update(placed)
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        for name in placed:
            sys.modules.pop(name, None)


class _Later(ModuleType):
    """Stands in for a module while others import functions from it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments: Any, **options: Any) -> Any:
            return getattr(import_module(self.__name__), name)(*arguments, **options)

        return call
