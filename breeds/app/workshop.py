"""The model in use, its store, and the photos that the store knows."""

from __future__ import annotations

import os
import re
import sys
import threading
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from breeds.engines.pipeline import KeyAndPath
from breeds.errors import BreedsError, PhotoError
from breeds.heads.model import Model, load_model
from breeds.heads.neighbours import Neighbour
from breeds.pages.thumbs import LONGEST, Thumbnail, thumbnail
from breeds.predict.evidence import TrainingPhotos
from breeds.store import Store
from breeds.store.columns import Keys, locate
from breeds.text import say

#: Longest side of a photo that is shown large, in pixels.
LARGE = 1200
# Small pictures that are kept, some 5 KB each.
_KEPT = 2000
_KEY = re.compile("[0-9a-f]{64}")


class Workshop:
    """A model with its store, if that is there.

    Attributes
    ----------
    model_path, model
        The file, and what is in it.
    store
        The store of its training photos, or None.

    Parameters
    ----------
    model_path
        The model.
    store
        Where its store is; by default, where it was at training.

    Raises
    ------
    BreedsError
        If there is no such model, or the store that was named is not its own.
    """

    def __init__(self, model_path: Path, store: Path | None = None) -> None:
        self.model_path = model_path
        self.model: Model = load_model(model_path)
        self.store = self._open_store(store)
        self._training: TrainingPhotos | None = None
        self._reading = threading.Lock()
        self._order: NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        if self.store is not None:
            self._order = np.argsort(self.store.table.key.packed, kind="stable")
        self.thumb = lru_cache(_KEPT)(self._thumb)

    @property
    def name(self) -> str:
        """What to call the model."""
        return self.model_path.stem

    def _open_store(self, named: Path | None) -> Store | None:
        path = named or Path(str(self.model.record.get("store", "")))
        try:
            store = Store.open_beside([path], corrected=True)
            if store.recipe.digest != self.model.recipe.digest:
                raise BreedsError(
                    f"{path} is of another recipe ({store.recipe}) than {self.model_path} "
                    f"({self.model.recipe}); name the store that the model was trained on with --store."
                )
            return store
        except BreedsError as error:
            if named is not None:
                raise
            say(f"the training photos are not shown: {error}", file=sys.stderr)
            return None

    def photo(self, key: str) -> KeyAndPath | None:
        """Return key and path of a photo that the store knows, or None."""
        if self.store is None or not _KEY.fullmatch(key):
            return None
        table = self.store.table
        at = int(locate(table.key.packed[self._order], Keys.of([key]).packed)[0])
        if at < 0:
            return None
        return key, os.path.join(table.root, table.path[int(self._order[at])])

    def large(self, key: str) -> Thumbnail:
        """Return a photo of the store to look at.

        Raises
        ------
        PhotoError
            If the store has none of that key, or it is not there any more.
        """
        return self._picture(key, LARGE)

    def _thumb(self, key: str) -> Thumbnail:
        """Return a photo of the store, small; as `large`."""
        return self._picture(key, LONGEST)

    def _picture(self, key: str, longest: int) -> Thumbnail:
        photo = self.photo(key)
        found = thumbnail(photo, longest) if photo else PhotoError("the store has no such photo")
        if isinstance(found, PhotoError):  # not kept: it may be back the next time
            raise found
        return found

    def warm_up(self) -> None:
        """Read what the first look for photos alike would wait for."""
        with self._reading:
            if self._training is None and self.store is not None:
                self._training = TrainingPhotos(self.model, self.store)

    def nearest(self, feature: NDArray[np.float32]) -> list[Neighbour]:
        """Return the training photos most like a photo, by its feature, float32 (width,)."""
        self.warm_up()
        return self._training.nearest(feature[None])[0] if self._training else []
