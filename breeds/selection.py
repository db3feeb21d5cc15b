"""Names of data, photos, classes and parts of a split; and which photos a person selects by them."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from breeds.errors import BreedsError, PhotoError

#: An address that names how it is reached, such as ``s3://bucket/photos``; no path begins so.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# What stands for several names: `photos-{000..009}.tar`, `photos-*.tar`.
_PATTERN = re.compile(r"\{[^{}]*\}|[*?]|\[[^\]]*\]")
_ENDINGS = (".tar", ".parquet", ".csv")


def is_address(text: str) -> bool:
    """Say whether a source is named by an address, such as ``s3://bucket/photos``, and is no path."""
    return _ADDRESS.match(text) is not None


def as_source(text: str) -> Path | str:
    """Return a source as it is named on a command line: an address stays text, all else is a path."""
    return text if is_address(text) else Path(text)


def shown(address: str) -> str:
    """Return an address as it may be shown and kept: without a user's name, a password and a query.

    Examples
    --------
    >>> shown("https://rex:secret@example.org/photos-000.tar?signature=secret")
    'https://example.org/photos-000.tar'
    """
    try:
        parts = urlsplit(address)
    except ValueError:  # as of brackets that hold no address of IPv6
        scheme, _, rest = address.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
    host = parts.netloc.rpartition("@")[2]
    query = "" if parts.scheme in ("http", "https") else parts.query
    if query:  # a name that has a question mark in it, as in a bucket
        return f"{parts.scheme}://{host}{parts.path}?{query}"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def stem_of(source: str) -> str:
    """Return what to call what is made of an address or a pattern, "" if nothing is left of it.

    Examples
    --------
    >>> stem_of("s3://bucket/dogs/photos-{000..009}.tar"), stem_of("s3://bucket/dogs/")
    ('photos', 'dogs')
    """
    name = shown(source) if is_address(source) else source
    name = name.rstrip("/").rpartition("/")[2]
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return _PATTERN.sub("", name).strip("-_. ")


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


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return int(text)


@dataclass(frozen=True)
class Selection:
    """Which photos, and which of their classes.

    Parameters
    ----------
    data
        A folder, a CSV manifest, tars, Parquet files, or an address, as `breeds.photos.find_photos` says.
    labels
        A CSV file of labels for the photos in the folder `data`.
    top
        Keep the classes with the most photos, this many, ties by name.
    classes
        Keep these classes.
    min_photos
        Leave out classes with fewer photos.
    """

    data: Path | str
    labels: Path | None = None
    top: int | None = None
    classes: Sequence[str] | None = None
    min_photos: int = 1

    def __post_init__(self) -> None:
        if self.top is not None and self.classes is not None:
            raise BreedsError("--top and --classes both choose the classes; name one of the two.")

    @staticmethod
    def of(arguments: argparse.Namespace) -> Selection:
        """Return what a command line whose parser has `add_options` asks for."""
        return Selection(**{one.name: getattr(arguments, one.name) for one in fields(Selection)})

    @property
    def source(self) -> str:
        """What `data` is called, to be shown."""
        return shown(str(self.data)) if is_address(str(self.data)) else str(self.data)

    def choose(self, labels: Counter[str]) -> Choice:
        """Return which classes are kept of those that photos have, each counted by its label.

        Raises
        ------
        BreedsError
            If none is left, or one that was named is not there.
        """
        counts = Counter({label: count for label, count in labels.items() if label})
        by_name = self.top is not None or self.classes is not None
        if by_name and not counts:
            raise BreedsError(f"The photos in {self.source} have no labels, so no classes can be chosen.")
        if unknown := sorted({*(self.classes or ())} - counts.keys()):
            known = ", ".join(sorted(counts))
            raise BreedsError(f"No photos of {', '.join(unknown)} in {self.source}; its classes are {known}.")
        small = {label: count for label, count in sorted(counts.items()) if count < self.min_photos}
        if self.classes is not None:
            small = {label: count for label, count in small.items() if label in self.classes}
        largest = sorted(counts.keys() - small.keys(), key=lambda label: (-counts[label], label))
        keep = {label for label in largest[: self.top] if self.classes is None or label in self.classes}
        if counts and not keep:
            raise BreedsError(f"No class in {self.source} has {self.min_photos} photos; ask for fewer.")
        return Choice(keep, not by_name, self._note(small))

    def _note(self, small: dict[str, int]) -> str:
        """Say what `min_photos` leaves out."""
        if not small:
            return ""
        some = ", ".join(f"{label} ({count})" for label, count in list(small.items())[:10])
        more = f" and {len(small) - 10} more" if len(small) > 10 else ""
        classes = "1 class" if len(small) == 1 else f"{len(small)} classes"
        return f"{classes} of fewer than {self.min_photos} photos left out: {some}{more}"


@dataclass(frozen=True)
class Choice:
    """The classes that are kept, whether photos without a label are too, and what to say of the others."""

    classes: set[str] = field(default_factory=set)
    unlabelled: bool = True
    note: str = ""

    def keeps(self, label: str) -> bool:
        """Say whether a photo of this label is kept."""
        return label in self.classes if label else self.unlabelled


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a selection to a parser."""
    add = parser.add_argument
    add("data", metavar="DATA", type=as_source,
        help="folder of photos (a subfolder per class, Kaggle's layout, or flat), a CSV manifest "
        "with columns path,label[,split], or tars or Parquet files of photos (a folder of them, or a pattern "
        "such as photos-{000..009}.tar); all but the manifest by an address too, such as s3://BUCKET/photos"
        )  # fmt: skip
    add("--labels", metavar="CSV", type=Path,
        help="labels for the photos in DATA, columns id,breed or path,label[,split] "
        "(default: DATA/labels.csv if there, else the subfolders' names)")  # fmt: skip
    add("--top", metavar="N", type=_positive,
        help="keep the N classes with the most photos (default: all)")  # fmt: skip
    add("--classes", metavar="A,B,C", type=lambda text: text.split(","),
        help="keep these classes (default: all)")  # fmt: skip
    add("--min-photos", metavar="N", type=_positive, default=1,
        help="leave out classes with fewer photos, and say which (default: 1)")  # fmt: skip
