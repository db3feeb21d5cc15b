"""Which photos a user selects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from breeds.errors import BreedsError
from breeds.photos import Listing, find_photos
from breeds.photos.sources import Streamed, streamed
from breeds.places import is_address, shown


@dataclass(frozen=True)
class Selection:
    """Which photos: `data`, `labels`, `top` and `classes` as in `breeds.photos.find_photos`.

    `data` may be what `breeds.photos.sources.streamed` takes, too.
    """

    data: Path | str
    labels: Path | None = None
    top: int | None = None
    classes: Sequence[str] | None = None

    def find(self) -> Listing:
        """List the photos.

        Raises
        ------
        BreedsError
            If there are none, the labels do not fit them, `top` and `classes` are both given, or they are
            read as a stream.
        """
        self._check_classes()
        if streamed(self.data) is not None:
            raise BreedsError(
                f"The photos of {self.source} are no files in a folder here; name such a folder."
            )
        return find_photos(Path(self.data), self.labels, self.top, self.classes)

    def streamed(self) -> Streamed | None:
        """Return the photos that are read as a stream, or None if they are files in a folder here.

        Raises
        ------
        BreedsError
            If they are not there, or have labels in themselves and others are given.
        """
        found = streamed(self.data)
        if found is not None:
            self._check_classes()
            if self.labels is not None:
                raise BreedsError(f"--labels is for folders here; {self.source} says its labels itself.")
        return found

    @property
    def source(self) -> str:
        """What `data` is called, to be shown."""
        return shown(str(self.data)) if is_address(str(self.data)) else str(self.data)

    def _check_classes(self) -> None:
        if self.top is not None and self.classes is not None:
            raise BreedsError("--top and --classes both choose the classes; name one of the two.")
