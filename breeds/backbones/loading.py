"""OpenVINO, loaded without what it does not need."""

from __future__ import annotations

import sys
from typing import Any

from breeds.started import commanded


def import_openvino(with_converter: bool = False) -> Any:
    """Import OpenVINO without its telemetry and, in a process of our own, its converter unless asked for.

    OpenVINO does without either where its import fails; so blocked, it starts in two thirds of the time,
    sends nothing anywhere and writes nothing to the home folder. In another program, which may need the
    converter, only the telemetry is blocked, and only while OpenVINO is imported.

    Raises
    ------
    ImportError
        If OpenVINO is not installed or does not load on this machine.
    """
    blocked = "openvino_telemetry" not in sys.modules and "openvino" not in sys.modules
    # In a process of our own it stays blocked: OpenVINO and NNCF look for it again later.
    if commanded() or blocked:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    if commanded() and not with_converter:  # whoever converts does so in a process of its own
        sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    try:
        import openvino
    finally:
        if blocked and not commanded():
            sys.modules.pop("openvino_telemetry", None)
    return openvino
