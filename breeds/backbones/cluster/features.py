"""Photos to features on a cluster, in the place of a `breeds.backbones.pipeline.Pipeline`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from breeds.backbones.cluster.node import Setup
from breeds.backbones.cluster.pool import Cluster
from breeds.backbones.convert import fp32_network
from breeds.backbones.pipeline import Feature, P
from breeds.backbones.weightfile import MOST_BYTES
from breeds.backbones.weights import Weights
from breeds.config import FeatureConfig
from breeds.errors import PhotoError
from breeds.features.network import Network
from breeds.files import read_regular

#: How many photos the first block of an actor has.
FIRST = 4


class ClusterPipeline:
    """What computes features on a cluster; its nodes get the network from here, and need no weights.

    Parameters
    ----------
    cluster
        Where.
    weights, network
        As `breeds.backbones.choose.open_engine` takes them.

    Attributes
    ----------
    photos
        How many photos each node has answered for, by its name.
    seconds
        How long that took.
    """

    def __init__(
        self,
        cluster: Cluster,
        weights: Callable[[], Weights],
        network: Callable[[], Network | None],
    ) -> None:
        self._cluster = cluster
        self._weights = weights
        self._network = network
        self._setup: tuple[int, object] | None = None
        self.name = ""
        self.photos: Counter[str] = Counter()
        self.seconds = 0.0

    def features(
        self, photos: Iterable[P], config: FeatureConfig
    ) -> Iterator[tuple[P, Feature | PhotoError]]:
        """Yield every photo once, as they are done, with its feature or why there is none.

        As `Pipeline.features` does, but for the order.
        """
        if self._setup is None:
            self._setup = self._cluster.put(self._set_up(config))
        started = time.perf_counter()
        try:
            for _, photo, found, node in self._cluster.spread("compute", photos, *self._setup, first=FIRST):
                self.photos[node] += 1
                yield photo, found
        finally:
            self.seconds += time.perf_counter() - started

    def said(self) -> dict[str, Any]:
        """Return how many photos each node has answered for, and how many all did in a second."""
        return {"nodes": dict(self.photos), "rate": self.photos.total() / max(self.seconds, 1e-6)}

    def _set_up(self, config: FeatureConfig) -> Setup:
        """Collect what the nodes compute with: OpenVINO's network, or the file of Keras's weights."""
        weights = self._weights()
        self.name = engine_of(self._cluster.actors.gpus)
        network, content = self._network(), None
        if self.name == "keras":
            if weights.path is not None:
                content = np.frombuffer(read_regular(weights.path, MOST_BYTES), dtype=np.uint8)
        elif network is None:
            network = Network.read(fp32_network(config, self._weights))
        return Setup(config, self.name, weights, content, network)


def engine_of(gpus: int) -> str:
    """Return which engine computes where actors take so many GPUs."""
    return "keras" if gpus else "openvino"
