"""What the fronts share: errors as one sentence, exit codes, and the newest output as default."""

from __future__ import annotations

import argparse
import atexit
import io
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
from breeds.outputs import VIEW_NAME
from breeds.selection import stem_of
from breeds.started import as_breeds, begin, command, missing
from breeds.text import say, stdout_errors, visible

N = TypeVar("N", int, float)

_MOST_WORKERS = 1024
_NO_MEMORY = "There is not enough memory for this, or a limit (ulimit) is too low; free some, or raise it."

# Seconds by which the clock of a file server may be ahead of ours; and the last date there is a name for.
_CLOCKS_DIFFER, _LAST_DATE = 60, 253_402_000_000

FEATURES = Path("features")
MODELS = Path("models")
REPORTS = Path("reports")


def run(main: Callable[[], int]) -> NoReturn:
    """Run a front and exit: 0 done, 1 partly, 2 the user's mistake, 130 interrupted."""
    begin()
    signal.signal(signal.SIGTERM, _interrupt)
    _open_closed_streams()
    # Pillow warns of odd metadata in photos that decode well; nobody can act on it.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if sys.warnoptions:  # -W error is meant for our own code: what the libraries warn of is theirs to mend
        warnings.filterwarnings("ignore", module=r"(?!breeds|__main__)")
    # Names of files may be no Unicode: that is never a reason to stop.
    for stream, how in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=how)
    try:
        code = main()
        with stdout_errors():
            sys.stdout.flush()
    except KeyboardInterrupt:
        _stop()
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        code = 0
    except (BreedsError, OSError, MemoryError, ImportError, RuntimeError) as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # until Python 3.12, while a class is made
            _stop()
        say(f"error: {_sentence(error)}", file=sys.stderr)
        code = 2
    finally:
        _give_up_unwritten()
    sys.exit(code)


def _stop() -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever presses it twice is told once
    say("", "stopped; what was finished is kept, and the same command goes on from there",
        file=sys.stderr)  # fmt: skip
    leave(130)


def _sentence(error: Exception) -> str:
    """Return what to tell of an error, or raise it again where it is a defect of ours."""
    match error:
        case BreedsError():
            return str(error)
        case ModuleNotFoundError() if not (error.name or "breeds").startswith("breeds"):
            return missing(error.name or "")
        case OSError():
            where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
            return f"{where}{error.strerror or error}; mend that and run again."
        case MemoryError():
            return _NO_MEMORY
        case ImportError() if not (error.name or "").startswith("breeds"):
            whole = "is Breeds installed with all it needs" if as_breeds() else "is `make setup` done"
            return f"A library cannot be loaded ({error}); is there enough memory, and {whole}?"
        case RuntimeError() if "can't start new thread" in str(error):
            return _NO_MEMORY
    raise error


def _open_closed_streams() -> None:
    """Open streams that are closed, as by ``2>&-``: the next file would get their number, and our text."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:  # what is opened gets the lowest free number; to write on a closed stdout fails
            os.open(os.devnull, os.O_RDWR if name == "stderr" else os.O_RDONLY)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def _give_up_unwritten() -> None:
    """Let go of what cannot be written, or Python would complain of it when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def leave(code: int) -> NoReturn:
    """End now, whatever threads still compute; what is to be done at the end is done before."""
    _give_up_unwritten()
    atexit._run_exitfuncs()
    os._exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def newest(folder: Path, pattern: str, made_by: str) -> Path:
    """Return the newest file of `folder` that fits `pattern`, and say on stderr which it is.

    Raises
    ------
    BreedsError
        If there is none; the text names the command that makes one, `made_by`.
    """
    found = [
        path
        for path in folder.glob(pattern)
        if not path.name.startswith(".") and not VIEW_NAME.search(path.stem) and os.path.isfile(path)
    ]
    if not found:
        raise BreedsError(f"There is no {folder / pattern} yet; run {made_by} first, or name a file.")
    dated = {path: path.stat().st_mtime for path in found}
    latest = time.time() + _CLOCKS_DIFFER
    past = [path for path in found if dated[path] <= latest]
    for path in found:
        if past and dated[path] > latest:  # written while a clock was wrong, it would be the newest for years
            when = time.strftime("%Y-%m-%d", time.localtime(min(dated[path], _LAST_DATE)))
            say(f"{path} is dated {when}, which is still to come, so it is not taken for the newest",
                  file=sys.stderr)  # fmt: skip
    return say_using(max(past or found, key=dated.__getitem__))


