"""Teach: a handful of photos into a class, as new files in the data folder, extracted at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from breeds.backbones import Engine
from breeds.backbones.resolve import check_computable, found_weights
from breeds.errors import BreedsError, PhotoError, attempt
from breeds.extraction import extract
from breeds.features import Store, check_config, lock_file
from breeds.features.columns import Keys
from breeds.features.corrections import PATIENCE
from breeds.files import commit, hold, remove_leftovers, sync_folder, temporary_beside
from breeds.outputs import view_stores
from breeds.photos import key_of, picture
from breeds.photos.limits import size_fault
from breeds.review.folder import Folder, photo_name
from breeds.selection import Selection
from breeds.text import visible

# Longest side of the picture that a photo is decoded to, to see that it can be.
_LOOK = 160


@dataclass(frozen=True, slots=True)
class Written:
    """A photo that was taught: what it was called, its key, and its path from the store's root."""

    name: str
    key: str
    path: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A photo that was not taught, and why; `path` is where its file is, "" if none was written."""

    name: str
    reason: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Taught:
    """What came of teaching: ``photos == len(written) + len(refused)``, always.

    Attributes
    ----------
    label
        The class.
    is_new
        Whether it is a class that no photo of the store had.
    written
        The photos that the store has now.
    refused
        The others.
    others
        How many photos more were in the folder and new to the store, and are in it now.
    """

    label: str
    is_new: bool
    written: list[Written]
    refused: list[Refused]
    others: int = 0

    @property
    def photos(self) -> int:
        """How many were given."""
        return len(self.written) + len(self.refused)


def teach(
    store: Store, label: str, photos: Sequence[tuple[str, bytes]], engine: str | Engine = "auto"
) -> Taught:
    """Write photos into the folder of a class, as new files, and extract them.

    A file gets its name when it is whole, and no file that is there is replaced. If extraction fails, or the
    process is killed, the files that have their names stay: the next extraction takes them in, and so
    does teaching the same photos again, which writes none twice.

    Parameters
    ----------
    store
        Of photos in a folder for each class. Stores beside it (`Store.also`) and of its views are brought up
        to date too. Open it again afterwards.
    label
        A class of the store, or a new one.
    photos
        What each is called by whoever gives it, and its bytes.
    engine
        What computes, as in `breeds.extraction.extract`.

    Raises
    ------
    BreedsError
        If the store's photos have their labels from a table, or its folder or weights are not there any more,
        if the label cannot be one, or if the files cannot be written or not be extracted; the text of the
        last names the files, which stay.
    """
    lock = store.path.with_name(f".{store.path.name}.teach.lock")
    with hold(lock, f"{store.table.root}, for {store.path},", PATIENCE):
        store = Store(store.path, corrected=False).like(
            also=store.also
        )  # somebody may have taught it meanwhile
        folder = Folder.of(store, label)
        folder.check(label)
        target = folder.place(label)
        for part in _stores(store):
            _check_extractable(part)
        taken, refused = _sorted_out(label, photos, folder)
        with hold(lock_file(store.path), str(store.path)):
            pass  # nothing is written while somebody else writes the store: it may not take the files in
        written: list[Written] = []
        reasons: dict[str, str] = {}
        if taken:
            extract_again = partial(_extracted, folder, label, engine)
            reasons = _written_and_extracted(folder, target, taken, written, extract_again)
    refused += [
        Refused(photo.name, reasons[photo.path], photo.path) for photo in written if photo.path in reasons
    ]
    kept = [photo for photo in written if photo.path not in reasons]
    others = {photo.name for photo in folder.fresh} - {photo.path for photo in written} - reasons.keys()
    return Taught(label, label not in folder.classes, kept, refused, len(others) if written else 0)


def _written_and_extracted(
    folder: Folder,
    target: str,
    photos: Sequence[tuple[str, bytes]],
    written: list[Written],
    extract_again: Callable[[], dict[str, str]],
) -> dict[str, str]:
    """Write photos, noting each in `written`, and extract; return why photos could not be used, by path."""
    full = Path(folder.root, target)
    was_there = full.is_dir()
    try:
        remove_leftovers(full)  # of a teaching that was killed; it may have written all that is to be written
        for name, data in photos:
            written.append(_write(folder, target, name, data))
        return extract_again()
    except (BreedsError, OSError, RuntimeError, MemoryError) as error:
        if not was_there:
            with suppress(OSError):
                full.rmdir()  # if nothing is in it
        if not written:
            raise
        names = ", ".join(visible(photo.path) for photo in written[:10])
        raise BreedsError(
            f"{len(written)} of {len(photos)} photos were written into {folder.root} and stay there for the "
            f"next extraction ({names}), as {folder.store.path} could not be brought up to date: {error}"
        ) from error


def _stores(store: Store) -> Iterator[Store]:
    """Yield all stores that a model of this one may rest on."""
    for part in (store, *store.also):
        yield part
        for path in view_stores(part.path):
            yield Store(path, corrected=False)


def _check_extractable(store: Store) -> None:
    """Refuse a store whose config cannot be followed here, before anything is written."""
    check_computable(replace(store.config, view="original"))
    weights = found_weights(store.config, _weights(store))
    if weights.sha256 != store.config.weights_sha256:
        found = replace(store.config, weights=weights.name, weights_sha256=weights.sha256)
        check_config(store.path, store.config, found)


def _weights(store: Store) -> str:
    """Return what names the weights of a store."""
    name, path = store.config.weights, store.table.weights_path
    if path and os.path.isfile(path):
        return path
    if name in ("imagenet", "random"):
        return name
    raise BreedsError(
        f"The weights of {store.path}, {name} ({store.config.weights_sha256[:12]}), are not at "
        f"{path or 'a known place'} any more; bring them back."
    )


def _sorted_out(
    label: str, photos: Sequence[tuple[str, bytes]], folder: Folder
) -> tuple[list[tuple[str, bytes]], list[Refused]]:
    """Return the photos that can be taught, and the others with their reasons."""
    taken: list[tuple[str, bytes]] = []
    refused: list[Refused] = []
    first: dict[str, str] = {}
    for name, data in photos:
        key = key_of(data)
        reason = _why_not(label, key, data, folder)
        if not reason and key in first:
            reason = f"it is the same photo as {visible(first[key])}"
        if reason:
            refused.append(Refused(name, reason))
        else:
            first[key] = name
            taken.append((name, data))
    return taken, refused


def _why_not(label: str, key: str, data: bytes, folder: Folder) -> str:
    """Say why a photo cannot be taught, "" if it can."""
    if fault := size_fault(len(data)):
        return fault
    found = attempt(picture, data, _LOOK)
    if isinstance(found, PhotoError):
        return str(found)
    table = folder.store.table
    row = int(table.key.rows_of(Keys.of([key]))[0])
    if row >= 0:
        came = table.label[row] or "without a label"
        return f"it is in the store already: {visible(table.path[row])} ({visible(came)})"
    fresh = folder.fresh_keys.get(key)
    if fresh is not None and fresh.label != label:
        return f"it is in the folder already: {visible(fresh.name)}"
    said = folder.corrections.labels.get(key, label)
    if said != label:
        return f"a correction calls it {visible(said)}" if said else "a correction leaves it out"
    return ""


def _write(folder: Folder, target: str, name: str, data: bytes) -> Written:
    """Write a photo under a name that nothing has, but for one that is there already, new to the store."""
    key, plain = key_of(data), photo_name(name)
    if key in folder.fresh_keys:
        return Written(name, key, folder.fresh_keys[key].name)
    stem, extension = os.path.splitext(plain)
    _make_folder(folder.root, target)
    for candidate in (plain, f"{stem}-{key[:8]}{extension}", f"{stem}-{key}{extension}"):
        path = os.path.join(target, candidate)
        if _put(Path(folder.root, path), data):
            return Written(name, key, path)
    raise BreedsError(f"Cannot write {os.path.join(folder.root, path)}: a file is there; remove it.")


def _make_folder(root: str, target: str) -> None:
    full = Path(root, target)
    try:
        if not full.is_dir():
            full.mkdir(parents=True)
            sync_folder(full.parent)
    except OSError as error:
        raise BreedsError(f"Cannot make the folder {full}: {error.strerror}; nothing was written.") from None


def _put(path: Path, data: bytes) -> bool:
    """Write a new file, whole or not at all; False if something has the name already."""
    if os.path.lexists(path):
        return False
    with temporary_beside(path) as aside:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)  # unlike a rename it never replaces what is there
        except FileExistsError:
            return False
        except OSError:  # no hard links here, as on FAT: nobody else had the name a moment ago
            if os.path.lexists(path):
                return False
            commit(aside, path)
        sync_folder(path.parent)
    return True


def _extracted(folder: Folder, label: str, engine: str | Engine) -> dict[str, str]:
    """Bring the stores up to date; return the reasons of photos that could not be used, by path."""
    classes = None if folder.selected is None else sorted({*folder.selected, label})
    selection = Selection(Path(folder.root), classes=classes)
    reasons: dict[str, str] = {}
    for part in (folder.store, *folder.store.also):
        config = replace(part.config, weights=_weights(part))
        summaries = [extract(selection, part.path, config, engine=engine)]
        for path in view_stores(part.path):
            of_view = replace(config, view=Store(path, corrected=False).config.view)
            summaries.append(extract(selection, path, of_view, plain=part.path, engine=engine))
        for summary in summaries:
            reasons |= summary.quarantined
    return reasons
