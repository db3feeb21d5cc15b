"""What explains an answer: where the network looked, and the training photos most like it.

A feature is the mean over a map of cells, and the head after the standardisation is a sum of products.
So a class's score is the mean, over the cells, of the same sum of products taken cell by cell, plus the
head's bias: the class activation map (Zhou et al., 2016, arXiv:1512.04150), which is exact. The dense
head has rectifiers between; with those open that are open for this photo it is a sum of products again,
the gradient, which is exact for the photo as a whole and a first approximation for its cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from breeds.errors import BreedsError
from breeds.features import Store
from breeds.heads.model import Array, Model
from breeds.text import mention

EXACT, GRADIENT = "exact", "gradient"
#: Rows of the store that are looked at together: 8 MB of Xception's features.
BLOCK = 1024
#: How many are looked for.
NEAREST = 3


@dataclass(frozen=True)
class Explanation:
    """What a model says of a photo, and which cells of it say so.

    Attributes
    ----------
    feature
        float32 (width,).
    probabilities
        float64 (classes,).
    evidence
        For each class, float64 (classes, height, width): `class_evidence`.
    kind
        `EXACT` for the logistic head, `GRADIENT` for the dense one.
    """

    feature: Array
    probabilities: NDArray[np.float64]
    evidence: NDArray[np.float64]
    kind: str

    @property
    def answer(self) -> int:
        """The number of the likeliest class."""
        return int(self.probabilities.argmax())

    def speaks_for(self, number: int, rather_than: int | None = None) -> NDArray[np.float64]:
        """Return what every cell says for a class, or for it rather than another, float64 (height, width)."""
        against = 0.0 if rather_than is None else self.evidence[rather_than]
        return np.asarray(self.evidence[number] - against)


def class_evidence(model: Model, unpooled: Array) -> NDArray[np.float64]:
    """Return what each cell of a photo says for each class, in the units of logits before temperature.

    Parameters
    ----------
    unpooled
        The map that the photo's feature is the mean of, float32 (height, width, features).

    Returns
    -------
    numpy.ndarray
        float64 (classes, height, width), 0 where a cell is as the average photo. Of each class, the mean
        plus the bias of `linear_head` is the logit times the temperature.
    """
    cells = (unpooled.astype(np.float64) - model.mean) / model.scale
    weights, _ = linear_head(model, cells.mean(axis=(0, 1)))
    return np.moveaxis(cells @ weights, 2, 0)


def linear_head(
    model: Model, standard: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the head as it acts on one photo: weights, float64 (features, classes), and bias, (classes,).

    For the logistic head that is the head itself; for the dense head, its gradient at `standard`, the
    photo's standardised feature, float64 (features,).
    """
    weights, bias = (array.astype(np.float64) for array in model.layers[0])
    for following, following_bias in model.layers[1:]:
        is_open = standard @ weights + bias > 0
        through = following[is_open].astype(np.float64)
        weights, bias = weights[:, is_open] @ through, bias[is_open] @ through + following_bias
    return weights, bias


def check_explainable(model: Model) -> None:
    """Make sure, before any work, that the model's answers can be explained.

    Raises
    ------
    BreedsError
        If they rest on several networks.
    """
    if len(model.parts) > 1:
        raise BreedsError(
            "Where the network looked cannot be shown for a model on several stores, as several networks "
            "looked; train one on a single store for that."
        )


def explanation_of(model: Model, feature: Array, unpooled: Array) -> Explanation:
    """Explain a photo by its feature, float32 (width,), and the map that this is the mean of."""
    kind = EXACT if len(model.layers) == 1 else GRADIENT
    probabilities = model.probabilities(feature[None])[0]
    return Explanation(feature, probabilities, class_evidence(model, unpooled), kind)


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
        Whose photos.
    keys
        Keys of those that count, such as the training photos (`Model.seen_keys`); None for all.
    block
        How many features are in memory at a time.

    Raises
    ------
    BreedsError
        If the store is damaged.
    """

    def __init__(self, store: Store, keys: set[str] | None = None, block: int = BLOCK) -> None:
        self._store, self._block = store, block
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
        for start in range(0, len(self._rows), self._block):
            yield start, self._store.features(self._rows[start : start + self._block])

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
            store = store or Store(Path(path))
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
