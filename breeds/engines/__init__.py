"""Engines run a backbone over pixels. Each is one class in a module of its own, imported when used.

An engine gathers photos into batches as suits it, but a feature never depends on the photos
around it; so stores can be begun with one engine and continued with another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """Something that turns pixels into features.

    `outruns_threads` is set where photos are computed faster than threads of one process decode them.
    """

    name: str
    outruns_threads: bool

    def stream(self, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield one feature, float32 (width,), for each photo, uint8 (size, size, 3), in order."""
        ...
