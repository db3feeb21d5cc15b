"""The data folder of a store: what its folders stand for, what is new in it, where a class's photos go."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from breeds.errors import BreedsError, PhotoError
from breeds.features import Store
from breeds.features.corrections import Corrections, corrections_path
from breeds.labels import means_unknown
from breeds.photos import FilePhoto, Layout, key_of, walk_photos
from breeds.review.names import check_label, spelling


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
