"""Where the network looked: what each small cell of a photo says for and against each class.

A feature is the mean over a map of cells, and the head after the standardisation is a sum of products.
So a class's score is the mean, over the cells, of the same sum of products taken cell by cell, plus the
head's bias: the class activation map (Zhou et al., 2016, arXiv:1512.04150), which is exact. The dense
head has rectifiers between; with those open that are open for this photo it is a sum of products again,
the gradient, which is exact for the photo as a whole and a first approximation for its cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from breeds.errors import BreedsError
from breeds.heads.model import Array, Model

EXACT, GRADIENT = "exact", "gradient"


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
        return int(self._ranked[0])

    @property
    def runner_up(self) -> int:
        """The number of the second likeliest class."""
        return int(self._ranked[1])

    @property
    def _ranked(self) -> NDArray[np.intp]:
        return np.argsort(-self.probabilities, kind="stable")

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
