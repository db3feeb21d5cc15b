"""The training record of a model, which anybody may have written: what is there is of its kind."""

from __future__ import annotations

import math
import re
from typing import Any

from breeds.heads.kinds import LARGEST_C, SMALLEST_C

#: How a record ends on who chose C, where it was not chosen on these photos but before.
KEPT = ", kept since"
_TEXT = ("store", "C_chosen_by")
_WHOLE = ("n_train", "n_val", "n_test", "n_drawn", "n_available", "seed", "best_epoch", "memory")
_NUMBERS = ("seconds", "train_accuracy", "train_log_loss", "val_log_loss")
_SHARES = ("val", "keep")


def check_record(record: dict[str, Any]) -> None:
    """Check what is shown, drawn or trained by of a record, as far as it is there.

    Raises
    ------
    ValueError
        If something is of another kind, or the number of training photos is missing.
    """
    fits = [
        "n_train" in record,
        all(isinstance(record[name], str) for name in _TEXT if name in record),
        all(type(record[name]) is int and record[name] >= 0 for name in _WHOLE if name in record),
        all(_is_number(record[name]) for name in _NUMBERS if name in record),
        all(_is_number(record[name]) and 0 <= record[name] < 1 for name in _SHARES if name in record),
        _is_strength(record.get("C", 1.0)),
        "C" in record or not (record.get("C_chosen_by") or record.get("cv_log_loss")),
        _is_search(record.get("cv_log_loss", {})),
        _is_effect(record.get("corrections", {})),
        _are_views(record.get("views", [])),
    ]
    if not all(fits):
        raise ValueError("the training record is missing or not of its kind")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) < 1e15


def _is_strength(value: object) -> bool:
    return isinstance(value, int | float) and SMALLEST_C <= value <= LARGEST_C


def _is_effect(corrections: object) -> bool:
    """Say whether these are counts of corrections, and a digest of them."""
    return isinstance(corrections, dict) and all(
        isinstance(value, str) if name == "sha256" else type(value) is int and value >= 0
        for name, value in corrections.items()
    )


def _are_views(views: object) -> bool:
    """Say whether these are names of views, which names of files are made of."""
    return isinstance(views, list) and all(
        isinstance(view, str) and re.fullmatch("[a-z0-9]+", view) for view in views
    )


def _is_search(losses: object) -> bool:
    """Say whether these are log losses by the C that was tried."""
    return isinstance(losses, dict) and all(
        _is_strength(float(C)) and _is_number(loss) for C, loss in losses.items()
    )
