"""Answers as tables: one list of columns for CSV, JSON lines, Parquet, pandas and the application.

Whoever adds a column adds a row to `COLUMNS`, and a sentence to docs/formats.md.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from breeds.errors import BreedsError
from breeds.files import check_writable, write_aside
from breeds.outputs import ANSWERS_PARQUET
from breeds.text import UNKNOWN, is_formula, printable, stdout_errors, visible

if TYPE_CHECKING:
    import pandas as pd

    from breeds.prediction import Answer

#: Classes with their probabilities, the likeliest first.
Ranked = list[tuple[str, float]]
#: What a cell of a table holds; None where there is nothing to say.
Value = str | float | None
#: Makes a cell of a text.
Cell = Callable[[str], str]

FORMATS = ("csv", "json", "parquet", "kaggle")
_ENDINGS = {"csv": ".csv", "json": ".jsonl", "parquet": ".parquet", "kaggle": ".csv"}
#: How many answers a part has that is a file of its own, and a row group of Parquet.
PART_ROWS, GROUP_ROWS = 100_000, 8192
# What JSON leaves as it is and a terminal may obey.
_NOT_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


@dataclass(frozen=True)
class Column:
    """What is said of each photo that has an answer; of another there is nothing in it.

    Attributes
    ----------
    name
        The same in every format.
    kind
        Text or a number from 0 to 1.
    value
        Works it out of an answer and its two or more likeliest classes.
    """

    name: str
    kind: type[str] | type[float]
    value: Callable[[Answer, Ranked], str | float]


def _margin(_: Answer, best: Ranked) -> float:
    return best[0][1] - (best[1][1] if len(best) > 1 else 0.0)


#: In their order, between the photo's ``path`` and its ``error``; with `top_k` the next classes follow.
COLUMNS = (
    Column("breed", str, lambda answer, best: UNKNOWN if answer.unknown else best[0][0]),
    Column("probability", float, lambda _, best: best[0][1]),
    Column("guess", str, lambda _, best: best[0][0]),
    Column("margin", float, _margin),
)


def ranked(answer: Answer, classes: list[str], most: int) -> Ranked:
    """Return the likeliest classes, at most so many, each with its probability; none without an answer."""
    if answer.probabilities is None:
        return []
    order = np.argsort(-answer.probabilities, kind="stable")[:most]
    return [(classes[i], float(answer.probabilities[i])) for i in order]


def said(answer: Answer, best: Ranked) -> dict[str, Value]:
    """Return what `COLUMNS` say of an answer with these two likeliest classes or more, by their names."""
    return {column.name: column.value(answer, best) if best else None for column in COLUMNS}


def _columns(classes: list[str], top_k: int) -> dict[str, type[str] | type[float]]:
    """Return what each column of a table holds, by its name."""
    columns = {"path": str} | {column.name: column.kind for column in COLUMNS}
    for place in range(2, min(top_k, len(classes)) + 1):
        columns |= {f"breed_{place}": str, f"probability_{place}": float}
    return columns | {"error": str}


def _row(answer: Answer, classes: list[str], top_k: int) -> list[Value]:
    """Return the cells of an answer, one for each of `_columns`."""
    top_k = min(top_k, len(classes))
    best = ranked(answer, classes, max(2, top_k))
    more: Iterable[Value] = chain.from_iterable(best[1:top_k] if best else [(None, None)] * (top_k - 1))
    return [answer.path, *said(answer, best).values(), *more, answer.error or None]


def as_json(answer: Answer, classes: list[str], top_k: int) -> dict[str, Any]:
    """Return what JSON says of an answer, but for the photo's name."""
    best = ranked(answer, classes, max(2, top_k))
    top = [{"breed": name, "probability": round(p, 6)} for name, p in best[:top_k]]
    return {
        **{name: _rounded(value) for name, value in said(answer, best).items()},
        "top": top,
        "error": answer.error or None,
    }


def _rounded(value: Value) -> Value:
    return round(value, 6) if isinstance(value, float) else value


def as_table(answers: Iterable[Answer], classes: list[str], top_k: int) -> pd.DataFrame:
    """Return answers as a table of pandas, a row each; an empty path is None."""
    import pandas as pd

    columns = _columns(classes, top_k)
    rows = [list(map(_rounded, _row(answer, classes, top_k))) for answer in answers]
    table = {}
    for i, (name, kind) in enumerate(columns.items()):
        cells = [row[i] for row in rows] if kind is float else [row[i] or None for row in rows]
        table[name] = pd.Series(cells, dtype=float if kind is float else object)
    return pd.DataFrame(table)


def safe_cell(text: str) -> str:
    r"""Return `text` so that a spreadsheet shows it and never runs it: a quote before formulas.

    Carriage returns, at which some readers begin a new row, are written as ``\r``.
    """
    text = printable(text.replace("\r", "\\r"))
    return f"'{text}" if is_formula(text) else text


def _terminal_cell(text: str) -> str:
    return visible(safe_cell(text))


def as_cell(value: Value, cell: Cell = safe_cell) -> str:
    """Return a value as a cell of CSV; numbers have six digits."""
    return f"{value:.6f}" if isinstance(value, float) else cell(value or "")


