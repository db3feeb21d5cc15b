"""The few exceptions a user can meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class BreedsError(Exception):
    """A mistake that the user can mend: its text is one sentence saying what, where and what to do.

    The command line prints the text on stderr and exits with 2.
    """


class PhotoError(Exception):
    """One photo cannot be used: its text is the reason that the quarantine records.

    It never stops a run.
    """


class GoneError(PhotoError):
    """A photo's file is not there any more, cannot be read, or is another photo now; a copy of it may do."""


def attempt(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | PhotoError:
    """Return what a function returns, or why it cannot use a photo.

    An error that was raised keeps the photo's bytes, by its traceback. So what is returned is a new one,
    which has the text alone and may be kept.
    """
    try:
        return function(*args, **kwargs)
    except PhotoError as error:
        return type(error)(str(error))
