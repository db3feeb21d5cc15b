"""What may be written where: an output replaces nothing but a file of its own kind, and no input."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from breeds.errors import BreedsError
from breeds.files import check_writable

#: What the name of a view's store ends in.
VIEW_NAME = re.compile(r"\+(flip|crop[0-9]+)$")
# Bytes of a file, at its start and at its end, that are read to tell what it is.
_START = 2**20


class Kind(NamedTuple):
    """A kind of file: its name, what its first and last bytes are like, and what it calls itself."""

    name: str
    start: re.Pattern[bytes]
    end: re.Pattern[bytes] | None = None
    mark: str = ""


def _kind(name: str, start: bytes) -> Kind:
    return Kind(name, re.compile(start, re.DOTALL))


def _parquet(name: str, mark: str) -> Kind:
    """Return a kind of Parquet, which says what it is at its end."""
    end = re.compile(rb'"format": "%s"\}.*PAR1\Z' % mark.encode(), re.DOTALL)
    return Kind(name, re.compile(b"PAR1"), end, mark)


MODEL = _kind("a model of Breeds", rb'.{8}\{.*?"format":"breeds model ')
PIPELINE = _kind("a scikit-learn pipeline", rb"\x80.{1,200}?sklearn\.pipeline")
ONNX = _kind("an ONNX file of Breeds", rb"\x08.\x12\x06breeds")
OPENVINO = _kind("an OpenVINO network of Breeds", rb'<\?xml [^>]*>\s*<net name="breeds classifier"')
KERAS = _kind("a Keras model of Breeds", rb"PK\x03\x04.{26}breeds\.json")
REPORT = _kind("a report of Breeds", rb'\{\n  "accuracy": ')
PAGE = _kind("a page of Breeds", rb'<!doctype html>.*?<meta name="generator" content="Breeds ')
ANSWERS = _kind(
    "answers of Breeds",
    rb'path,breed,[a-z0-9_,]*error\n|\{"path": |id,[^\n]*\n([^\n]*,[01]\.\d{8}(\n|\Z)|\Z)',
)
ANSWERS_PARQUET = _parquet("answers of Breeds as Parquet", "breeds answers 1")
FEATURES_PARQUET = _parquet("features of Breeds as Parquet", "breeds features 1")
EXPLANATIONS = _kind("a table of explanations of Breeds", rb"photo,picture,[a-z0-9_,]*error\n")
PICTURE = _kind("a picture of Breeds", rb"\xff\xd8\xff.{1,64}?Breeds")
CHART = _kind("a chart of Breeds", rb"(\x89PNG\r\n|<\?xml ).{1,2000}?Breeds")


def check_output(path: Path, kind: Kind, inputs: Iterable[str | Path] = ()) -> None:
    """Make sure, before any work, that an output can be written at `path` and nothing is lost by it.

    Parameters
    ----------
    kind
        What will be written; a file that is there must be of the same kind, or empty.
    inputs
        What the same run reads.

    Raises
    ------
    BreedsError
        If it cannot be written, if another kind of file is there, or one of the inputs.
    """
    check_writable(path)
    if not replaceable(path, kind):
        raise BreedsError(
            f"Cannot write {path}: the file that is there is not {kind.name}; name another, or move it away."
        )
    for source in inputs:
        with suppress(OSError, ValueError):  # what cannot be looked at cannot be read either
            if os.path.samefile(source, path):
                raise BreedsError(f"Cannot write {path}: it is read as well; name another file.")


def check_apart(outputs: dict[str, Path | None]) -> None:
    """Make sure that a run's outputs, by their options, are files of their own.

    Raises
    ------
    BreedsError
        If two are one file; the text names both options.
    """
    taken: dict[str, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        other = taken.setdefault(os.path.realpath(path), option)
        if other != option:
            raise BreedsError(f"{other} and {option} both name {path}; name two files.")


def replaceable(path: Path, kind: Kind) -> bool:
    """Say whether nothing is at `path`, or an empty file, or one of this kind."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:  # nobody can tell what it is
        return False
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return False
        start = file.read(_START)
        if not start:
            return True
        if kind.end is not None:
            file.seek(-min(_START, os.fstat(handle).st_size), os.SEEK_END)
            if kind.end.search(file.read(_START)) is None:
                return False
    return kind.start.match(start) is not None


def view_store(store: Path, view: str) -> Path:
    """Return the store beside `store` that holds another view of the same photos."""
    return store.with_name(f"{store.stem}+{view}{store.suffix}")


def view_stores(store: Path) -> list[Path]:
    """Return the stores beside `store` that hold other views of the same photos."""
    found = store.parent.glob(f"{glob.escape(store.stem)}+*{store.suffix}")
    return sorted(path for path in found if VIEW_NAME.sub("", path.stem) == store.stem)
