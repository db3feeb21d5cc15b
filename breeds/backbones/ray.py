"""Photos to features on a Ray cluster: its nodes read, decode and compute, and send features back.

Blocks of photos are tasks of Ray, which runs one again elsewhere when its process or node dies. One that was
lost twice is taken apart, and a photo that is lost twice alone has no feature: so it holds up no others.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar

from PIL import __version__ as pillow

import breeds
from breeds.backbones.convert import fp32_network
from breeds.backbones.pipeline import Feature, P, Pipeline
from breeds.backbones.resolve import open_engine
from breeds.backbones.weights import Weights
from breeds.config import FeatureConfig, Network
from breeds.errors import BreedsError, PhotoError
from breeds.machine import run_ahead
from breeds.started import begin, need

T = TypeVar("T")
R = TypeVar("R")

#: What decides what a photo's pixels are; it has to be the same on all nodes.
VERSIONS = f"Breeds {breeds.__version__} and Pillow {pillow}"
#: How many items a block has at most; the first ones have fewer.
MOST = 32
# Files read at once in a task, as each is mostly waited for; and threads that decode for one that computes.
_READERS, _DECODERS = 16, 4
# Blocks under way for each that is computed: one that takes long holds up the order, and not the others.
_AHEAD = 4
_NOTHING_LOST = "nothing is lost: mend that and run the command again."


class RayPipeline:
    """A Ray cluster in the place of a `breeds.backbones.pipeline.Pipeline`; joined while the block runs.

    Parameters
    ----------
    address
        ``auto`` for the cluster that this machine is a node of, ``local`` for one that is started here, or
        the HOST:PORT of the cluster's head.
    actors
        How many processes compute at once, whether there is room yet or not, so that a cluster that grows
        adds nodes; None is as many as there are CPUs, also on nodes that join later.

    Attributes
    ----------
    root
        The folder here that the photos are in, which every node has to see; "" for photos elsewhere.
    photos, seconds
        How many photos each node has answered for, by its name, and how long that took.
    """

    name = "openvino"

    def __init__(self, address: str = "auto", actors: int | None = None) -> None:
        need("ray")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or Ray advises on each task
        import ray
        from ray import exceptions

        self._ray: Any = ray
        self._lost = (
            exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.OutOfMemoryError,
            exceptions.ObjectLostError,
        )  # fmt: skip
        self._actors = actors
        self._sources: tuple[Weights, Callable[[], Network | None]] | None = None
        self._setup: Any = None
        self.root = ""
        self.photos: Counter[str] = Counter()
        self.seconds = 0.0
        self._joined = not ray.is_initialized()
        if self._joined:
            _join(ray, address)
        if actors is None and self._cpus() < 1:
            self.__exit__(None, None, None)
            raise BreedsError(
                "No node of the cluster has a CPU; wait for nodes that are still to come with --actors N."
            )

    def __enter__(self) -> RayPipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._joined:
            self._ray.shutdown()

    def prepare(self, weights: Weights, network: Callable[[], Network | None]) -> None:
        """Say by which weights to compute, and what finds the network, if it is at hand."""
        self._sources, self._setup = (weights, network), None

    def run_ahead(
        self, function: Callable[[T], R], items: Iterable[T], most: int = MOST
    ) -> Iterator[tuple[T, R | PhotoError]]:
        """Yield every item, in order, with what a module's function gives for it on a node, in blocks.

        One that ends its process each time comes with a PhotoError; `most` is how large a block may be.
        """
        for item, result, _ in self._spread(partial(_apply, function), items, most):
            yield item, result

    def features(
        self, photos: Iterable[P], config: FeatureConfig
    ) -> Iterator[tuple[P, Feature | PhotoError]]:
        """Yield every photo, in order, with its feature or why there is none, as `Pipeline.features` does."""
        if self._setup is None:
            assert self._sources is not None, "prepare comes first"
            weights, network = self._sources
            found = network() or Network.read(fp32_network(config, lambda: weights))
            with self._told():
                self._setup = self._ray.put((config, weights, found))
        started = time.perf_counter()
        try:
            for photo, result, node in self._spread(partial(_compute, [self._setup]), photos):
                self.photos[node] += 1
                yield photo, result
        finally:
            self.seconds += time.perf_counter() - started

    def said(self) -> dict[str, Any]:
        """Return how many photos each node has answered for, and how many all did in a second."""
        return {"nodes": dict(self.photos), "rate": self.photos.total() / max(self.seconds, 1e-6)}

    def _cpus(self) -> int:
        return int(self._ray.cluster_resources().get("CPU", 0))

    def _spread(
        self, function: Callable[[Sequence[Any]], Any], items: Iterable[T], most: int = MOST
    ) -> Iterator[tuple[T, Any, str]]:
        """Yield every item, in order, with its result and the node that gave it."""
        task = self._ray.remote(num_cpus=1, max_retries=1, scheduling_strategy="SPREAD")(_checked)

        def submit(block: Sequence[T]) -> Any:
            return task.remote(function, list(block), VERSIONS, self.root)

        items, size = iter(items), min(4, most)
        under_way: deque[tuple[list[T], Any]] = deque()
        is_over = False
        try:
            while under_way or not is_over:
                refs = [ref for _, ref in under_way]
                done, running = self._ray.wait(refs, num_returns=len(refs), timeout=0) if refs else ([], [])
                at_once = self._actors or 2 * max(1, self._cpus())
                if not is_over and len(running) < at_once and len(under_way) < _AHEAD * at_once:
                    block = list(islice(items, size))
                    size = min(2 * size, most)
                    is_over = not block
                    under_way += [(block, submit(block))] if block else []
                elif refs[0] in done:
                    block, ref = under_way.popleft()
                    results, node = self._results(block, ref, submit)
                    yield from zip(block, results, [node] * len(block), strict=True)
                else:
                    self._ray.wait(running, num_returns=1, timeout=1.0)
        finally:
            for _, ref in under_way:  # as after Ctrl-C: nobody wants what is under way
                self._ray.cancel(ref, force=True)

    def _results(
        self, block: Sequence[T], ref: Any, submit: Callable[[Sequence[T]], Any]
    ) -> tuple[list[Any], str]:
        """Return the results of a block, and the node; those of lost ones item by item."""
        try:
            with self._told():
                results, node = self._ray.get(ref)
                return list(results), node
        except self._lost:
            if len(block) == 1:
                return [PhotoError("the process that read it died twice")], "none"
        alone = [submit([item]) for item in block]
        found = [self._results([item], one, submit) for item, one in zip(block, alone, strict=True)]
        return [result for results, _ in found for result in results], found[0][1]

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Make a sentence of what went wrong on a node and is no defect of ours."""
        try:
            yield
        except self._lost:
            raise
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, BreedsError):
                raise BreedsError(str(cause)) from None
            if isinstance(cause, OSError | MemoryError):
                reason = getattr(cause, "strerror", None) or "there is not enough memory"
                raise BreedsError(f"A node cannot go on: {reason}; {_NOTHING_LOST}") from None
            raise
        except self._ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if "Error" in line]  # of pages
            reason = (lines or [type(error).__name__])[-1][:200]
            raise BreedsError(f"The cluster fails ({reason}); {_NOTHING_LOST}") from None


