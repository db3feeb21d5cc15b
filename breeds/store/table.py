"""What a store says of its photos: columns of one length, and the photos set aside."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from breeds.store.columns import Column, Keys, Names, Texts

_COLUMNS = ("key", "path", "label", "split", "size", "mtime_ns")


@dataclass(eq=False)
class Table:
    """What a store says of its photos: columns of one length, and the photos set aside.

    A photo costs 32 bytes for its key, its path's length and 8, 8 for label and split, 16 for size and
    time: about 100 with a path of 30 letters. Columns may be given as plain sequences.

    Parameters
    ----------
    root
        The folder that the paths start from.
    weights_path
        The backbone's weights file, "" if it needs none.
    key, path, label, split
        Of each photo; "" where there is no label or part of the split.
    size, mtime_ns
        Of each photo's file, in bytes and nanoseconds, when its key was computed; int64 (n,).
    quarantine
        The photos that could not be used, each with its reason.
    bad_keys
        Keys of those that were read but not decoded: no shard has them, and none is searched for them.

    Examples
    --------
    >>> table = Table("photos", key=["ab" * 32], path=["pug/1.jpg"], label=["pug"], split=[""],
    ...               size=[1], mtime_ns=[1])
    >>> table.label[0], len(table), table.labelled_rows()
    ('pug', 1, [0])
    """

    root: str
    weights_path: str = ""
    key: Keys = field(default_factory=lambda: Keys.of([]))
    path: Texts = field(default_factory=lambda: Texts.of([]))
    label: Names = field(default_factory=lambda: Names.of([]))
    split: Names = field(default_factory=lambda: Names.of([]))
    size: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    mtime_ns: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    quarantine: list[tuple[str, str]] = field(default_factory=list)
    bad_keys: Keys = field(default_factory=lambda: Keys.of([]))

    def __post_init__(self) -> None:
        self.key, self.bad_keys = Keys.of(self.key), Keys.of(self.bad_keys)
        self.path, self.label, self.split = Texts.of(self.path), Names.of(self.label), Names.of(self.split)
        self.size = np.asarray(self.size, dtype=np.int64)
        self.mtime_ns = np.asarray(self.mtime_ns, dtype=np.int64)
        lengths = {name: len(getattr(self, name)) for name in _COLUMNS}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of different lengths: {lengths}")

    def __len__(self) -> int:
        return len(self.key)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Table):
            return NotImplemented
        return all(np.array_equal(value, other.__dict__[name]) if isinstance(value, np.ndarray)
                   else value == other.__dict__[name] for name, value in vars(self).items())  # fmt: skip

    __hash__ = None  # type: ignore[assignment]

    def take(self, rows: ArrayLike) -> Table:
        """Return the table of these rows, in their order, repeats included; all else is the same."""
        rows = np.asarray(rows, dtype=np.intp)
        return Table(
            self.root,
            self.weights_path,
            self.key.take(rows),
            self.path.take(rows),
            self.label.take(rows),
            self.split.take(rows),
            self.size[rows],
            self.mtime_ns[rows],
            self.quarantine,
            self.bad_keys,
        )

    def digest(self) -> str:
        """Return the SHA-256 of all that the table says."""
        total = hashlib.sha256()
        for name, value in sorted(vars(self).items()):
            for part in value._arrays() if isinstance(value, Column) else (value,):
                data = part.tobytes() if isinstance(part, np.ndarray) else json.dumps(part).encode()
                total.update(f"{name} {len(data)}\n".encode())
                total.update(data)
        return total.hexdigest()

    def labelled_rows(self) -> list[int]:
        """Return the rows of the labelled photos, each different photo once."""
        rows = np.flatnonzero(self.label.given())
        found: list[int] = rows[self.key.take(rows).first_rows()].tolist()
        return found
