"""What the four fronts share: errors as one sentence, exit codes, and the newest output as default."""

from __future__ import annotations

import argparse
import gc
import glob
import io
import math
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

from breeds.errors import BreedsError

N = TypeVar("N", int, float)

_VIEW_NAME = re.compile(r"\+(flip|crop[0-9]+)$")

# Seconds by which the clock of a file server may be ahead of ours; and the last date there is a name for.
_CLOCKS_DIFFER, _LAST_DATE = 60, 253_402_000_000

FEATURES = Path("features")
MODELS = Path("models")
REPORTS = Path("reports")


def run(main: Callable[[], int]) -> NoReturn:
    """Run a front and exit: 0 done, 1 partly, 2 the user's mistake, 130 interrupted."""
    # The imports make hundreds of thousands of objects and no garbage; by default Python looks for it
    # after each 700 of them, which costs them a tenth of their time.
    gc.set_threshold(50_000, *gc.get_threshold()[1:])
    signal.signal(signal.SIGTERM, _interrupt)
    # Pillow warns of odd metadata in photos that decode well; nobody can act on it.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Names of files may be no Unicode: that is never a reason to stop.
    for stream, how in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=how)
    try:
        code = main()
        sys.stdout.flush()
    except BreedsError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("\nstopped; what was finished is kept, and the same command goes on from there",
              file=sys.stderr)  # fmt: skip
        code = 130
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except ModuleNotFoundError as error:
        if (error.name or "breeds").startswith("breeds"):
            raise
        print(f"error: The package {error.name} is not installed; run `make setup`, then "
              f"`source .venv/bin/activate`.", file=sys.stderr)  # fmt: skip
        code = 2
    sys.exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def newest(folder: Path, pattern: str, made_by: str) -> Path:
    """Return the newest file of `folder` that fits `pattern`, and say on stderr which it is.

    Raises
    ------
    BreedsError
        If there is none; the text names the script that makes one.
    """
    found = [
        path
        for path in folder.glob(pattern)
        if not path.name.startswith(".") and not _VIEW_NAME.search(path.stem)
    ]
    if not found:
        raise BreedsError(f"There is no {folder / pattern} yet; run {made_by} first, or name a file.")
    dated = {path: path.stat().st_mtime for path in found}
    latest = time.time() + _CLOCKS_DIFFER
    past = [path for path in found if dated[path] <= latest]
    for path in found:
        if past and dated[path] > latest:  # written while a clock was wrong, it would be the newest for years
            when = time.strftime("%Y-%m-%d", time.localtime(min(dated[path], _LAST_DATE)))
            print(f"{path} is dated {when}, which is still to come, so it is not taken for the newest",
                  file=sys.stderr)  # fmt: skip
    return say_using(max(past or found, key=dated.__getitem__))


def name_of(data: Path) -> str:
    """Return what to call the outputs made from a folder of photos or a manifest."""
    return (data.stem if data.is_file() else data.resolve().name) or "photos"


def view_store(store: Path, view: str) -> Path:
    """Return the store beside `store` that holds another view of the same photos."""
    return store.with_name(f"{store.stem}+{view}{store.suffix}")


def view_stores(store: Path) -> list[Path]:
    """Return the stores beside `store` that hold other views of the same photos."""
    found = store.parent.glob(f"{glob.escape(store.stem)}+*{store.suffix}")
    return sorted(path for path in found if _VIEW_NAME.sub("", path.stem) == store.stem)


def say_using(path: Path) -> Path:
    """Say on stderr which file is taken as nobody named one, and return it."""
    print(f"using {path}", file=sys.stderr)
    return path


class _Help(argparse.HelpFormatter):
    """Adds the default of an option to its help where it has one and does not say it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.option_strings and action.default not in (None, argparse.SUPPRESS):
            shown = "no" if action.default is False else "%(default)s"
            text += f" (default: {shown})"
        return text


def parser(about: str | None) -> argparse.ArgumentParser:
    """Return the parser of a front, described by its docstring."""
    return argparse.ArgumentParser(description=about, formatter_class=_Help)


def positive(text: str) -> int:
    """Read a whole number from 1 up, for argparse."""
    return _number(text, int, lambda n: n >= 1, "a whole number from 1 up")


def natural(text: str) -> int:
    """Read a whole number from 0 up, for argparse."""
    return _number(text, int, lambda n: n >= 0, "a whole number from 0 up")


def positive_float(text: str) -> float:
    """Read a number above 0, for argparse."""
    return _number(text, float, lambda x: 0 < x < math.inf, "a number above 0")


def share(text: str, below: float = 1.0) -> float:
    """Read a share from 0 up to (not including) `below`, for argparse."""
    return _number(text, float, lambda x: 0 <= x < below, f"a share from 0 to below {below:g}")


def cache_size(text: str) -> int:
    """Read a size such as ``500MB`` or ``2GB`` (decimal, from 10 MB up) in bytes, for argparse."""
    match = re.fullmatch(r"(\d{1,9})\s*(MB|GB|TB)", text.strip(), re.IGNORECASE | re.ASCII)
    size = int(match[1]) * {"MB": 10**6, "GB": 10**9, "TB": 10**12}[match[2].upper()] if match else 0
    if size < 10**7:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size from 10MB up, such as 500MB or 2GB")
    return size


def folds_and_repeats(text: str) -> tuple[int, int]:
    """Read folds and repeats such as ``5x2``, for argparse."""
    folds, cross, repeats = text.partition("x")
    numbers = [int(part) if part.isdigit() else 0 for part in (folds, repeats if cross else "1")]
    if numbers[0] < 2 or numbers[1] < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not folds x repeats, such as 5x2")
    return numbers[0], numbers[1]


def _number(text: str, kind: type[N], fits: Callable[[N], bool], wanted: str) -> N:
    try:
        number: N | None = kind(text)
    except ValueError:
        number = None
    if number is None or not fits(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return number