def name_of(data: Path | str) -> str:
    """Return what to call the outputs made from a folder of photos, a manifest, an address or a pattern."""
    if isinstance(data, str) or not os.path.exists(data):
        name = stem_of(str(data)) or "photos"
    else:
        name = (data.stem if os.path.isfile(data) else os.path.basename(os.path.realpath(data))) or "photos"
    return VIEW_NAME.sub(r"-\1", name)  # as photos themselves, not a view of others


def check_no_view(store: Path) -> None:
    """Refuse the name of a view's store for photos as they are.

    Raises
    ------
    BreedsError
        If it is one.
    """
    view = VIEW_NAME.search(store.stem)
    if view:
        raise BreedsError(f"--store {store}: stores of views end in {view[0]}; choose another name.")


def say_using(path: Path) -> Path:
    """Say on stderr which file is taken as nobody named one, and return it."""
    say(f"using {path}", file=sys.stderr)
    return path


class _Help(argparse.HelpFormatter):
    """Adds the default of an option to its help where it has one and does not say it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.option_strings and action.default not in (None, argparse.SUPPRESS):
            shown = "no" if action.default is False else "%(default)s"
            text += f" (default: {shown})"
        return text


def parser(about: str | None, name: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of a front, described by its docstring; `name` is that of a command of ``breeds``."""
    return _Parser(prog=command(name) if name else None, description=about, formatter_class=_Help)


def add_no_corrections(to: argparse.ArgumentParser) -> None:
    """Add the option of all that read labels."""
    to.add_argument(
        "--no-corrections", action="store_true", default=False,
        help="take labels as they came: leave the corrections beside the store, NAME.corrections.csv, aside",
    )  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """Tells mistakes on the command line, such as names of files taken for options, in one line."""

    def error(self, message: str) -> NoReturn:
        super().error(visible(message))


def positive(text: str) -> int:
    """Read a whole number from 1 up, for argparse."""
    return _number(text, int, lambda n: n >= 1, "a whole number from 1 up")


def natural(text: str) -> int:
    """Read a whole number from 0 up, for argparse."""
    return _number(text, int, lambda n: n >= 0, "a whole number from 0 up")


def workers(text: str) -> int:
    """Read how many threads to work with, for argparse."""
    return _number(text, int, lambda n: 1 <= n <= _MOST_WORKERS, f"a whole number from 1 to {_MOST_WORKERS}")


def strength(text: str) -> float:
    """Read C, for argparse: below and above no head is another, and single precision overflows."""
    return _number(text, float, lambda x: 1e-12 <= x <= 1e12, "a number from 1e-12 to 1e12")


def share(text: str, below: float = 1.0) -> float:
    """Read a share from 0 up to (not including) `below`, for argparse."""
    return _number(text, float, lambda x: 0 <= x < below, f"a share from 0 to below {below:g}")


def size(text: str) -> int:
    """Read a size such as ``500MB`` or ``2GB`` (decimal, from 10 MB up) in bytes, for argparse."""
    match = re.fullmatch(r"(\d{1,9})\s*(MB|GB|TB)", text.strip(), re.IGNORECASE | re.ASCII)
    size = int(match[1]) * {"MB": 10**6, "GB": 10**9, "TB": 10**12}[match[2].upper()] if match else 0
    if size < 10**7:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size from 10MB up, such as 500MB or 2GB")
    return size


def colours(text: str) -> tuple[float, ...]:
    """Read three numbers such as ``0.485,0.456,0.406``, for argparse; one is for all colours."""
    try:
        found = tuple(map(float, text.split(",")))
    except ValueError:
        found = ()
    if len(found) not in (1, 3) or not all(abs(value) < 1e4 for value in found):
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers, such as 0.485,0.456,0.406")
    return found * (3 // len(found))


def folds_and_repeats(text: str) -> tuple[int, int]:
    """Read folds and repeats such as ``5x2``, for argparse."""
    match = re.fullmatch("([0-9]{1,9})(?:x([0-9]{1,9}))?", text)
    folds, repeats = (int(match[1]), int(match[2] or 1)) if match else (0, 0)
    if folds < 2 or repeats < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not folds x repeats, such as 5x2")
    return folds, repeats


def _number(text: str, kind: type[N], fits: Callable[[N], bool], wanted: str) -> N:
    try:
        number: N | None = kind(text)
    except ValueError:
        number = None
    if number is None or not fits(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return number
