"""Names that strangers give, made fit for files and folders, or refused."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable

from breeds.errors import BreedsError
from breeds.labels import unfit
from breeds.photos.names import EXTENSIONS
from breeds.text import as_bytes

# Bytes of a stem and of a class's folder: names of 255 bytes can be written, with our own additions.
_LONGEST_STEM, _LONGEST_LABEL = 100, 200
# What some systems take for devices, whatever comes after a dot.
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)


def photo_name(name: str) -> str:
    r"""Return a file name for a photo that somebody calls `name`: letters, digits, "-", "_" and blanks.

    Only a photo's extension is kept; without one a photo is known by its content.

    Examples
    --------
    >>> photo_name("..\\..\\etc/Rex at the sea.JPG"), photo_name("nul.png"), photo_name(".htaccess")
    ('Rex at the sea.JPG', 'photo_nul.png', 'htaccess')
    """
    base = unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1])
    stem, extension = os.path.splitext(base)
    if extension.lower() not in EXTENSIONS:
        stem, extension = base, ""
    stem = re.sub(r"[^\w -]", "_", stem).lstrip(" _-").rstrip(" ")
    stem = as_bytes(stem)[:_LONGEST_STEM].decode("utf-8", "ignore").rstrip(" ")
    if not stem or _RESERVED.fullmatch(stem):
        stem = f"photo_{stem}" if stem else "photo"
    return stem + extension


def check_label(label: str, classes: Iterable[str]) -> None:
    """Make sure that photos may be taught under a label, which becomes the name of a folder.

    Parameters
    ----------
    classes
        Those that there are.

    Raises
    ------
    BreedsError
        If it cannot be a folder's name on every system, or is another spelling of a class.
    """
    why = unfit(label) or _unfit_for_folder(label)
    if why:
        raise BreedsError(f"A class cannot be called {label[:80]!r}: {why}; choose another name.")
    same = [name for name in classes if name != label and spelling(name) == spelling(label)]
    if label not in set(classes) and same:
        raise BreedsError(
            f"There is a class {same[0]!r} already, which {label!r} is another spelling of; teach that one."
        )


def _unfit_for_folder(label: str) -> str:
    if not label:
        return "the name is empty"
    if found := re.search(r'[/\\:*?"<>|]', label):
        return f"there is a {found[0]} in it, which not every folder's name can have"
    if label.startswith(".") or label.endswith("."):
        return "a folder with a dot at its start or end is passed over, or renamed, by some systems"
    if _RESERVED.fullmatch(label.split(".")[0]):
        return "some systems keep this name for themselves"
    if len(as_bytes(label)) > _LONGEST_LABEL:
        return f"it has over {_LONGEST_LABEL} bytes"
    return ""


def spelling(name: str) -> str:
    """Return what spellings of a name have in common: letters, whatever their case, and what is between.

    Examples
    --------
    >>> spelling("German Shepherd") == spelling("german_shepherd") == spelling("german-shepherd")
    True
    """
    return re.sub(r"[\s_-]+", "_", unicodedata.normalize("NFKC", name).casefold())
