"""Corrections: a person's word on photos' labels, in a file beside the store that is only ever added to.

``features/NAME.corrections.csv`` beside the store ``features/NAME.h5``, with the columns key, label, was,
when and note. A new word on a photo is a new row, and a key's last row counts; an empty label leaves the
photo out. What people have made of the file by hand stays, byte for byte; what is new comes below it.

A text that a spreadsheet would take for a formula is written with an apostrophe before it, and read
without: class names come from strangers, and a label must be the same after any number of trips.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from breeds.errors import BreedsError
from breeds.features.columns import Keys, Names, locate
from breeds.features.journal import journal_folder
from breeds.features.table import Table
from breeds.files import hold, read_regular, sync_folder, write_aside
from breeds.text import is_formula, unfit, visible

COLUMNS = ("key", "label", "was", "when", "note")
#: How many bytes such a file may have: some hundred thousand corrections.
MOST_BYTES = 16 * 2**20
#: For how many seconds one writer waits for another, which needs a few milliseconds.
PATIENCE = 5.0
_KEY = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Correction:
    """A person's word on one photo.

    Parameters
    ----------
    key
        SHA-256 of the photo's bytes, 64 hexadecimal digits.
    label
        What the photo shows; "" leaves it out.
    was
        What it was labelled in the store, controls written out.
    when
        Date and time; "" takes the present when the correction is added.
    note
        Anything; one line.
    """

    key: str
    label: str
    was: str = ""
    when: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Effect:
    """What corrections do to the photos of a store.

    Attributes
    ----------
    applied
        How many photos of the store have a correction.
    left_out
        How many of these are left out.
    absent
        How many corrections are of photos that are not in the store.
    stale
        How many were made when the label was another than it is now; they are applied all the same.
    sha256
        Of the keys and labels that were applied, "" if none was.
    """

    applied: int = 0
    left_out: int = 0
    absent: int = 0
    stale: int = 0
    sha256: str = ""

    def sentences(self) -> list[str]:
        """Say so to people; nothing where there are no corrections.

        Examples
        --------
        >>> Effect(applied=3, left_out=1, stale=1).sentences()
        ['3 corrections applied, 1 photo left out', '1 correction made when the label was another']
        """
        found = []
        if self.applied:
            left_out = f", {_count(self.left_out, 'photo')} left out" if self.left_out else ""
            found.append(f"{_count(self.applied, 'correction')} applied{left_out}")
        if self.absent:
            found.append(f"{_count(self.absent, 'correction')} of photos that are not in the store")
        if self.stale:
            found.append(f"{_count(self.stale, 'correction')} made when the label was another")
        return found


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Corrections:
    """The last word on each photo, by its key.

    Examples
    --------
    >>> table = Table("photos", key=["ab" * 32, "cd" * 32], path=["pug/1.jpg", "pug/2.jpg"],
    ...               label=["pug", "pug"], split=["", ""], size=[1, 1], mtime_ns=[1, 1])
    >>> list(Corrections.of([Correction("ab" * 32, "beagle"), Correction("cd" * 32, "")]).apply(table).label)
    ['beagle', '']
    """

    last: Mapping[str, Correction] = field(default_factory=dict)

    @staticmethod
    def of(rows: Sequence[Correction]) -> Corrections:
        """Take the last of each photo's rows."""
        return Corrections({row.key: row for row in rows})

    @staticmethod
    def load(path: Path) -> Corrections:
        """Read a file of corrections; where there is none, there are none.

        Raises
        ------
        BreedsError
            If it cannot be read, or is not what people and `add` write; the text names the line.
        """
        data = _read(path)
        return Corrections() if data is None else Corrections.of(_parse(data, path)[1])

    @property
    def labels(self) -> dict[str, str]:
        """The label of each photo that has a correction; "" leaves it out."""
        return {key: row.label for key, row in self.last.items()}

    def __len__(self) -> int:
        return len(self.last)

    def apply(self, table: Table) -> Table:
        """Return a table with the labels as corrected: "" for photos that are left out."""
        if not self.last:
            return table
        keys = sorted(self.last)
        words = [self.last[key].label for key in keys]
        at = locate(Keys.of(keys).packed, table.key.packed).tolist()
        came = zip(at, table.label, strict=True)
        return replace(table, label=Names.of(words[i] if i >= 0 else label for i, label in came))

    def effect(self, table: Table) -> Effect:
        """Say what the corrections do to a table."""
        if not self.last:
            return Effect()
        rows = np.flatnonzero(locate(Keys.of(sorted(self.last)).packed, table.key.packed) >= 0).tolist()
        came = {table.key[row]: visible(table.label[row]).strip() for row in rows}
        applied = sorted((key, self.last[key].label) for key in came)
        return Effect(
            applied=len(applied),
            left_out=sum(not label for _, label in applied),
            absent=len(self.last) - len(applied),
            stale=sum(bool(self.last[key].was) and self.last[key].was != came[key] for key in came),
            sha256=hashlib.sha256(json.dumps(applied).encode()).hexdigest() if applied else "",
        )


