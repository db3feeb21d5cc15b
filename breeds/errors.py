"""The few exceptions a user can meet."""

from __future__ import annotations


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
