"""Engines run a backbone over pixels. Each is one class in a module of its own, imported when used.

On a CPU a feature never depends on the photos around it, to the last bit. Engines agree within 1e-3 of a
feature's length and 1e-4 of cosine distance, so stores can be begun with one and continued with another.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from breeds.errors import BreedsError
from breeds.started import commanded

if TYPE_CHECKING:  # the command line's help reads `breeds.backbones.registry`, and should come at once
    import numpy as np
    from numpy.typing import NDArray

#: A feature, float32 (width,), and what it is the mean of, float32 (height, width, features), in cells.
FeatureAndMap: TypeAlias = "tuple[NDArray[np.float32], NDArray[np.float32]]"


class Engine(Protocol):
    """Something that turns pixels into features.

    A feature is the mean over a map of small cells, which an engine that was opened for it gives too.
    """

    name: str

    def stream(self, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield one feature, float32 (width,), for each photo, uint8 (size, size, 3), in order."""
        ...

    def stream_maps(self, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[FeatureAndMap]:
        """Yield each photo's feature with the map that it is the mean of, if opened with ``maps=True``."""
        ...


class EngineUnavailableError(BreedsError):
    """An engine does not work on this machine, whatever it is asked for; the text has no full stop."""


def unmapped(backbone: str) -> BreedsError:
    """Return the error for a network whose features are not the plain mean over its last map."""
    return BreedsError(
        f"Where the network looked cannot be shown for {backbone}: its features are not the plain average of "
        f"its last map, as something follows on the average; use another backbone for that."
    )


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which sends what nobody asked for, and takes long to load.

    OpenVINO does without it where its import fails, and has no other switch (0.41 s with it, 0.27 s
    without, medians of ten). In another program it is blocked only while OpenVINO is imported.

    Raises
    ------
    ImportError
        If OpenVINO is not installed or does not load on this machine.
    """
    telemetry = "openvino_telemetry"
    blocked = telemetry not in sys.modules and "openvino" not in sys.modules
    if blocked or commanded():  # in a process of our own it stays blocked: NNCF looks for it later
        sys.modules.setdefault(telemetry, None)  # type: ignore[arg-type]
    try:
        import openvino
    finally:
        if blocked and not commanded():
            sys.modules.pop(telemetry, None)
    return openvino
