"""Columns of a table in arrays: they read like lists of text and hold a million rows in a few megabytes."""

from __future__ import annotations

import os
from abc import abstractmethod
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Self, SupportsIndex, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from breeds.text import as_bytes

Rows = NDArray[np.intp]
#: A packed key: the 32 bytes of a SHA-256 digest.
PACKED = np.dtype("S32")
# Rows of text that are moved at a time.
_AT_ONCE = 65536


class Column(Sequence[str]):
    """A column of text: indexed and iterated it gives `str`, and `take` gives other rows of it."""

    __slots__ = ()

    @abstractmethod
    def take(self, rows: ArrayLike) -> Self:
        """Return the column of these rows, in their order, repeats included."""

    @abstractmethod
    def _text(self, row: int) -> str: ...

    @abstractmethod
    def _arrays(self) -> tuple[ArrayLike, ...]:
        """Return the arrays that are equal if, and only if, the columns are."""

    @overload
    def __getitem__(self, row: SupportsIndex) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> Self: ...

    def __getitem__(self, row: SupportsIndex | slice) -> str | Self:
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        return self._text(range(len(self))[row])

    def __iter__(self) -> Iterator[str]:
        return map(self._text, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, type(self)):
            return all(map(np.array_equal, self._arrays(), other._arrays()))
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self[:3])}{'...' if len(self) > 3 else ''}, {len(self)} rows)"


class Keys(Column):
    """SHA-256 digests, 32 bytes each in `packed`; they read as 64 hexadecimal digits.

    numpy takes zeros at the end of its byte strings for padding, which changes neither the order nor
    the equality of digests of one length.
    """

    __slots__ = ("packed",)

    def __init__(self, packed: NDArray[np.bytes_]) -> None:
        self.packed = packed

    @staticmethod
    def of(keys: Iterable[str]) -> Keys:
        """Pack keys of 64 hexadecimal digits."""
        if isinstance(keys, Keys):
            return keys
        packed = bytearray()
        for key in keys:
            packed += bytes.fromhex(key)
        return Keys(np.frombuffer(packed, dtype=PACKED))

    def take(self, rows: ArrayLike) -> Keys:
        """Return the keys of these rows."""
        return Keys(self.packed[np.asarray(rows, dtype=np.intp)])

    def hexadecimal(self) -> NDArray[np.bytes_]:
        """Return the keys as files hold them, S64 (n,)."""
        return np.frombuffer(self.packed.tobytes().hex().encode(), dtype=f"S{2 * PACKED.itemsize}")

    def rows_of(self, wanted: Keys) -> Rows:
        """Return a row of each of these keys, -1 where it is not here."""
        few = np.sort(beginnings(wanted.packed))
        if not len(few) or not len(self):
            return np.full(len(wanted), -1)
        begin = beginnings(self.packed)
        rows = np.flatnonzero(few[np.searchsorted(few[:-1], begin)] == begin)
        order = rows[order_of(self.packed[rows])]
        at = locate(self.packed[order], wanted.packed)
        return np.where(at >= 0, order[at] if len(order) else -1, -1)

    def first_rows(self) -> Rows:
        """Return the first row of each different key, in the order of rows."""
        return np.sort(first_of_each(self.packed))

    def __len__(self) -> int:
        return len(self.packed)

    def _text(self, row: int) -> str:
        return bytes(self.packed[row]).ljust(PACKED.itemsize, b"\0").hex()

    def _arrays(self) -> tuple[ArrayLike, ...]:
        return (self.packed,)


