"""Parquet files of photos: a row for each, its bytes in the column ``image`` and its label in ``label``.

The bytes are a column of their own, or, as Hugging Face writes them, a structure of ``bytes`` and ``path``.
Only a few rows are in memory at a time.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from breeds.errors import BreedsError, GoneError, PhotoError
from breeds.photos.limits import size_fault
from breeds.photos.storage import SourceFile
from breeds.selection import plain_label, plain_split
from breeds.started import need

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

IMAGE, LABEL, SPLIT = "image", "label", "split"
#: What the photos of a group of rows may take together, in bytes, and how many rows a file may have.
MAX_GROUP, MAX_ROWS = 2**31, 10**9
# Rows that are read together have about so many bytes, and are so many at most.
_BATCH_BYTES, _BATCH_ROWS, _RECENT_BYTES = 16 * 2**20, 64, 64 * 2**20
# What the file's own table of contents may take, and how many columns and groups it may name.
_CONTENTS = {"thrift_string_size_limit": 64 * 2**20, "thrift_container_size_limit": 10**6}
_BUFFER = 2**20


class ParquetRow(NamedTuple):
    """A row: its photo's bytes, or the reason why there are none, and what it says of them."""

    data: bytes
    reason: str
    label: str
    split: str


def rows_of(parquet: SourceFile) -> Iterator[ParquetRow]:
    """Yield every row, in order.

    Raises
    ------
    BreedsError
        If it is no Parquet file, lacks the column of photos, or cannot be read.
    """
    opened = _Opened(parquet)
    for group in range(opened.groups):
        for batch in opened.batches(group, labels=True):
            images, labels, splits = (batch.get(name) for name in (IMAGE, LABEL, SPLIT))
            for place in range(batch["rows"]):
                data, label, split = opened.photo(images, place), "", ""
                try:
                    label = plain_label(opened.label(labels, place))
                    split = plain_split(splits[place].as_py() if splits is not None else None)
                except PhotoError as error:
                    data = data if isinstance(data, str) else f"its label cannot be used: {error}"
                if isinstance(data, str):
                    yield ParquetRow(b"", data, label, split)
                else:
                    yield ParquetRow(data, "", label, split)


def read_row(parquet: SourceFile, row: int) -> bytes:
    """Return the bytes of a row's photo; quick where several threads ask for rows in about their order.

    Raises
    ------
    GoneError
        If there are none any more.
    BreedsError
        If the file cannot be read.
    """
    data = _reader(parquet).row(row)
    if isinstance(data, str):
        raise GoneError(data)
    return data


def row_name(number: int) -> str:
    """Return what the photo of a row is called, so that names are in the order of rows."""
    return f"{number:09d}"


def row_number(name: str) -> int:
    """Return the row of a name, -1 if it is none."""
    return int(name) if len(name) == 9 and name.isascii() and name.isdigit() else -1


