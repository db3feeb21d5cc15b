"""What runs on a cluster's nodes: photos are read, decoded and computed there, and features go back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import __version__ as pillow

import breeds
from breeds.backbones.choose import open_engine
from breeds.backbones.pipeline import KeyAndPhoto, Pipeline, run_ahead
from breeds.backbones.weights import Weights
from breeds.config import FeatureConfig
from breeds.errors import PhotoError
from breeds.features.network import Network
from breeds.started import begin

T = TypeVar("T")
R = TypeVar("R")

#: What decides what a photo's pixels are; it has to be the same on all nodes.
VERSIONS = f"Breeds {breeds.__version__} and Pillow {pillow}"
# Files read at once for their keys, as each is mostly waited for.
_AT_ONCE = 16


class About(NamedTuple):
    """What an actor says of itself when it has come up."""

    node: str
    pid: int
    versions: str
    sees: bool


@dataclass(frozen=True)
class Setup:
    """What a config is computed with; it is put into the cluster's memory once, for all actors.

    Attributes
    ----------
    config, engine
        As `breeds.backbones.choose.open_engine` takes them.
    weights, content
        The weights, and the bytes of their file where the engine reads that.
    network
        The network as OpenVINO reads it.
    """

    config: FeatureConfig
    engine: str
    weights: Weights
    content: NDArray[np.uint8] | None
    network: Network | None


@dataclass(frozen=True)
class Applied:
    """What became of a block of items, in order, and how long it took, in seconds."""

    results: list[Any]
    seconds: float

    def unpacked(self) -> list[Any]:
        """Return the results."""
        return self.results


@dataclass(frozen=True)
class Computed:
    """Features of a block, float32 (good, width), in order, and why the others have none, by their place."""

    features: NDArray[np.float32]
    errors: dict[int, PhotoError]
    seconds: float

    @staticmethod
    def of(found: Sequence[NDArray[np.float32] | PhotoError], seconds: float) -> Computed:
        """Pack what a pipeline gave: one array travels better than many."""
        errors = {i: one for i, one in enumerate(found) if isinstance(one, PhotoError)}
        good = [one for one in found if not isinstance(one, PhotoError)]
        return Computed(np.stack(good) if good else np.zeros((0, 0), np.float32), errors, seconds)

    def unpacked(self) -> list[NDArray[np.float32] | PhotoError]:
        """Return what was packed."""
        features = iter(self.features)
        count = len(self.features) + len(self.errors)
        return [self.errors[i] if i in self.errors else next(features) for i in range(count)]


class Actor:
    """A process on a node; it takes one block of items after the other.

    Parameters
    ----------
    threads
        How many it computes in, and decodes in.
    """

    def __init__(self, threads: int) -> None:
        begin()
        self._threads = threads
        self._readers = ThreadPoolExecutor(_AT_ONCE)
        self._pipeline: Pipeline | None = None
        self._number = -1

    def about(self, root: str) -> About:
        """Say which node this is, and whether it sees the folder of the photos."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return About(node, os.getpid(), VERSIONS, not root or os.path.isdir(root))

    def apply(self, items: Sequence[T], function: Callable[[T], R]) -> Applied:
        """Return what a function gives for each of `items`, in order."""
        started = time.perf_counter()
        results = [result for _, result in run_ahead(self._readers, function, items, 2 * _AT_ONCE)]
        return Applied(results, time.perf_counter() - started)

    def compute(self, items: Sequence[KeyAndPhoto], number: int, setup: Setup) -> Computed:
        """Return the features of photos; the engine stays open for the setup of this number."""
        started = time.perf_counter()
        if self._pipeline is None or self._number != number:
            if self._pipeline is not None:
                self._pipeline.__exit__(None, None, None)
            self._pipeline, self._number = (
                Pipeline(lambda: _open(setup, self._threads), self._decoders),
                number,
            )
        found = [one for _, one in self._pipeline.features(items, setup.config)]
        return Computed.of(found, time.perf_counter() - started)

    @property
    def _decoders(self) -> int:
        return max(4, 2 * self._threads)  # they wait for their files, too


def _open(setup: Setup, threads: int) -> Any:
    with TemporaryDirectory(prefix="breeds-") as folder:
        weights = setup.weights
        if setup.content is not None:
            path = Path(folder) / "weights.h5"
            path.write_bytes(setup.content.data)
            weights = Weights(weights.name, weights.sha256, path)
        return open_engine(
            setup.config, lambda: weights, setup.engine, lambda: setup.network, threads=threads
        )