class Texts(Column):
    """Texts that are mostly different, such as paths: their bytes end to end, and where each begins."""

    __slots__ = ("_ends", "_joined", "_order")

    def __init__(self, joined: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self._joined = joined
        self._ends = ends  # with a leading 0: text i is joined[ends[i] : ends[i + 1]]
        self._order: Rows | None = None  # of the rows by their texts, once one is looked for

    @staticmethod
    def of(texts: Iterable[str]) -> Texts:
        """Pack texts as UTF-8; bytes that are no UTF-8, as in odd file names, stay themselves."""
        return texts if isinstance(texts, Texts) else Texts.of_bytes(map(as_bytes, texts))

    @staticmethod
    def of_bytes(texts: Iterable[bytes]) -> Texts:
        """Pack texts that are encoded already."""
        joined, ends = bytearray(), array("q", [0])
        for text in texts:
            joined += text
            ends.append(len(joined))
        return Texts(np.frombuffer(joined, dtype=np.uint8), np.frombuffer(ends, dtype=np.int64))

    @staticmethod
    def of_padded(blocks: Iterable[NDArray[np.bytes_]]) -> Texts:
        """Pack texts that come padded with zeros to one length, S (n,) each block."""
        joined, lengths = bytearray(), [np.zeros(1, dtype=np.int64)]
        for block in blocks:
            lengths.append(np.char.str_len(block).astype(np.int64))
            letters = block.view(np.uint8).reshape(len(block), block.dtype.itemsize)
            joined += letters[np.arange(letters.shape[1]) < lengths[-1][:, None]].tobytes()
        return Texts(np.frombuffer(joined, dtype=np.uint8), np.concatenate(lengths).cumsum())

    def take(self, rows: ArrayLike) -> Texts:
        """Return the texts of these rows."""
        rows = np.asarray(rows, dtype=np.intp)
        begins, lengths = self._ends[rows], self._ends[rows + 1] - self._ends[rows]
        ends = np.concatenate([np.zeros(1, dtype=np.int64), lengths.cumsum()])
        joined = np.empty(ends[-1], dtype=np.uint8)
        for start in range(0, len(rows), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            first, last = ends[start], ends[min(start + _AT_ONCE, len(rows))]
            moved = np.repeat(begins[part] - ends[:-1][part], lengths[part])
            joined[first:last] = self._joined[np.arange(first, last) + moved]
        return Texts(joined, ends)

    def padded(self, most: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the texts padded with zeros to the longest, uint8 (n, longest), `most` bytes at a time."""
        lengths = np.diff(self._ends)
        longest = max(1, int(lengths.max(initial=0)))
        at_once = max(1, most // longest)
        for start in range(0, len(self) or 1, at_once):
            here = lengths[start : start + at_once]
            block = np.zeros((len(here), longest), dtype=np.uint8)
            first, last = self._ends[start], self._ends[start + len(here)]
            block[np.arange(longest) < here[:, None]] = self._joined[first:last]
            yield block

    def encoded(self, row: int) -> bytes:
        """Return one text's bytes."""
        return self._joined[self._ends[row] : self._ends[row + 1]].tobytes()

    def find(self, text: str) -> int:
        """Return a row of `text`, -1 if there is none."""
        wanted = as_bytes(text)
        if self._order is None:
            self._order = np.array(sorted(range(len(self)), key=self.encoded), dtype=np.intp)
        at = bisect_left(self._order, wanted, key=self.encoded)
        row = int(self._order[at]) if at < len(self) else -1
        return row if row >= 0 and self.encoded(row) == wanted else -1

    def __len__(self) -> int:
        return len(self._ends) - 1

    def _text(self, row: int) -> str:
        return os.fsdecode(self.encoded(row))

    def _arrays(self) -> tuple[ArrayLike, ...]:
        return self._ends, self._joined


class Names(Column):
    """Texts of which few are different, such as labels: a number a row, and what it stands for.

    `names` are the different texts, sorted; `codes` their numbers, int32 (n,).
    """

    __slots__ = ("codes", "names")

    def __init__(self, names: tuple[str, ...], codes: NDArray[np.int32]) -> None:
        self.names = names
        self.codes = codes

    @staticmethod
    def of(texts: Iterable[str]) -> Names:
        """Pack texts of which few are different."""
        if isinstance(texts, Names):
            return texts
        number: dict[str, int] = {}
        codes = array("i", (number.setdefault(text, len(number)) for text in texts))
        names = tuple(sorted(number))
        place = {name: code for code, name in enumerate(names)}
        rank = np.array([place[text] for text in number], dtype=np.int32)
        return Names(names, rank[np.frombuffer(codes, dtype=np.int32)])

    @staticmethod
    def of_padded(blocks: Iterable[NDArray[np.bytes_]]) -> Names:
        """Pack texts that come padded with zeros to one length, S (n,) each block."""
        texts: list[str] = []
        lengths: list[NDArray[np.intp]] = []
        for block in blocks:  # where rows go by folder, few differ from the row before
            starts = np.flatnonzero(np.append(True, block[1:] != block[:-1]))
            texts += map(os.fsdecode, block[starts].tolist())
            lengths.append(np.diff(np.append(starts, len(block))))
        runs = Names.of(texts)
        total = np.concatenate([*lengths, np.zeros(0, dtype=np.intp)])
        return Names(runs.names, np.repeat(runs.codes, total))

    def take(self, rows: ArrayLike) -> Names:
        """Return the texts of these rows."""
        used, codes = np.unique(self.codes[np.asarray(rows, dtype=np.intp)], return_inverse=True)
        return Names(tuple(self.names[code] for code in used), codes.astype(np.int32))

    def padded(self, most: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the texts as `Texts.padded` does."""
        names = np.concatenate(list(Texts.of(self.names).padded(most)))
        at_once = max(1, most // names.shape[1])
        for start in range(0, len(self) or 1, at_once):
            yield names[self.codes[start : start + at_once]]

    def counts(self) -> dict[str, int]:
        """Return how many rows have each text, in the order of the texts."""
        numbers = np.bincount(self.codes, minlength=len(self.names)).tolist()
        return {name: count for name, count in zip(self.names, numbers, strict=True) if count}

    def given(self) -> NDArray[np.bool_]:
        """Say of every row whether its text is more than "", bool (n,)."""
        return np.array([bool(name) for name in self.names], dtype=bool)[self.codes]

    def __len__(self) -> int:
        return len(self.codes)

    def __contains__(self, text: object) -> bool:
        return text in self.names

    def __iter__(self) -> Iterator[str]:
        return map(self.names.__getitem__, self.codes.tolist())

    def _text(self, row: int) -> str:
        return self.names[int(self.codes[row])]

    def _arrays(self) -> tuple[ArrayLike, ...]:
        return self.names, self.codes


def beginnings(packed: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """Return the first eight bytes of packed keys as numbers that sort as the keys do."""
    begin = np.ascontiguousarray(packed).view(np.uint8).reshape(-1, PACKED.itemsize)[:, :8]
    return np.ascontiguousarray(begin).view(">u8").ravel().astype(np.uint64)


def order_of(packed: NDArray[np.bytes_]) -> Rows:
    """Return the rows of packed keys as they sort, equal ones as they came.

    Digests differ in their first bytes, and whole numbers sort ten times as fast.
    """
    number = beginnings(packed)
    order = np.argsort(number, kind="stable")
    alike = np.flatnonzero(number[order[1:]] == number[order[:-1]])
    if (packed[order[alike + 1]] != packed[order[alike]]).any():
        return np.argsort(packed, kind="stable")
    return order


def first_of_each(packed: NDArray[np.bytes_]) -> Rows:
    """Return the first row of each different packed key, in the order of the keys."""
    order = order_of(packed)
    there = packed[order]
    first: Rows = order[np.append(True, there[1:] != there[:-1])[: len(order)]]
    return first


def by_value(numbers: Rows) -> list[Rows]:
    """Return the rows of each different number, in the order of the numbers.

    Examples
    --------
    >>> [rows.tolist() for rows in by_value(np.array([7, 3, 7]))]
    [[1], [0, 2]]
    """
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1) if len(order) else []


def locate(ordered: NDArray[np.bytes_], wanted: NDArray[np.bytes_]) -> Rows:
    """Return where each of `wanted` is in `ordered`, sorted packed keys; -1 where it is not."""
    if not len(ordered):
        return np.full(len(wanted), -1)
    at = np.searchsorted(ordered, wanted)
    at[at == len(ordered)] = 0
    return np.where(ordered[at] == wanted, at, -1)
