"""Names of photos, of files of many photos, of their labels and of the parts of a split."""

from __future__ import annotations

import re
from typing import Any

from breeds.errors import PhotoError

#: How the names of photos end.
EXTENSIONS = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".mpo"]
)
#: How the names of files of many photos end: WebDataset's shards, and Parquet.
CONTAINERS = (".tar", ".parquet")
#: Tars in which no photo can be found without unpacking all before it.
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
#: What people call the parts of a split, and what we do.
SPLITS = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
#: How many characters a label may have; file systems take no more for a folder of a class.
LONGEST_LABEL = 255
# The WordNet number that ImageNet's and Stanford's names of classes begin with.
_WNID = re.compile(r"^n\d{8}-(?=.)")


def is_photo(name: str) -> bool:
    """Say by its name whether a file is a photo; hidden ones are not."""
    last = name.rpartition("/")[2]
    stem, dot, ending = last.rpartition(".")
    return bool(stem) and not last.startswith(".") and f"{dot}{ending}".lower() in EXTENSIONS


def is_container(name: str) -> bool:
    """Say by its name whether a file holds many photos."""
    return name.lower().endswith(CONTAINERS)


def is_parquet(name: str) -> bool:
    """Say by its name whether a file of many photos is Parquet; else it is a tar."""
    return name.lower().endswith(".parquet")


def class_name(text: str) -> str:
    """Return the name of a class without its WordNet number."""
    return _WNID.sub("", text)


def plain_label(value: Any) -> str:
    r"""Return a stranger's label as text, "" for none.

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
    text = class_name(str(value).strip())
    if len(text) > LONGEST_LABEL or "\0" in text:
        raise PhotoError(f"it has more than {LONGEST_LABEL} characters, or a NUL among them")
    return text


def plain_split(value: Any) -> str:
    """Return a stranger's part of the split as ours, "" for none.

    Raises
    ------
    PhotoError
        If it is none that there is.
    """
    if value in (None, ""):
        return ""
    if not isinstance(value, str) or value not in SPLITS:
        raise PhotoError(f"its split is none of {', '.join(sorted(set(SPLITS.values())))}")
    return SPLITS[value]
