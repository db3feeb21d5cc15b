"""Photos as other programs have them, one after the other, by their keys."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from breeds.errors import BreedsError


def check_several(photos: Any) -> None:
    """Refuse a single photo where a list of photos belongs.

    Raises
    ------
    BreedsError
        If it is one, or nothing that photos could be in.
    """
    if hasattr(photos, "tocsr"):
        raise BreedsError("A sparse array holds numbers, and no photos; give photos in a list.")
    single = isinstance(photos, str | bytes | os.PathLike) or not isinstance(photos, Iterable)
    if single or hasattr(photos, "getbands"):
        raise BreedsError(f"Give photos in a list, also a single one: [photo], not {type(photos).__name__}.")
