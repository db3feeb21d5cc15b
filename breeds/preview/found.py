"""What is wrong with photos, or may be: copies, two answers for one photo, few, odd and small ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from breeds.features.columns import Rows
from breeds.preview.seen import Seen
from breeds.training import FEW

#: A photo longer than this many times its shorter side is of an odd shape.
ELONGATED = 3.0
#: A photo whose shorter side is below this share of the network's input is small.
SMALL = 0.5


@dataclass(frozen=True)
class Class:
    """A class and its photos: `usable` can be decoded, `different` of these are no copies."""

    name: str
    usable: int
    different: int
    unreadable: int


@dataclass
class Found:
    """What was found out about photos.

    Attributes
    ----------
    classes
        In the order of their names; "" holds the photos without a label, if there are any.
    copies
        Rows of photos that are the same, byte for byte, a group each.
    duplicates
        How many photos are copies of another one.
    conflicts
        The groups of rows that are the same photo under different labels or in different parts of the
        split, readable or not: what extraction refuses.
    odd, small
        Rows of photos that are elongated, or small for the network's input; the worst first.
    """

    classes: list[Class]
    copies: list[Rows]
    duplicates: int
    conflicts: list[Rows]
    odd: Rows
    small: Rows

    @property
    def labelled(self) -> list[Class]:
        """The classes, without the photos that have no label."""
        return [one for one in self.classes if one.name]

    @property
    def few(self) -> list[Class]:
        """The classes with fewer different photos than training can rest on, the smallest first."""
        return sorted(
            (one for one in self.labelled if one.different < FEW), key=lambda one: (one.different, one.name)
        )

    @property
    def unlabelled(self) -> int:
        """How many usable photos have no label."""
        return sum(one.usable for one in self.classes if not one.name)


def find(seen: Seen, size: int) -> Found:
    """Look for all that a person should know before photos are extracted at an input `size`."""
    good = seen.good
    groups = _same_bytes(seen)
    copies = [group for rows in groups if len(group := rows[seen.width[rows] > 0]) > 1]
    conflicts = [rows for rows in groups if _differ(seen, rows)]
    elongation, shorter = seen.elongation(good), seen.shorter(good)
    odd = np.argsort(-elongation, kind="stable")
    small = np.argsort(shorter, kind="stable")
    return Found(
        classes=_classes(seen),
        copies=[rows for rows in copies if not _differ(seen, rows)],
        duplicates=sum(len(rows) - 1 for rows in copies),
        conflicts=conflicts,
        odd=good[odd[elongation[odd] > ELONGATED]],
        small=good[small[shorter[small] < SMALL * size]],
    )


def _same_bytes(seen: Seen) -> list[Rows]:
    """Return the rows of photos with the same key, a group each, in the order of their first rows."""
    read = np.flatnonzero(seen.key.packed != b"")
    _, place, count = np.unique(seen.key.packed[read], return_inverse=True, return_counts=True)
    several = np.flatnonzero(count[place] > 1)
    ordered = several[np.argsort(place[several], kind="stable")]
    groups = np.split(read[ordered], np.flatnonzero(np.diff(place[ordered])) + 1)
    return sorted((rows for rows in groups if len(rows)), key=lambda rows: int(rows[0]))


def _differ(seen: Seen, rows: Rows) -> bool:
    return any(len(np.unique(column.codes[rows])) > 1 for column in (seen.label, seen.split))


def _classes(seen: Seen) -> list[Class]:
    good = seen.good
    names, codes = seen.label.names, seen.label.codes
    first = seen.key.take(good).first_rows()
    usable, different, everything = (
        np.bincount(codes[rows], minlength=len(names)).tolist() for rows in (good, good[first], slice(None))
    )
    return [Class(name, usable[i], different[i], everything[i] - usable[i]) for i, name in enumerate(names)]
