"""The photos of a store that are most like others, by the network's features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from breeds.errors import BreedsError
from breeds.features import Store
from breeds.heads.model import Model
from breeds.text import mention

#: Rows of the store that are looked at together: 8 MB of Xception's features.
_BLOCK = 1024
#: How many are looked for.
NEAREST = 3


@dataclass(frozen=True)
class Neighbour:
    """A photo of a store, and how alike it is: 1 for the same features, 0 for no likeness."""

    key: str
    path: str
    label: str
    similarity: float


class Neighbours:
    """The photos among which the nearest are looked for: labelled ones, each different photo once.

    Labels are as corrected, where the store has corrections.

    Parameters
    ----------
    store
        Whose photos; memory holds a block of their features at a time.
    keys
        Keys of those that count, such as the training photos (`Model.seen_keys`); None for all.

    Raises
    ------
    BreedsError
        If the store is damaged.
    """

    def __init__(self, store: Store, keys: set[str] | None = None) -> None:
        self._store = store
        rows = store.corrected.labelled_rows()
        self._rows = np.array(
            [row for row in rows if keys is None or store.table.key[row] in keys], dtype=np.intp
        )
        total = sum(block.sum(axis=0, dtype=np.float64) for _, block in self._blocks())
        self._centre = np.asarray(total / max(1, len(self._rows)), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._rows)

    def nearest(self, features: NDArray[np.float32], k: int = NEAREST) -> list[list[Neighbour]]:
        """Return, for each feature, float32 (n, width), its `k` nearest photos, the most alike first.

        Features are compared by their cosine around the mean of the store's photos, as all features
        have much in common. A photo that is itself among the store's is its own nearest.
        """
        if not len(self._rows):
            return [[] for _ in features]
        queries = self._unit(features)
        best = np.full((len(queries), 0), 0, dtype=np.float32)
        at = np.full((len(queries), 0), 0, dtype=np.intp)
        for start, block in self._blocks():
            alike = np.hstack([best, queries @ self._unit(block).T])
            here = np.arange(start, start + len(block))
            place = np.hstack([at, np.broadcast_to(here, (len(queries), len(block)))])
            first = np.argsort(-alike, axis=1, kind="stable")[:, :k]
            best, at = np.take_along_axis(alike, first, axis=1), np.take_along_axis(place, first, axis=1)
        return [list(map(self._neighbour, rows, row)) for rows, row in zip(at, best, strict=True)]

    def _blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the features of the photos that count, block by block, with the place of the first."""
        for start in range(0, len(self._rows), _BLOCK):
            yield start, self._store.features(self._rows[start : start + _BLOCK])

    def _unit(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        centred = features - self._centre
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        return np.asarray(centred / np.maximum(length, 1e-12), dtype=np.float32)

    def _neighbour(self, place: int, similarity: float) -> Neighbour:
        table, row = self._store.corrected, int(self._rows[place])
        return Neighbour(table.key[row], table.path[row], table.label[row], float(similarity))


class TrainingPhotos:
    """The photos that a model was trained on, as long as their store is there; else it says so once.

    Parameters
    ----------
    model
        The model.
    store
        Its store, if that is open already; by default, where it was at training.
    """

    def __init__(self, model: Model, store: Store | None = None) -> None:
        self._neighbours: Neighbours | None = None
        path = str(model.record.get("store", ""))
        try:
            store = store or Store(Path(path), corrected=True)
            if store.config.digest == model.config.digest:
                self._neighbours = Neighbours(store, model.seen_keys())
            else:
                self._do_without(f"{path} is of another config now.")
        except BreedsError as error:
            self._do_without(str(error))

    def nearest(self, features: NDArray[np.float32], k: int = NEAREST) -> list[list[Neighbour]]:
        """Return, for each feature, float32 (n, width), the `k` training photos most like it, or none."""
        if self._neighbours is not None:
            try:
                return self._neighbours.nearest(features, k)
            except BreedsError as error:
                self._do_without(str(error))
        return [[] for _ in features]

    def _do_without(self, reason: str) -> None:
        self._neighbours = None
        mention(f"the nearest training photos are left out: {reason}")
