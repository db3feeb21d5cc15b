"""What a store says of its photos: columns of one length, and the photos that were rejected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Generic, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from breeds.features.columns import Keys, Names, Rows, Texts, order_of

#: What a row has.
COLUMNS = ("key", "path", "label", "split", "size", "mtime_ns")
Kind = TypeVar("Kind")


class Unread(NamedTuple):
    """A column that is left in its file until it is asked for: how many rows, and what reads it."""

    rows: int
    read: Callable[[], Any]


class _Packed(Generic[Kind]):
    """A column of a table: whatever it is given as, it is packed, and read when it is first asked for."""

    def __init__(self, pack: Callable[[Any], Kind]) -> None:
        self._pack = pack

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, table: None, owner: type) -> Any: ...

    @overload
    def __get__(self, table: Table, owner: type) -> Kind: ...

    def __get__(self, table: Table | None, owner: type) -> Any:
        if table is None:
            return ()  # what `Table` takes where nothing is given
        value = vars(table)[self._name]
        if isinstance(value, Unread):
            value = vars(table)[self._name] = self._pack(value.read())
        return value

    def __set__(self, table: Table, value: Any) -> None:
        vars(table)[self._name] = value if isinstance(value, Unread) else self._pack(value)


def _whole_numbers(values: Any) -> NDArray[np.int64]:
    return np.asarray(values, dtype=np.int64)


@dataclass(eq=False)
class Table:
    """What a store says of its photos: columns of one length, and the photos that were rejected.

    A photo costs 32 bytes for its key, its path's length and 8, 8 for label and split, 16 for size and
    time: about 100 with a path of 30 letters. Columns may be given as plain sequences, or `Unread`.

    Parameters
    ----------
    root
        The folder that the paths start from.
    weights_path
        The backbone's weights file, "" if it needs none.
    key, path, label, split
        Of each photo, in any order; "" where there is no label or part of the split.
    size, mtime_ns
        Of each photo's file, in bytes and nanoseconds, when its key was computed; int64 (n,).
    rejected
        The photos that could not be used, each with its reason.

    Examples
    --------
    >>> table = Table("photos", key=["ab" * 32], path=["pug/1.jpg"], label=["pug"], split=[""],
    ...               size=[1], mtime_ns=[1])
    >>> table.label[0], len(table), table.labelled_rows()
    ('pug', 1, [0])
    """

    root: str
    weights_path: str = ""
    key: _Packed[Keys] = _Packed(Keys.of)
    path: _Packed[Texts] = _Packed(Texts.of)
    label: _Packed[Names] = _Packed(Names.of)
    split: _Packed[Names] = _Packed(Names.of)
    size: _Packed[NDArray[np.int64]] = _Packed(_whole_numbers)
    mtime_ns: _Packed[NDArray[np.int64]] = _Packed(_whole_numbers)
    rejected: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        lengths = {name: _length(vars(self)[name]) for name in COLUMNS}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of different lengths: {lengths}")

    def __len__(self) -> int:
        return _length(vars(self)["key"])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Table):
            return NotImplemented
        pairs = ((getattr(self, part.name), getattr(other, part.name)) for part in fields(self))
        return all(np.array_equal(one, two) if isinstance(one, np.ndarray) else one == two
                   for one, two in pairs)  # fmt: skip

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
            self.rejected,
        )

    def after(self, old: Keys) -> Table | None:
        """Return the table with the photos of `old` first, in that order; None if it lacks one of them."""
        here, there = self.key.packed, old.packed
        order, old_order = order_of(here), order_of(there)
        at = np.searchsorted(here[order], there[old_order]) + _repeats(there[old_order])
        if (at >= len(here)).any() or (here[order[at]] != there[old_order]).any():
            return None
        rows = np.empty(len(there), dtype=np.intp)
        rows[old_order] = order[at]
        return self.take(np.concatenate([rows, np.setdiff1d(np.arange(len(here)), rows)]))

    def labelled_rows(self) -> list[int]:
        """Return the rows of the labelled photos, each different photo once."""
        rows = np.flatnonzero(self.label.given())
        found: list[int] = rows[self.key.take(rows).first_rows()].tolist()
        return found


def _repeats(ordered: NDArray[np.bytes_]) -> Rows:
    """Return how many equal keys each of these sorted ones has before it."""
    rows = np.arange(len(ordered))
    starts = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
    return rows - np.maximum.accumulate(np.where(starts, rows, 0))


def _length(column: Any) -> int:
    return column.rows if isinstance(column, Unread) else len(column)
