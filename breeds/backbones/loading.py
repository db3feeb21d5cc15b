"""OpenVINO, loaded without its telemetry."""

from __future__ import annotations

import sys
from typing import Any

from breeds.started import commanded


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
