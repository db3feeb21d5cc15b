"""How far something has come: a bar where a command runs on a terminal, and nothing anywhere else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from breeds.started import commanded


def progress(items: Iterable[Any] | None = None, **how: Any) -> Any:
    """Return the items, and show how far they are; `how` as ``tqdm.tqdm`` takes it, whose bar this is."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # in other programs tqdm would start a thread even where it shows nothing

    return Bar(items, disable=None if commanded() else True, **how)