def format_of(out: Path | None) -> str:
    """Return the format that a file's name asks for, CSV where it asks for none."""
    ending = out.suffix.lower() if out is not None else ""
    return {".jsonl": "json", ".parquet": "parquet"}.get(ending, "csv")


def write_answers(
    answers: Iterable[Answer], classes: list[str], out: Path | None, form: str, top_k: int
) -> tuple[int, list[Answer]]:
    """Write every answer as it comes, to stdout or, whole or not at all, to a file.

    Parameters
    ----------
    out
        The file, or None for stdout, where Parquet cannot go.
    classes
        Names, in the order of the probabilities.
    form
        One of `FORMATS`.
    top_k
        How many breeds to name for each photo; Kaggle's format has them all.

    Returns
    -------
    total, failed
        How many answers there were, and those with an error.
    """
    total = 0
    failed: list[Answer] = []

    def counted() -> Iterator[Answer]:
        nonlocal total
        for answer in answers:
            total += 1
            if answer.probabilities is None:
                failed.append(answer)
            yield answer

    if form == "parquet":
        assert out is not None  # the command line sees to that
        _write_parquet(counted(), classes, out, top_k)
    else:
        _write_text(counted(), classes, out, form, top_k)
    return total, failed


def _write_text(
    answers: Iterable[Answer], classes: list[str], out: Path | None, form: str, top_k: int
) -> None:
    with ExitStack() as stack:
        file = sys.stdout
        if out is not None:
            aside = stack.enter_context(write_aside(out))
            file = stack.enter_context(open(aside, "w", encoding="utf-8", newline=""))
        # On a terminal a cell is part of one line, as a name could else begin another.
        cell = _terminal_cell if out is None and file.isatty() else safe_cell
        writing = stdout_errors if out is None else nullcontext
        with writing():
            write_row = {"csv": _csv, "json": _json, "kaggle": _kaggle}[form](classes, file, top_k, cell)
        for answer in answers:
            with writing():
                write_row(answer)
                if out is None:
                    file.flush()  # whoever reads this may be waiting for it


def _csv(classes: list[str], file: TextIO, top_k: int, cell: Cell) -> Callable[[Answer], object]:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_columns(classes, top_k))
    return lambda answer: writer.writerow(as_cell(value, cell) for value in _row(answer, classes, top_k))


def _json(classes: list[str], file: TextIO, top_k: int, _: Cell) -> Callable[[Answer], object]:
    return lambda answer: file.write(
        plain_json({"path": answer.path, **as_json(answer, classes, top_k)}) + "\n"
    )


def _kaggle(classes: list[str], file: TextIO, top_k: int, cell: Cell) -> Callable[[Answer], object]:
    """Kaggle wants every class for every id: a photo without an answer gets equal shares."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id", *map(cell, classes)])

    def write_row(answer: Answer) -> None:
        shares = answer.probabilities
        if shares is None:
            shares = np.full(len(classes), 1 / len(classes))
        writer.writerow([cell(Path(answer.path).stem), *(f"{p:.8f}" for p in shares)])

    return write_row


def _write_parquet(answers: Iterable[Answer], classes: list[str], out: Path, top_k: int) -> None:
    """Write the columns of CSV, a row group of answers in memory at a time."""
    from breeds.export.parquet import written

    columns = _columns(classes, top_k)
    with written(out, columns, ANSWERS_PARQUET, {"classes": classes}) as append:
        rows = (
            _row(answer, classes, top_k) for answer in answers
        )  # an answer may hold much, and goes at once
        while group := list(islice(rows, GROUP_ROWS)):
            append(dict(zip(columns, zip(*group, strict=True), strict=True)))


def check_parts(folder: Path) -> None:
    """Make sure, before any work, that parts can be written into a folder, which is empty or not there.

    Raises
    ------
    BreedsError
        If something is in it, or it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise BreedsError(f"Cannot write parts into {folder}: it is no folder.")
    if folder.is_dir() and any(folder.iterdir()):
        raise BreedsError(
            f"{folder} is not empty, and parts of two runs would mix; empty it, or name another."
        )
    check_writable(folder / "part-00000.csv")


def write_parts(
    answers: Iterable[Answer],
    classes: list[str],
    folder: Path,
    form: str,
    top_k: int,
    rows: int = PART_ROWS,
) -> tuple[int, list[Answer]]:
    """Write answers into ``part-00000.csv`` and so on, `rows` in each, as `write_answers` into one."""
    total, number, coming = 0, 0, iter(answers)
    failed: list[Answer] = []
    while (first := next(coming, None)) is not None:
        path = folder / f"part-{number:05d}{_ENDINGS[form]}"
        part = chain([first], islice(coming, rows - 1))
        written, without = write_answers(part, classes, path, form, top_k)
        total, number = total + written, number + 1
        failed += without
    return total, failed


def plain_json(line: Any) -> str:
    """Return a line of JSON with marks for bytes of a name that are no Unicode, and controls written out."""
    text = re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", json.dumps(line, ensure_ascii=False))
    return _NOT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
