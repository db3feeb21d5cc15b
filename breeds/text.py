"""Text from strangers, as people and programs may safely be shown it; and how people are told anything.

Names of files and classes, and whatever a store or a model says of itself, may hold anything: codes that a
terminal obeys, line breaks that begin a line which nobody wrote, marks that turn letters around.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from breeds.errors import BreedsError
from breeds.started import commanded

#: What an answer for a photo of none of the classes is called; so no class may be.
UNKNOWN = "unknown"
# Controls of the second kind, separators of lines, and what is no character at all.
_NEVER = "\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff"
# Turns of direction: in a line of ours they reach beyond their name; a page keeps them inside of it.
_TURNS = "\u202a-\u202e\u2066-\u2069"
_IN_A_LINE = re.compile(f"[\x00-\x1f{_NEVER}{_TURNS}]")
_IN_LINES = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f{_NEVER}]")
# A spreadsheet takes a cell that starts so for a formula, and runs it: some look for the sign behind
# blanks, and take its wide form for it.
_FORMULA = re.compile("[\t\r\n]|[\\s\u200b-\u200f\u2060]*[=+@\uff1d\uff0b\uff0d\uff20-]")


def say(*lines: str, file: TextIO | None = None) -> None:
    """Tell people something: the only way in which Breeds writes on a terminal, and only commands do.

    Each of `lines` is one line there, whatever is in it. A message on stderr that cannot be written is
    given up; what was to be told on stdout was asked for.

    Raises
    ------
    BreedsError
        If stdout cannot be written.
    """
    if file is not None and file is sys.stderr:
        with suppress(OSError):
            print(*map(visible, lines), sep="\n", file=file)
        return
    with stdout_errors():
        print(*map(visible, lines), sep="\n", file=file)


def mention(text: str) -> None:
    """Tell what happens by the way: on stderr where a command runs, else to the logger ``breeds``.

    There it is information, which nobody sees who has not asked for it.
    """
    if commanded():
        say(text, file=sys.stderr)
    else:
        logging.getLogger("breeds").info("%s", visible(text))


def progress(items: Iterable[Any] | None = None, **how: Any) -> Any:
    """Return the items, and show how far they are; `how` as ``tqdm.tqdm`` takes it, whose bar this is."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # in other programs tqdm would start a thread even where it shows nothing

    return Bar(items, disable=None if commanded() else True, **how)


@contextmanager
def stdout_errors() -> Iterator[None]:
    """Make one sentence of what goes wrong in writing to stdout; a reader that has gone is no error.

    Raises
    ------
    BreedsError
        If it cannot be written.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BreedsError(
            f"Cannot write to standard output: {error.strerror}; what was written to files is there."
        ) from None


def visible(text: str) -> str:
    r"""Return text as one line that does nothing but show it: controls are written out.

    Examples
    --------
    >>> print(visible("caf\udce9\n\x1b[2J"))
    caf\udce9\n\x1b[2J
    """
    return _IN_A_LINE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def is_formula(text: str) -> bool:
    """Say whether a spreadsheet may take a cell of this text for a formula, and run it.

    Examples
    --------
    >>> is_formula("=1+1"), is_formula("beagle")
    (True, False)
    """
    return _FORMULA.match(text) is not None


def as_bytes(text: str) -> bytes:
    r"""Return text as UTF-8, names of files as the bytes that they are; not every locale can do that.

    Examples
    --------
    >>> as_bytes("60×60"), as_bytes("caf\udce9")
    (b'60\xc3\x9760', b'caf\xe9')
    """
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")


def as_here(value: Any) -> Any:
    """Return what was kept as JSON with its texts as this process names files.

    In another locale names of files, and what comes of them, are other texts.
    """
    if isinstance(value, str):
        return os.fsdecode(as_bytes(value))
    if isinstance(value, dict):
        return {as_here(name): as_here(inner) for name, inner in value.items()}
    return [as_here(inner) for inner in value] if isinstance(value, list | tuple) else value


def printable(text: str) -> str:
    r"""Return text that any file can hold, with marks for controls and for bytes that are no Unicode.

    Tabs and line breaks stay.

    Examples
    --------
    >>> ascii(printable("caf\udce9 \x07"))
    "'caf\\ufffd \\ufffd'"
    """
    return _IN_LINES.sub("\N{REPLACEMENT CHARACTER}", text)


def certainty(share: float) -> str:
    r"""Return a probability as people read it; what is not quite certain is never called so.

    Examples
    --------
    >>> [certainty(share).replace("\u202f", " ") for share in (0.87654, 0.99997, 0.00001)]
    ['87.7 %', '> 99.9 %', '< 0.1 %']
    """
    number = f"{share * 100:.1f}"
    number = {"100.0": "> 99.9", "0.0": "< 0.1"}.get(number, number)
    return f"{number}\N{NARROW NO-BREAK SPACE}%"


def means_unknown(name: str) -> bool:
    """Say whether a class of this name could not be told from a refusal."""
    return name.strip().casefold() == UNKNOWN


def unfit(label: str) -> str:
    """Say why a person may not give this label to a photo, "" if nothing speaks against it.

    Classes that come with the photos may be called more than that, as folders may be.

    Examples
    --------
    >>> unfit("beagle"), unfit(" beagle")
    ('', 'there are blanks around it')
    """
    if means_unknown(label):
        return "photos of none of the classes are answered so"
    if label != label.strip():
        return "there are blanks around it"
    if label != visible(label):
        return "there are characters in it that cannot be seen, or bytes that are no UTF-8"
    return ""
