"""Photos in a folder here, listed with their labels, which its subfolders or a table give."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from breeds.errors import BreedsError
from breeds.files import open_regular
from breeds.photos.photo import FilePhoto, ListedPhoto
from breeds.selection import EXTENSIONS, SPLITS, Choice, Selection, class_name

# First bytes of the allowed formats, for photos whose names do not say what they are.
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*")
# "BM" begins many a text: a bitmap goes on with four zeros and the length of a header that there is.
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
#: How many bytes a table of labels may have: a million rows of 200 letters.
MAX_TABLE_BYTES = 200 * 2**20
_PARTS = ("train", "val", "test")


@dataclass
class Listing:
    """Photos, sorted by name, below a folder, an address or what a pattern begins with.

    Parameters
    ----------
    root
        Where all names start from: a folder as it was named, or an address without passwords.
    photos
        A list; or, of tars and Parquet files, a generator that reads them when it is asked, once, with
        members that cannot be used among them. Then classes are still to be chosen, by `choose`.
    ignored
        How many other files were passed over; of tars, when `photos` has ended.
    missing
        How many rows of Kaggle's ``labels.csv`` have no photo here.
    notes
        What else is to be said of what was left out.
    """

    root: str
    photos: list[ListedPhoto] | Iterator[ListedPhoto] = field(default_factory=list)
    ignored: int = 0
    missing: int = 0
    notes: list[str] = field(default_factory=list)
    selection: Selection | None = field(default=None, repr=False)

    def choose(self, labels: Iterable[str]) -> Choice:
        """Return which of the photos with these labels are kept, as the selection of this listing asks."""
        if self.selection is None:
            return Choice(set(labels))
        choice = self.selection.choose(Counter(labels))
        self.notes += [choice.note] if choice.note else []
        return choice

    def said(self) -> list[str]:
        """Return what to say of all that was left out."""
        said = [f"{self.ignored} other files passed over"] if self.ignored else []
        said += [f"{self.missing} ids of labels.csv have no photo here"] if self.missing else []
        return said + self.notes


def walk_photos(folder: Path, list_unreadable: bool = False) -> tuple[list[str], int]:
    """Return the paths below `folder` that look like photos by name or content, and the count of others.

    Hidden files and folders are passed over; links to folders are followed, each folder once.

    Parameters
    ----------
    list_unreadable
        Count a folder that cannot be read as a photo (that cannot be read either).

    Raises
    ------
    BreedsError
        If a folder cannot be read, and it is not to be listed.
    """
    found: list[str] = []

    def refuse(error: OSError) -> None:
        if not list_unreadable:
            raise BreedsError(f"Cannot read the folder {error.filename}: {error.strerror}.")
        found.append(os.path.relpath(error.filename, folder))

    ignored = 0
    for here, files in walk_folders(folder, refuse):
        relative = os.path.relpath(here, folder)
        for name in sorted(files):
            if _looks_like_photo(here, name):
                found.append(name if relative == "." else os.path.join(relative, name))
            else:
                ignored += 1
    return found, ignored


def walk_folders(
    folder: Path | str, refuse: Callable[[OSError], None] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Yield every folder below `folder`, itself first, and the names of the files in it.

    Hidden folders are passed over; links to folders are followed, each folder once, so that links in a
    circle end.

    Parameters
    ----------
    refuse
        Called with what is wrong with a folder that cannot be read; by default it is passed over.
    """
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(here)
        folders[:] = [] if real in seen else sorted(f for f in folders if not f.startswith("."))
        if real not in seen:
            seen.add(real)
            yield here, files


def _looks_like_photo(folder: str, name: str) -> bool:
    if name.startswith("."):
        return False
    if os.path.splitext(name)[1].lower() in EXTENSIONS:
        return True
    try:
        with open_regular(os.path.join(folder, name), sys.maxsize) as file:
            start = file.read(18) if os.fstat(file.fileno()).st_size else b""
    except OSError:
        return False
    return (
        start.startswith(_MAGIC)
        or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
        or (
            start[:2] == b"BM"
            and start[6:10] == bytes(4)
            and int.from_bytes(start[14:18], "little") in _BMP_HEADERS
        )
    )


def list_folder(data: Path, labels: Path | None = None) -> Listing:
    """List the photos of a folder, or of a table of labels, with all of their classes.

    Parameters
    ----------
    data, labels
        As in `breeds.selection.Selection`.

    Raises
    ------
    BreedsError
        If they are not there, or do not fit each other.
    """
    if not os.path.exists(data):
        raise BreedsError(f"No such folder or file: {data}; name the folder that holds your photos.")
    if labels is not None and not os.path.isfile(labels):
        raise BreedsError(f"No such labels file: {labels}.")
    if data.is_file():
        if labels is not None or data.suffix.lower() != ".csv":
            raise BreedsError(f"{data} is a file; name a folder of photos, or a CSV manifest alone.")
        return _labelled_by(data, data.parent)
    if labels is not None:
        return _labelled_by(labels, data)
    if (data / "labels.csv").is_file():
        return _labelled_by(data / "labels.csv", data)
    paths, ignored = walk_photos(data)
    layout, root = Layout.of(paths), os.path.abspath(data)  # whatever folder the reader is in
    return Listing(str(data), [layout.photo(path, root) for path in paths], ignored)


