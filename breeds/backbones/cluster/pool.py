"""Actors on a cluster, and what they are given; whatever dies, each photo is answered once.

They are Ray's plain actors, and not Ray Data's pool of them, which tries a block again for ever: one photo
that kills its process would hold up all others. What is sent to them are paths, as there, and never pixels.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from breeds.backbones.cluster.blocks import DEPTH, Block, Blocks, Load
from breeds.backbones.cluster.node import VERSIONS, About, Actor
from breeds.errors import BreedsError, PhotoError

T = TypeVar("T")
R = TypeVar("R")

#: How many items may be done before the one whose turn it is, where they are to come in order.
WINDOW = 100_000
#: How long to wait for actors where there are none, in seconds; and how many may die one after the other
#: before any comes up.
PATIENCE, STILLBORN = 600.0, 4
_LOOK_SECONDS = 1.0
_NOTHING_LOST = "nothing is lost: mend that and run the command again."


@dataclass(frozen=True)
class Actors:
    """How many processes a cluster is asked for, and what each takes.

    Attributes
    ----------
    count
        Asked for whether there is room yet or not, so that a cluster that grows adds nodes; None is as many
        as there is room for, also on nodes that join later.
    cpus, gpus
        What Ray keeps free for each.
    """

    count: int | None = None
    cpus: int = 1
    gpus: int = 0

    @property
    def needs(self) -> str:
        """What one takes, as people read it."""
        parts = [(self.cpus, "CPU"), (self.gpus, "GPU")]
        return " and ".join(f"{n} {what}{'s' * (n > 1)}" for n, what in parts if n)


@dataclass(eq=False)
class _Hand:
    """An actor as the driver sees it; `coming` brings what it says of itself."""

    handle: Any
    coming: Any
    load: Load
    about: About | None = None
    node: str = ""


class Cluster:
    """A Ray cluster that was joined; `breeds.backbones.cluster.connect.connected` gives one.

    Attributes
    ----------
    actors
        How many, and what each takes.
    root
        The folder here that the photos are in, which every node has to see; "" for photos elsewhere.
    """

    def __init__(self, actors: Actors) -> None:
        import ray
        from ray import exceptions

        self.actors = actors
        self.root = ""
        self._ray: Any = ray
        self._dead = (
            exceptions.RayActorError,
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.OutOfMemoryError,
        )
        self._lost = (*self._dead, exceptions.ObjectLostError)
        self._full = (exceptions.OutOfDiskError, exceptions.ObjectStoreFullError)
        self._kind: Any = ray.remote(Actor)
        self._hands: list[_Hand] = []
        self._names: dict[str, str] = {}
        self._stillborn = 0
        self._sign_of_life = time.monotonic()
        self._looked = 0.0
        self._puts = 0
        self._refuse_too_small()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dismiss()

    @property
    def pids(self) -> list[int]:
        """The processes of the actors that are up, by their numbers on their nodes."""
        return [hand.about.pid for hand in self._hands if hand.about]

    def put(self, what: Any) -> tuple[int, Any]:
        """Put something into the cluster's memory, once for all actors; return its number and a reference."""
        self._puts += 1
        with self._told("this machine"):
            return self._puts, self._ray.put(what)

    def in_order(
        self, function: Callable[[T], R], items: Iterable[T], first: int = 32
    ) -> Iterator[tuple[T, R | PhotoError]]:
        """Yield every item, in order, with what a module's function gives for it on a node.

        One whose process dies each time comes with a PhotoError.

        Parameters
        ----------
        first
            How many items the first blocks have.

        Raises
        ------
        BreedsError
            If the function does, or no actors come up.
        """
        waiting: dict[int, tuple[T, R | PhotoError]] = {}
        turn = 0

        def may_start(number: int) -> bool:
            return number < turn + WINDOW

        for number, item, result, _ in self.spread(
            "apply", items, function, first=first, may_start=may_start
        ):
            waiting[number] = (item, result)
            while turn in waiting:
                yield waiting.pop(turn)
                turn += 1

    def spread(
        self,
        method: str,
        items: Iterable[T],
        *more: Any,
        first: int,
        may_start: Callable[[int], bool] = lambda number: True,
    ) -> Iterator[tuple[int, T, Any, str]]:
        """Yield every item once, as they are done: its number, itself, what became of it, and on which node.

        Parameters
        ----------
        method
            One of `Actor` that takes a block of items, and `more`.
        """
        blocks = Blocks(items, may_start)
        under_way: dict[Any, tuple[_Hand, Block]] = {}
        for hand in self._hands:
            hand.load = Load(first)
        done = False
        try:
            while under_way or not blocks.are_out:
                self._recruit(first)
                self._give(method, more, blocks, under_way)
                for block, results, node in self._take(blocks, under_way):
                    for (number, item), result in zip(block.items, results, strict=True):
                        yield number, item, result, node
            done = True
        finally:
            if not done:  # as after Ctrl-C: nobody wants what is under way
                self._dismiss()

    def _give(
        self, method: str, more: tuple[Any, ...], blocks: Blocks, under_way: dict[Any, tuple[_Hand, Block]]
    ) -> None:
        """Give blocks to all actors that are up: those with the fewest first."""
        up = sorted((hand for hand in self._hands if hand.about), key=lambda hand: hand.load.blocks)
        for hand in up * DEPTH:
            if (block := blocks.take(hand.load)) is not None:
                call = getattr(hand.handle, method)
                under_way[call.remote([item for _, item in block.items], *more)] = hand, block

    def _take(
        self, blocks: Blocks, under_way: dict[Any, tuple[_Hand, Block]]
    ) -> Iterator[tuple[Block, list[Any], str]]:
        """Wait a moment for whatever comes, and yield what is done: blocks, their results, and the node."""
        coming = {hand.coming: hand for hand in self._hands if hand.about is None}
        refs = [*under_way, *coming]
        if not refs:
            time.sleep(_LOOK_SECONDS / 10)
            return
        done, rest = self._ray.wait(refs, num_returns=1, timeout=_LOOK_SECONDS)
        if done and rest:
            done += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for ref in done:
            if ref in coming:
                self._greet(coming[ref])
                continue
            hand, block = under_way.pop(ref)
            blocks.give_back(hand.load, block)
            try:
                with self._told(f"The node {hand.node}"):
                    found = self._ray.get(ref)
            except self._lost as error:
                is_dead = isinstance(error, self._dead)
                if is_dead:
                    self._let_go(hand)
                given_up = blocks.try_again(block, is_dead)
                if given_up is not None:
                    yield block, [given_up], hand.node
                continue
            self._sign_of_life = time.monotonic()
            hand.load.note(len(block.items), found.seconds)
            yield block, found.unpacked(), hand.node

    def _greet(self, hand: _Hand) -> None:
        """Take in an actor that has come up, or note that it has not.

        Raises
        ------
        BreedsError
            If none comes up, or the node is not like this one.
        """
        try:
            about = hand.about = self._ray.get(hand.coming)
        except self._lost as error:
            self._let_go(hand)
            self._stillborn += 1
            if self._stillborn < STILLBORN:
                return
            raise BreedsError(
                f"Actors do not start on the cluster's nodes ({_reason(error)}); each node needs the same "
                f"Python, and Breeds with its libraries."
            ) from None
        self._stillborn = 0
        self._sign_of_life = time.monotonic()
        hand.node = self._names.get(about.node, about.node[:8])
        if about.versions != VERSIONS:
            raise BreedsError(
                f"The node {hand.node} has {about.versions}, and this machine {VERSIONS}, which may decode "
                f"in another way; install the same on all nodes."
            )
        if not about.sees:
            raise BreedsError(
                f"The node {hand.node} has no folder {self.root}; put the photos on a disk that all nodes "
                f"share, under the same path, or into object storage."
            )

    def _nodes(self) -> list[dict[str, float]]:
        """Return what each node that is up has, and learn their names."""
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        names = Counter(node["NodeName"] for node in nodes)
        for node in nodes:
            name = node["NodeName"]
            self._names[node["NodeID"]] = name if names[name] == 1 else f"{name}/{node['NodeID'][:8]}"
        return [node["Resources"] for node in nodes]

    def _room(self) -> int:
        """Return for how many actors the nodes have room, whoever else uses them."""
        cpus, gpus = self.actors.cpus, self.actors.gpus
        room = 0
        for node in self._nodes():
            fits = int(node.get("CPU", 0) // cpus)
            room += min(fits, int(node.get("GPU", 0) // gpus)) if gpus else fits
        return room

    def _refuse_too_small(self) -> None:
        if self.actors.count is None and not self._room():
            nodes = self._nodes()
            cpus, gpus = (max((node.get(kind, 0) for node in nodes), default=0) for kind in ("CPU", "GPU"))
            most = f"{cpus:.0f} CPUs and {gpus:.0f} GPUs"
            raise BreedsError(
                f"No node of the cluster has room for an actor, which takes {self.actors.needs}; the largest "
                f"have {most}: ask for less with --actor-cpus and --actor-gpus, or wait for nodes that are "
                f"still to come with --actors N."
            )

    def _recruit(self, first: int) -> None:
        """Ask for as many actors as there is room for, also in place of those that have died.

        Raises
        ------
        BreedsError
            If there have been none for too long.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS and self._hands:
            return
        self._looked = now
        room = self._room()
        wanted = room if self.actors.count is None else self.actors.count
        for _ in range(wanted - len(self._hands)):
            handle = self._kind.options(
                num_cpus=self.actors.cpus,
                num_gpus=self.actors.gpus,
                max_restarts=0,
                scheduling_strategy="SPREAD",
            ).remote(self.actors.cpus)
            self._hands.append(_Hand(handle, handle.about.remote(self.root), Load(first)))
        if not any(hand.about for hand in self._hands) and now - self._sign_of_life > PATIENCE:
            raise BreedsError(
                f"The cluster has had no room for an actor, which takes {self.actors.needs}, for "
                f"{PATIENCE:.0f} seconds (`ray status` says what it waits for); {_NOTHING_LOST}"
            )

    @contextmanager
    def _told(self, where: str) -> Iterator[None]:
        """Make a sentence of what went wrong on a node and is no defect of ours."""
        try:
            yield
        except self._lost:
            raise
        except self._full as error:
            raise BreedsError(
                f"{where} has no room left for what it computes ({_reason(error)}); {_NOTHING_LOST}"
            ) from None
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, BreedsError):
                raise BreedsError(str(cause)) from None
            if isinstance(cause, OSError | MemoryError):
                reason = getattr(cause, "strerror", None) or "there is not enough memory"
                raise BreedsError(f"{where} cannot go on: {reason}; {_NOTHING_LOST}") from None
            raise
        except self._ray.exceptions.RayError as error:
            raise BreedsError(f"The cluster fails ({_reason(error)}); {_NOTHING_LOST}") from None

    def _let_go(self, hand: _Hand) -> None:
        if hand in self._hands:
            self._hands.remove(hand)
            self._ray.kill(hand.handle)

    def _dismiss(self) -> None:
        for hand in self._hands:
            self._ray.kill(hand.handle)
        self._hands.clear()


def _reason(error: Exception) -> str:
    """Return the last line that says anything of an error of Ray's, which has pages of advice."""
    lines = [line.strip() for line in str(error).splitlines() if "Error" in line]
    return (lines or [type(error).__name__])[-1][:200]
