"""Answers in parts: a folder of files in order, each whole or not there, where they are many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from breeds.errors import BreedsError
from breeds.files import check_writable
from breeds.prediction import Answer
from breeds.prediction.answers import write_answers

#: How many answers a part has; the last one has fewer.
PART_ROWS = 100_000
_ENDINGS = {"csv": ".csv", "json": ".jsonl", "kaggle": ".csv"}


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
