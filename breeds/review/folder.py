"""The data folder of a store: what its folders stand for, where a class's photos go, and names that fit."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from breeds.errors import BreedsError, PhotoError
from breeds.features import Store
from breeds.features.corrections import Corrections, corrections_path
from breeds.photos import FilePhoto, Layout, key_of, walk_photos
from breeds.selection import EXTENSIONS
from breeds.text import as_bytes, means_unknown, unfit

# Bytes of a stem and of a class's folder: names of 255 bytes can be written, with our own additions.
_LONGEST_STEM, _LONGEST_LABEL = 100, 200
# What some systems take for devices, whatever comes after a dot.
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Folder:
    """The folder of a store's photos, which has a folder for each class.

    `paths` are all photos in it, `fresh` those that the store does not know and will be extracted with the
    taught ones; `classes` are the store's, as they came and as corrected; `selected` those that it was made
    of, None for all that there are.
    """

    store: Store
    corrections: Corrections
    root: str
    layout: Layout
    paths: list[str]
    fresh: list[FilePhoto]
    classes: set[str]
    selected: list[str] | None

    @staticmethod
    def of(store: Store, label: str) -> Folder:
        """Look at the folder of a store that photos of a class are to be put into.

        Raises
        ------
        BreedsError
            If it is not there, or it is not the folders that the photos have their labels from.
        """
        root, table = store.table.root, store.table
        if not os.path.isdir(root):
            raise BreedsError(
                f"The folder of the photos of {store.path}, {root}, is not there, so nothing can be put into "
                f"it; bring it back, or extract from where it is now."
            )
        paths, _ = walk_photos(Path(root))
        layout = Layout.of(paths)
        there = {path: layout.photo(path) for path in paths}
        came = zip(table.path, table.label, table.split, strict=True)
        known = [(there[path], label, split) for path, label, split in came if path in there]
        if not known:
            raise BreedsError(
                f"{root} has none of the photos of {store.path}, so nothing can be put beside them; extract "
                f"from where they are now."
            )
        by_table = os.path.isfile(os.path.join(root, "labels.csv"))
        if by_table or any((p.label, p.split) != (label, split) for p, label, split in known):
            raise BreedsError(
                f"The photos of {store.path} do not have their labels from the folders in {root}, but from a "
                f"table: add the new photos to that, and extract again."
            )
        aside = {layout.photo(path).label for path, _ in table.rejected if path in there}
        classes = ({*table.label.names} | aside) - {""}
        selected = _selected(store, {photo.label for photo in there.values()} - {""}, classes)
        listed = {*table.path}
        fresh = [
            photo
            for path, photo in there.items()
            if path not in listed and (selected is None or photo.label in {*selected, label})
        ]
        corrections = Corrections.load(corrections_path(store.path))
        classes |= {*corrections.labels.values()} - {""}
        return Folder(store, corrections, root, layout, paths, fresh, classes, selected)

    def check(self, label: str) -> None:
        """Refuse a label that cannot be taught; what is a folder's name already can."""
        here = {self.layout.photo(path).label for path in self.paths}
        if label not in here or means_unknown(label):
            check_label(label, here | self.classes)

    @cached_property
    def fresh_keys(self) -> dict[str, FilePhoto]:
        """The photos that are in the folder and new to the store, by key."""
        found = {}
        for photo in self.fresh:
            with suppress(PhotoError):
                found[key_of(FilePhoto(photo.name, root=self.root).read())] = photo
        return found

    def place(self, label: str) -> str:
        """Return the folder, from the root, that photos of a class go into.

        Raises
        ------
        BreedsError
            If that would make the folders mean something else.
        """
        photos = [self.layout.photo(path) for path in self.paths]
        training = [photo for photo in photos if photo.label and photo.split in ("", "train")]
        own = Counter(self.layout.class_folder(p.path) for p in training if p.label == label)
        bases = Counter(os.path.dirname(self.layout.class_folder(photo.name)) for photo in training)
        base = bases.most_common(1)[0][0] if bases else ""
        folder = own.most_common(1)[0][0] if own else os.path.join(base, label)
        new = os.path.join(folder, "photo.jpg")
        after = Layout.of([*self.paths, new])
        given = after.photo(new)
        is_same = all(after.photo(photo.name) == photo for photo in photos)
        if not is_same or given.label != label or given.split not in ("", "train"):
            raise BreedsError(
                f"Photos in {os.path.join(self.root, folder)} would not be for training as {label!r}, or "
                f"change what the other folders in {self.root} mean; choose another name."
            )
        self._refuse_namesakes(folder)
        return folder

    def _refuse_namesakes(self, folder: str) -> None:
        """Refuse what a system that takes no notice of case would put into a folder of another name."""
        parent, name = os.path.split(os.path.join(self.root, folder))
        with suppress(OSError):
            if name not in (there := os.listdir(parent)):
                same = [other for other in there if spelling(other) == spelling(name)]
                if same:
                    raise BreedsError(
                        f"There is {os.path.join(parent, same[0])!r} already, which {name!r} is another "
                        f"spelling of; choose another name."
                    )


def _selected(store: Store, there: set[str], classes: set[str]) -> list[str] | None:
    """Return the classes that a store was selected by, None if it has all of its folder.

    Stores do not say; but one with photos without a label has them all, and one without those of some class
    has not.
    """
    has_unlabelled = "" in store.table.label.names
    return None if has_unlabelled or there <= classes else sorted(classes & there)


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
