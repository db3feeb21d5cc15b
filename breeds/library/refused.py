"""The error of the estimators: Breeds's own, and one that scikit-learn knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from breeds.errors import BreedsError


class RefusedError(BreedsError, ValueError):
    """A `BreedsError` that is a ValueError too, as scikit-learn asks of its estimators."""


@contextmanager
def refusing() -> Iterator[None]:
    """Raise what the block raises as scikit-learn knows it."""
    try:
        yield
    except BreedsError as error:
        raise RefusedError(str(error)) from error