@dataclass(frozen=True, slots=True)
class Layout:
    """What the folders of photos stand for: how deep the classes are, and whether parts are above them."""

    depth: int
    parted: bool

    @staticmethod
    def of(paths: Sequence[str]) -> Layout:
        """Read it from the photos' paths.

        Examples
        --------
        >>> layout = Layout.of(["Images/n02110958-pug/1.jpg", "Images/n02088364-beagle/2.jpg"])
        >>> layout.photo("Images/n02110958-pug/1.jpg").label
        'pug'
        >>> layout.class_folder("Images/n02110958-pug/1.jpg")
        'Images/n02110958-pug'
        """

        def inside() -> Iterator[list[str]]:
            """Yield the parts of each path, anew each time: there may be a million.

            Photos outside of any folder have no label, and say nothing about what the folders are.
            """
            return (parts for path in paths if len(parts := path.split(os.sep)) > 1)

        shortest = min(map(len, inside()), default=0)
        depth = 0
        # One folder around all classes, as in Stanford's Images/: look inside it.
        while shortest > depth + 2 and len({parts[depth] for parts in inside()}) == 1:
            depth += 1
        folders = {parts[depth] for parts in inside()}
        parted = folders <= SPLITS.keys() and any(len(parts) > depth + 2 for parts in inside())
        return Layout(depth, parted)

    def photo(self, path: str, root: str = "") -> FilePhoto:
        """Return a photo with its label and part."""
        parts = path.split(os.sep)
        split = SPLITS[parts[self.depth]] if self.parted and len(parts) > self.depth + 1 else ""
        inner = parts[self.depth + self.parted :]
        # Interned: one text for all photos of a class.
        label = sys.intern(class_name(inner[0])) if len(inner) > 1 else ""
        return FilePhoto(path, root, label=label, split=split)

    def class_folder(self, path: str) -> str:
        """Return the folder of a labelled photo's class."""
        return os.sep.join(path.split(os.sep)[: self.depth + self.parted + 1])


def _labelled_by(table: Path, root: Path) -> Listing:
    """List the photos that a table names; memory holds those that are there, however long it is."""
    photos: list[ListedPhoto] = []
    top, seen, total, first_missing = os.path.abspath(root), set[str](), 0, list[str]()
    with _csv_rows(table) as (columns, rows):
        kaggle = not {"path", "label"} <= columns
        if kaggle and not {"id", "breed"} <= columns:
            found = ", ".join(sorted(columns)) or "none"
            raise BreedsError(f"{table} has columns {found}; it needs path,label[,split] or id,breed.")
        folder = "train" if (root / "train").is_dir() else ""
        for total, row in enumerate(rows, start=1):
            if kaggle:
                photo = FilePhoto(os.path.join(folder, f"{row['id']}.jpg"), top, label=row["breed"])
            else:
                label, split = sys.intern(class_name(row["label"])), row.get("split", "")
                photo = FilePhoto(row["path"], top, label=label, split=split)
            _check_row(photo, f"{table}, row {total + 1}")
            if not os.path.isfile(photo.path):
                first_missing += [] if len(first_missing) == 5 else [photo.name]
                continue
            if photo.name in seen:
                raise BreedsError(f"{table} names {photo.name} more than once; leave one row for each photo.")
            seen.add(photo.name)
            photos.append(photo)
    listing = Listing(str(root), photos, missing=total - len(photos))
    # Kaggle's table is of the whole competition, and people keep a part of its photos.
    if listing.missing and (not kaggle or not photos):
        raise BreedsError(
            f"{listing.missing} of {total} photos in {table} are missing: {', '.join(first_missing)}."
        )
    if kaggle:
        names = {os.path.basename(photo.name) for photo in photos}
        listing.ignored = len(set(os.listdir(root / folder)) - names)
    return listing


@contextmanager
def _csv_rows(table: Path) -> Iterator[tuple[set[str], Iterator[dict[str, str]]]]:
    """Give a table's columns and, one after the other, its rows."""
    try:
        with io.TextIOWrapper(open_regular(table, MAX_TABLE_BYTES), "utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            columns = Counter(name.strip() for name in reader.fieldnames or ())
            twice = [name for name, count in columns.items() if name and count > 1]
            if twice:
                raise BreedsError(f"{table} has more than one column {twice[0]!r}; leave one of them.")
            yield (
                set(columns),
                ({str(name).strip(): str(cell).strip() for name, cell in row.items()} for row in reader),
            )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise BreedsError(f"Cannot read {table} as a CSV file: {reason}.") from None


def _check_row(photo: FilePhoto, place: str) -> None:
    if not photo.name or "\0" in photo.name + photo.label:
        raise BreedsError(f"{place}: the path is empty, or there is a NUL character.")
    if photo.split not in ("", *_PARTS):
        raise BreedsError(f"{place}: split is {photo.split!r}; use one of {', '.join(_PARTS)}.")