def _join(ray: Any, address: str) -> None:
    how: dict[str, Any] = {}
    if address == "local":
        how = {"include_dashboard": False, "object_store_memory": 2**29}  # for the network and features
    elif address != "auto":
        _check_listening(address)
    before = signal.getsignal(signal.SIGTERM)  # Ray would leave without a word
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address=address, log_to_driver=False, logging_level="CRITICAL", **how)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, AssertionError, OSError) as error:
        ray.shutdown()
        reason = " ".join(str(error).split())[:200]
        raise BreedsError(
            f"The Ray cluster at {address} cannot be joined from this machine ({reason}); the command is to "
            f"run on one of its nodes, with the same Ray and Python: start one (docs/cluster.md), name its "
            f"head with --address HOST:PORT, or use --address local for this machine alone."
        ) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _check_listening(address: str) -> None:
    """Refuse an address at which nothing listens: Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise BreedsError(
            f"--address {address}: it is auto, local, or the HOST:PORT of a Ray cluster's head, such as "
            f"10.0.0.1:6379; run the command on a node of that cluster."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise BreedsError(
            f"No Ray cluster answers at {address} ({getattr(error, 'strerror', None) or error}); look "
            f"whether it runs (ray status), and at the address that `ray start --head` said."
        ) from None


# What runs on the nodes. Ray uses a process again for the next task, which finds the engine open.


def _checked(
    function: Callable[[Sequence[Any]], Any], items: Sequence[Any], versions: str, root: str
) -> tuple[Sequence[Any], str]:
    """Return what a function gives for items, and this node's name, if it decodes as the driver does."""
    import ray

    begin()
    host: Any = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    name = f"{host}/{ray.get_runtime_context().get_node_id()[:8]}"
    if versions != VERSIONS:
        raise BreedsError(
            f"The node {name} has {VERSIONS}, and this machine {versions}, which may decode in another way; "
            f"install the same on all nodes."
        )
    if root and not os.path.isdir(root):
        raise BreedsError(
            f"The node {name} has no folder {root}; put the photos on a disk that all nodes share, under the "
            f"same path, or into object storage."
        )
    return function(items), name


def _apply(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    with ThreadPoolExecutor(_READERS) as pool:
        return [result for _, result in run_ahead(pool, function, items, 2 * _READERS)]


def _compute(setup: Sequence[Any], photos: Sequence[Any]) -> list[Feature | PhotoError]:
    """Compute photos; the reference comes in a list, so that Ray does not unpack the network each time."""
    pipeline, config = _opened(setup[0])
    return [result for _, result in pipeline.features(photos, config)]


@lru_cache(maxsize=1)
def _opened(setup: Any) -> tuple[Pipeline, FeatureConfig]:
    import ray

    config, weights, network = ray.get(setup)
    opener = partial(open_engine, config, lambda: weights, "openvino", lambda: network, threads=1)
    return Pipeline(opener, _DECODERS), config
