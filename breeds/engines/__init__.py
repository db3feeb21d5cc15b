"""Engines run a backbone over pixels. Each is one class in a module of its own, imported when used.

An engine gathers photos into batches as suits it, but a feature never depends on the photos
around it; so stores can be begun with one engine and continued with another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from breeds.backbone import Backbone, Recipe, Weights, find_weights


class Engine(Protocol):
    """Something that turns pixels into features."""

    name: str

    def stream(self, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield one feature, float32 (width,), for each photo, uint8 (size, size, 3), in order."""
        ...


def get_weights(spec: str, backbone: Backbone) -> Weights:
    """Find the weights that `spec` names, downloading Keras's ImageNet file if it is not here.

    Raises
    ------
    BreedsError
        If there is no such file, or the download fails; within 30 seconds when offline.
    """
    weights = find_weights(spec, backbone)
    if weights is None:
        from breeds.engines.download import download_imagenet

        weights = download_imagenet(backbone)
    return weights


def open_engine(recipe: Recipe, weights: Weights) -> Engine:
    """Load the backbone of `recipe` with `weights`, ready to run.

    Raises
    ------
    BreedsError
        If the weights do not fit the backbone; the text names the layer.
    """
    from breeds.engines.keras import KerasEngine

    return KerasEngine(recipe, weights)
