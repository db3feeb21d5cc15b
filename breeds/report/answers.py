"""Answers as CSV, JSON lines, Parquet, or Kaggle's submission format."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, nullcontext
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from breeds.errors import BreedsError
from breeds.files import check_writable, write_aside
from breeds.labels import UNKNOWN
from breeds.outputs import ANSWERS_PARQUET
from breeds.prediction import Answer
from breeds.text import is_formula, printable, stdout_errors, visible

#: How many answers a part has; the last one has fewer.
PART_ROWS = 100_000
_ENDINGS = {"csv": ".csv", "json": ".jsonl", "kaggle": ".csv"}
FORMATS = ("csv", "json", "parquet", "kaggle")
# Rows of a row group of Parquet.
_GROUP = 8192
#: Makes a cell of a text.
Cell = Callable[[str], str]
# What JSON leaves as it is and a terminal may obey.
_NOT_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


def safe_cell(text: str) -> str:
    r"""Return `text` so that a spreadsheet shows it and never runs it: a quote before formulas.

    Carriage returns, at which some readers begin a new row, are written as ``\r``.
    """
    text = printable(text.replace("\r", "\\r"))
    return f"'{text}" if is_formula(text) else text


def _terminal_cell(text: str) -> str:
    return visible(safe_cell(text))


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
    if form == "parquet":
        assert out is not None  # the command line sees to that
        return _write_parquet(answers, classes, out, top_k)
    with ExitStack() as stack:
        file = sys.stdout
        if out is not None:
            aside = stack.enter_context(write_aside(out))
            file = stack.enter_context(open(aside, "w", encoding="utf-8", newline=""))
        # On a terminal a cell is part of one line, as a name could else begin another.
        cell = _terminal_cell if out is None and file.isatty() else safe_cell
        writing = stdout_errors if out is None else nullcontext
        with writing():
            row = {"csv": _csv, "json": _json, "kaggle": _kaggle}[form](classes, file, top_k, cell)
        total, failed = 0, []
        for answer in answers:
            with writing():
                row(answer)
                if out is None:
                    file.flush()  # whoever reads this may be waiting for it
            total += 1
            if answer.probabilities is None:
                failed.append(answer)
    return total, failed


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
    answers: Iterable[Answer], classes: list[str], folder: Path, form: str, top_k: int
) -> tuple[int, list[Answer]]:
    """Write answers into ``part-00000.csv`` and so on, `PART_ROWS` in each, as `write_answers` into one."""
    total, failed, coming = 0, list[Answer](), iter(answers)
    for number, part in enumerate(_parts(coming)):
        path = folder / f"part-{number:05d}{_ENDINGS.get(form, f'.{form}')}"
        written, without = write_answers(part, classes, path, form, top_k)
        total += written
        failed += without
    return total, failed


def _parts(answers: Iterator[Answer]) -> Iterator[Iterator[Answer]]:
    while (first := next(answers, None)) is not None:
        yield chain([first], islice(answers, PART_ROWS - 1))


def _best(answer: Answer, classes: list[str], top_k: int) -> list[tuple[str, float]]:
    if answer.probabilities is None:
        return []
    order = np.argsort(-answer.probabilities, kind="stable")[:top_k]
    return [(classes[i], float(answer.probabilities[i])) for i in order]


def _breed(answer: Answer, classes: list[str]) -> tuple[str, str]:
    """Return the answer, which may be `UNKNOWN`, and the best guess."""
    best = _best(answer, classes, 1)
    guess = best[0][0] if best else ""
    return (UNKNOWN if answer.unknown else guess), guess


def _csv(classes: list[str], file: TextIO, top_k: int, cell: Cell) -> Callable[[Answer], object]:
    top_k = min(top_k, len(classes))
    writer = csv.writer(file, lineterminator="\n")
    more = [name for k in range(2, top_k + 1) for name in (f"breed_{k}", f"probability_{k}")]
    writer.writerow(["path", "breed", "probability", "guess", *more, "error"])

    def row(answer: Answer) -> None:
        best = [(cell(name), f"{p:.6f}") for name, p in _best(answer, classes, top_k)]
        best += [("", "")] * (top_k - len(best))
        breed, guess = map(cell, _breed(answer, classes))
        rest = [text for pair in best[1:] for text in pair]
        path, error = cell(answer.path), cell(answer.error)
        writer.writerow([path, breed, best[0][1], guess, *rest, error])

    return row


def as_json(answer: Answer, classes: list[str], top_k: int) -> dict[str, Any]:
    """Return what JSON says of an answer, but for the photo's name."""
    best = _best(answer, classes, top_k)
    return {
        "breed": _breed(answer, classes)[0] or None,
        "probability": round(best[0][1], 6) if best else None,
        "guess": best[0][0] if best else None,
        "top": [{"breed": name, "probability": round(p, 6)} for name, p in best],
        "error": answer.error or None,
    }


def _json(classes: list[str], file: TextIO, top_k: int, _: Cell) -> Callable[[Answer], object]:
    def row(answer: Answer) -> None:
        file.write(plain_json({"path": answer.path, **as_json(answer, classes, top_k)}) + "\n")

    return row


def _write_parquet(
    answers: Iterable[Answer], classes: list[str], out: Path, top_k: int
) -> tuple[int, list[Answer]]:
    """Write the columns of CSV, a row group of answers in memory at a time."""
    from breeds.parquet import Column, written

    top_k = min(top_k, len(classes))
    columns: dict[str, Column] = {"path": str, "breed": str, "probability": float, "guess": str}
    for k in range(2, top_k + 1):
        columns |= {f"breed_{k}": str, f"probability_{k}": float}
    columns["error"] = str
    total, failed = 0, []

    def cells() -> Iterator[list[str | float | None]]:  # an answer may hold much, and goes at once
        for answer in answers:
            if answer.probabilities is None:
                failed.append(answer)
            yield _cells(answer, classes, top_k)

    with written(out, columns, ANSWERS_PARQUET, {"classes": classes}) as append:
        rest = cells()
        while rows := list(islice(rest, _GROUP)):
            append(dict(zip(columns, zip(*rows, strict=True), strict=True)))
            total += len(rows)
    return total, failed


def _cells(answer: Answer, classes: list[str], top_k: int) -> list[str | float | None]:
    """Return a row of Parquet, None where an answer has nothing to say."""
    if answer.probabilities is None:
        return [answer.path, *[None] * (1 + 2 * top_k), answer.error]
    best, (breed, guess) = _best(answer, classes, top_k), _breed(answer, classes)
    more = [cell for pair in best[1:] for cell in pair]
    return [answer.path, breed, best[0][1], guess, *more, None]


def _kaggle(classes: list[str], file: TextIO, top_k: int, cell: Cell) -> Callable[[Answer], object]:
    """Kaggle wants every class for every id: a photo without an answer gets equal shares."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id", *map(cell, classes)])

    def row(answer: Answer) -> None:
        shares = answer.probabilities
        if shares is None:
            shares = np.full(len(classes), 1 / len(classes))
        writer.writerow([cell(Path(answer.path).stem), *(f"{p:.8f}" for p in shares)])

    return row


def plain_json(line: Any) -> str:
    """Return a line of JSON with marks for bytes of a name that are no Unicode, and controls written out."""
    text = re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", json.dumps(line, ensure_ascii=False))
    return _NOT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
