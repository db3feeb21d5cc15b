"""Keep the C++ chatter of the large libraries off the user's terminal."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from breeds.errors import BreedsError
from breeds.started import commanded

# Below which level TensorFlow says nothing; it looks when it says the first thing.
_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


@contextmanager
def _asked_to_be_quiet() -> Iterator[None]:
    before = os.environ.get(_LEVEL)
    os.environ.setdefault(_LEVEL, "3")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_LEVEL, None)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the block writes to stdout and stderr to itself, but show it if the block crashes.

    In another program only TensorFlow is asked to be quiet: the streams are that program's, and its threads'.
    """
    if not commanded():
        with _asked_to_be_quiet():
            yield
        return
    os.environ.setdefault(_LEVEL, "3")
    sys.stdout.flush()
    sys.stderr.flush()
    stdout, stderr = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 1)
        os.dup2(chatter.fileno(), 2)
        try:
            yield
        except BreedsError:
            raise
        except BaseException:
            chatter.seek(0)
            os.write(stderr, chatter.read())
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            os.close(stdout)
            os.close(stderr)