@dataclass(frozen=True, slots=True)
class Added:
    """What taking back a change needs: plain values, so that they can be kept anywhere.

    Attributes
    ----------
    before
        How many bytes the file had before, None if it was not there.
    sha256
        Of the file after the change.
    """

    before: int | None
    sha256: str


def corrections_path(store: Path) -> Path:
    """Return the file of a store's corrections: beside the file itself where `store` is a link."""
    return journal_folder(store).with_suffix(".corrections.csv")


def add(path: Path, corrections: Sequence[Correction]) -> Added:
    """Append corrections to a file, whole or not at all; what is in it already stays byte for byte.

    Returns
    -------
    Added
        What `undo` needs.

    Raises
    ------
    BreedsError
        If a key or label cannot be one, if the file is not one of corrections, or it cannot be written.
    """
    for correction in corrections:
        _check(correction)
    path = Path(os.path.realpath(path))
    with _alone(path):
        old = _read(path)
        new = _appended(old or b"", corrections, path)
        if len(new) > MOST_BYTES:
            raise BreedsError(f"{path} would have over {MOST_BYTES // 2**20} MiB; move old rows out of it.")
        _parse(new, path)  # nothing is written that could not be read, such as a text that is too long
        with write_aside(path) as aside:
            aside.write_bytes(new)
    return Added(None if old is None else len(old), hashlib.sha256(new).hexdigest())


def undo(path: Path, added: Added) -> None:
    """Take back what `add` has done: the file is what it was, byte for byte, or gone if it was not there.

    Raises
    ------
    BreedsError
        If the file is not what `add` has left, as somebody else has changed it meanwhile.
    """
    path = Path(os.path.realpath(path))
    with _alone(path):
        now = _read(path)
        if now is None or hashlib.sha256(now).hexdigest() != added.sha256:
            raise BreedsError(
                f"{path} has been changed since, so this cannot be undone; add a correction that says what "
                f"is right."
            )
        if added.before is None:
            path.unlink()
            sync_folder(path.parent)
            return
        with write_aside(path) as aside:
            aside.write_bytes(now[: added.before])


def _alone(path: Path) -> AbstractContextManager[None]:
    """Let one writer at a time read and write the file; the others wait a little."""
    return hold(path.with_name(f".{path.name}.lock"), str(path), PATIENCE)


def _check(correction: Correction) -> None:
    if not _KEY.fullmatch(correction.key):
        raise BreedsError(f"{correction.key!r} is no key of a photo, the 64 digits of its SHA-256.")
    if why := unfit(correction.label):
        raise BreedsError(f"A photo cannot be labelled {correction.label!r}: {why}; choose another name.")