class _Opened:
    """A Parquet file, open; `groups` of rows."""

    def __init__(self, file: SourceFile) -> None:
        need("pyarrow")
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile

        self.file = file
        self._arrow: Any = pa
        self._faults = (pa.ArrowException, OSError, ValueError)  # also when Python ends, and modules are gone
        try:
            self._parquet: ParquetFile = ParquetFile(
                file.opened(), pre_buffer=False, buffer_size=_BUFFER, memory_map=False, **_CONTENTS
            )
            self._schema: pa.Schema = self._parquet.schema_arrow
        except self._faults as error:
            raise self._damaged(error) from None
        self.groups = self._parquet.metadata.num_row_groups
        self._check()
        self._names = self._class_names()

    def _check(self) -> None:
        if self._parquet.metadata.num_rows > MAX_ROWS:
            raise BreedsError(f"{self.file.name} has more than {MAX_ROWS} rows; split it.")
        names = self._schema.names
        kind = self._schema.field(IMAGE).type if names.count(IMAGE) == 1 else None
        types = self._arrow.types
        self._is_struct = bool(kind and types.is_struct(kind) and kind.get_field_index("bytes") >= 0)
        data = kind.field("bytes").type if kind and self._is_struct else kind
        if data is None or not (types.is_binary(data) or types.is_large_binary(data)):
            raise BreedsError(
                f"{self.file.name} has the columns {', '.join(names[:20]) or 'none'}; it needs {IMAGE}, the "
                f"photos' bytes (or a structure with bytes), and may have {LABEL} and {SPLIT}."
            )

    def _class_names(self) -> list[str]:
        """Return the names that Hugging Face keeps for labels that are numbers, if there are any."""
        try:
            said = json.loads((self._schema.metadata or {}).get(b"huggingface", b"{}"))
            names = said["info"]["features"][LABEL]["names"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return []
        return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []

    def _damaged(self, error: Exception) -> BreedsError:
        if isinstance(error.__context__, BreedsError):  # ours, of the network, that Arrow has wrapped
            return error.__context__
        return BreedsError(f"{self.file.name} is no Parquet file, or damaged or cut off; write it again.")

    def first_row(self, group: int) -> int:
        """Return the number of a group's first row."""
        metadata = self._parquet.metadata
        return sum(int(metadata.row_group(before).num_rows) for before in range(group))

    def group_of(self, row: int) -> int:
        """Return the group that a row is in, -1 if there is none."""
        for group in range(self.groups):
            row -= self._parquet.metadata.row_group(group).num_rows
            if row < 0:
                return group
        return -1

    def batches(self, group: int, labels: bool) -> Iterator[dict[str, Any]]:
        """Yield the rows of a group, a few at a time: columns by name, and how many ``rows``."""
        contents = self._parquet.metadata.row_group(group)
        columns = map(contents.column, range(contents.num_columns))
        size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] == IMAGE)
        if size > MAX_GROUP:
            raise BreedsError(
                f"{self.file.name} has {size / 2**20:.0f} MiB of photos in a group of rows, over the limit "
                f"of {MAX_GROUP // 2**20}; write it with smaller groups."
            )
        rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES * contents.num_rows // max(1, size)))
        bytes_column = f"{IMAGE}.bytes" if self._is_struct else IMAGE
        others = [name for name in (LABEL, SPLIT) if labels and self._schema.names.count(name) == 1]
        try:
            for batch in self._parquet.iter_batches(
                rows, [group], [bytes_column, *others], use_threads=False
            ):
                yield {"rows": batch.num_rows, **{name: batch.column(name) for name in (IMAGE, *others)}}
        except self._faults as error:
            raise self._damaged(error) from None

    def photo(self, images: Any, place: int) -> bytes | str:
        """Return a row's photo, or why there is none."""
        value = images[place]
        if self._is_struct and value.is_valid:
            value = value["bytes"]
        if not value.is_valid:
            return "no bytes are in its row"
        if fault := size_fault(value.as_buffer().size):
            return fault
        data: bytes = value.as_py()
        return data

    def label(self, labels: Any, place: int) -> Any:
        """Return a row's label: a number that has a name is that name."""
        value = labels[place].as_py() if labels is not None else None
        if isinstance(value, int) and self._names:
            if value < 0:  # Hugging Face's way to say that there is none
                return None
            return self._names[value] if value < len(self._names) else value
        return value


class _Reader:
    """Rows by their numbers, quickly where several threads ask for them in about their order."""

    def __init__(self, file: SourceFile) -> None:
        self._turn = threading.Lock()
        self._opened = _Opened(file)
        self._group = -1
        self._batches: Iterator[dict[str, Any]] = iter(())
        self._next = 0
        # Rows that were read, by the first: who asks a little later than those after them finds them here.
        self._recent: deque[tuple[int, dict[str, Any]]] = deque()

    def row(self, number: int) -> bytes | str:
        """Return the photo of a row, or why there is none."""
        with self._turn:
            group = self._opened.group_of(number)
            oldest = self._recent[0][0] if self._recent else self._next
            if group >= 0 and (group != self._group or number < oldest):
                self._group, self._next = group, self._opened.first_row(group)
                self._batches = self._opened.batches(group, labels=False)
                self._recent.clear()
            while group >= 0 and number >= self._next and (batch := next(self._batches, None)):
                self._recent.append((self._next, batch))
                self._next += batch["rows"]
                while len(self._recent) > 1 and self._bytes() > _RECENT_BYTES:
                    self._recent.popleft()
            for first, batch in self._recent:
                if first <= number < first + batch["rows"]:
                    return self._opened.photo(batch[IMAGE], number - first)
            self._group = -1
            return "its row is not there any more"

    def _bytes(self) -> int:
        return sum(int(batch[IMAGE].nbytes) for _, batch in self._recent)


@lru_cache(maxsize=4)
def _reader(file: SourceFile) -> _Reader:
    return _Reader(file)
