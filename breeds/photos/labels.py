"""Labels as tars and Parquet files have them: texts and numbers from strangers, made plain or refused."""

from __future__ import annotations

import re
from typing import Any

from breeds.errors import PhotoError

#: How many characters a label may have; file systems take no more for a folder of a class.
LONGEST_LABEL = 255
SPLITS = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
# The WordNet number that ImageNet's and Stanford's names of classes begin with.
_WNID = re.compile(r"^n\d{8}-(?=.)")


def plain_label(value: Any) -> str:
    r"""Return a label as text, "" for none.

    Raises
    ------
    PhotoError
        If it is neither a text nor a whole number, or no text for a name.

    Examples
    --------
    >>> plain_label(" n02110958-pug\n"), plain_label(7), plain_label(None)
    ('pug', '7', '')
    """
    if value is None:
        return ""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise PhotoError("it is neither a text nor a whole number")
    text = _WNID.sub("", str(value).strip())
    if len(text) > LONGEST_LABEL or "\0" in text:
        raise PhotoError(f"it has more than {LONGEST_LABEL} characters, or a NUL among them")
    return text


def label_of(said: Any) -> tuple[str, str]:
    """Return the label and the part of the split that a JSON object says, "" for what it does not.

    Raises
    ------
    PhotoError
        If it is no object, or one of them is none.
    """
    if not isinstance(said, dict):
        raise PhotoError("it is no object of JSON")
    split = said.get("split") or ""
    if split and (not isinstance(split, str) or split not in SPLITS):
        raise PhotoError(f"its split is none of {', '.join(sorted(set(SPLITS.values())))}")
    return plain_label(said.get("label")), SPLITS.get(split, "")