def _read(path: Path) -> bytes | None:
    """Return the file's bytes, None if it is not there."""
    try:
        return read_regular(path, MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BreedsError(f"Cannot read {path}: {error.strerror or error}.") from None


def _parse(data: bytes, path: Path) -> tuple[list[str], list[Correction]]:
    """Return the columns, none if there is no row yet, and all corrections, the oldest first."""
    columns: list[str] = []
    found = []
    # Strict, as a quote that is never closed would else swallow all rows below it.
    reader = csv.reader(io.StringIO(_text(data, path), newline=""), strict=True)
    try:
        for row in reader:
            cells, place = [cell.strip() for cell in row], f"{path}, line {reader.line_num}"
            if not any(cells):
                continue
            if columns:
                found.append(_correction(cells, columns, place))
            else:
                columns = _header(cells, place)
    except csv.Error as error:
        raise BreedsError(
            f"{path}, line {reader.line_num}: it is no CSV ({error}); put texts with commas or "
            f"quotes in double quotes, and double those inside."
        ) from None
    return columns, found


def _text(data: bytes, path: Path) -> str:
    """Decode a file; a mark of UTF-8 at its start, as spreadsheets write it, is no part of the text."""
    try:
        if (at := data.find(0)) < 0:
            return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start
    line = data.count(b"\n", 0, at) + 1
    raise BreedsError(
        f"{path}, line {line}: it is no text in UTF-8; save it from a spreadsheet as CSV in UTF-8."
    ) from None


def _header(cells: list[str], place: str) -> list[str]:
    twice = [name for name, count in Counter(cells).items() if name and count > 1]
    if twice:
        raise BreedsError(f"{place}: there is more than one column {twice[0]!r}; leave one of them.")
    if not {"key", "label"} <= set(cells):
        raise BreedsError(
            f"{place}: the columns are {visible(', '.join(cells))[:200]}; corrections "
            f"have {','.join(COLUMNS)}, with commas between them."
        )
    return cells


def _correction(cells: list[str], columns: list[str], place: str) -> Correction:
    if any(cells[len(columns) :]):
        raise BreedsError(
            f"{place}: there are more cells than columns; put a text with commas in double quotes."
        )
    named = dict(zip(columns, cells, strict=False))
    if "label" not in named:
        raise BreedsError(f"{place}: there is no label; an empty cell would leave the photo out.")
    key, label = named["key"].lower(), _plain(named["label"])
    if not _KEY.fullmatch(key):
        raise BreedsError(f"{place}: {key[:80]!r} is no key of a photo, the 64 digits of its SHA-256.")
    if why := unfit(label):
        raise BreedsError(f"{place}: a photo cannot be labelled {label[:80]!r}: {why}.")
    rest = [_plain(named.get(name, "")) for name in COLUMNS[2:]]
    return Correction(key, label, *rest)


def _appended(old: bytes, corrections: Sequence[Correction], path: Path) -> bytes:
    """Return the file with rows for the corrections below it, in its own columns and line ends."""
    columns, _ = _parse(old, path)
    end = "\r\n" if b"\r\n" in old else "\n"
    text = io.StringIO()
    if old and not old.endswith((b"\n", b"\r")):
        text.write(end)
    writer = csv.writer(text, lineterminator=end)
    if not columns:
        columns = [*COLUMNS]
        writer.writerow(columns)
    for correction in corrections:
        cells = asdict(correction) | {"when": correction.when or time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        writer.writerow([_guarded(visible(cells.get(name, "")).strip()) for name in columns])
    return old + text.getvalue().encode()


def _guarded(text: str) -> str:
    """Return a text as its cell holds it: an apostrophe before what a spreadsheet would run."""
    return f"'{text}" if is_formula(text.lstrip("'")) else text


def _plain(cell: str) -> str:
    """Return the text that a cell holds, without the apostrophe of `_guarded`."""
    return cell[1:] if cell.startswith("'") and is_formula(cell.lstrip("'")) else cell
