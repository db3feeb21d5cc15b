"""Networks that stay open from call to call: to open one takes longer than to answer for a photo."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

from breeds.backbones import Engine


class Opened:
    """Engines by what they were opened for; whoever uses one holds `turn`. A copy begins without any."""

    def __init__(self) -> None:
        self.turn = threading.RLock()
        self._engines: dict[Hashable, Engine] = {}

    def get(self, what: Hashable, opener: Callable[[], Engine]) -> Engine:
        """Return the engine of `what`, opened by `opener` the first time."""
        if what not in self._engines:
            self._engines[what] = opener()
        return self._engines[what]

    def __reduce__(self) -> tuple[type[Opened], tuple[()]]:
        return Opened, ()
