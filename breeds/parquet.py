"""Tables as Parquet, written block by block: memory holds one block of rows, however many there are.

The only module that writes with pyarrow, which it loads when it is used; `breeds.photos.rows` reads with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from breeds.files import write_aside
from breeds.outputs import Kind

#: What a column holds: text, numbers (float64), or so many float32 in each row.
Column = type[str] | type[float] | int
#: Takes the columns of a block of rows, by name: sequences with None where there is nothing, or arrays.
Append = Callable[[Mapping[str, Any]], None]
_DIFFERENT = ("key", "path")
# What stands for bytes of a name that are no Unicode, which Parquet's text cannot hold.
_NO_UNICODE = dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")


def text(name: str) -> str:
    r"""Return text that Parquet can hold: as it is, but for bytes that are no Unicode.

    Examples
    --------
    >>> ascii(text("caf\udce9\n"))
    "'caf\\ufffd\\n'"
    """
    return name.translate(_NO_UNICODE)


@contextmanager
def written(
    path: Path, columns: Mapping[str, Column], kind: Kind, about: Mapping[str, Any]
) -> Iterator[Append]:
    """Give a function that appends a block of rows, a row group each; the file is whole or not there at all.

    Parameters
    ----------
    columns
        What each column holds, in order.
    kind
        What the file is, which it says of itself.
    about
        Plain JSON values that it says too, in its metadata under ``breeds``.

    Raises
    ------
    BreedsError
        If the disk is full or the place cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    def typed(column: Column) -> Any:
        if isinstance(column, int):
            return pa.list_(pa.field("element", pa.float32(), nullable=False), column)
        return pa.string() if column is str else pa.float64()

    schema = pa.schema([(text(name), typed(column)) for name, column in columns.items()])

    def array(values: Any, column: Column) -> Any:
        if isinstance(column, int):
            return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=typed(column))
        if column is str:
            values = [value if value is None else text(value) for value in values]
        return pa.array(values, type=typed(column))

    def append(block: Mapping[str, Any]) -> None:
        arrays = [array(block[name], column) for name, column in columns.items()]
        writer.write_batch(pa.record_batch(arrays, schema=schema))

    with write_aside(path) as aside, open(aside, "wb") as file:
        # Of what is different in each row a dictionary would only be given up again.
        repeated = [name for name, column in columns.items() if column is str and name not in _DIFFERENT]
        words = list(map(text, repeated))
        with parquet.ParquetWriter(file, schema, compression="zstd", use_dictionary=words) as writer:
            yield append
            # In the file's own metadata: a table that others make of this one does not say so of itself.
            writer.add_key_value_metadata({"breeds": json.dumps({**about, "format": kind.mark})})
