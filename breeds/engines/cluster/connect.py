"""A Ray cluster, found and joined; the sentences for one that is not there."""

from __future__ import annotations

import os
import re
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from breeds.engines.cluster.pool import Actors, Cluster
from breeds.errors import BreedsError
from breeds.started import need

#: How long to wait for a connection, in seconds.
CONNECT_SECONDS = 5
_HOST_AND_PORT = re.compile(r"\[?([0-9A-Za-z.:_-]+?)\]?:(\d{1,5})")
# The memory that a Ray started here shares between its processes: the network, and features on their way.
_SHARED_BYTES = 2**29


@contextmanager
def connected(address: str = "auto", actors: Actors | None = None) -> Iterator[Cluster]:
    """Join a Ray cluster while the block runs; a program that has joined one stays in that.

    Parameters
    ----------
    address
        ``auto`` for the cluster that this machine is a node of, ``local`` for one that is started here for
        the block, or the HOST:PORT of the cluster's head.
    actors
        How many processes there, and what each takes.

    Raises
    ------
    BreedsError
        If Ray is not installed, the cluster is not there, or has no room for an actor.
    """
    need("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or Ray advises on each actor
    import ray

    joined = not ray.is_initialized()
    if joined:
        _join(ray, address)
    try:
        with Cluster(actors or Actors()) as cluster:
            yield cluster
    finally:
        if joined:
            ray.shutdown()


def _join(ray: Any, address: str) -> None:
    if address == "local":
        how: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _SHARED_BYTES}
    else:
        how = {}
        if address != "auto":
            _check_listening(address)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address=address, log_to_driver=False, logging_level="CRITICAL", **how)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, AssertionError, OSError) as error:
        ray.shutdown()
        raise _not_joined(address, error) from None


def _check_listening(address: str) -> None:
    """Refuse an address that nobody answers at: Ray itself would try for minutes."""
    found = _HOST_AND_PORT.fullmatch(address)
    if found is None:
        raise BreedsError(
            f"--address {address}: it is auto, local, or the HOST:PORT of a Ray cluster's head, such as "
            f"10.0.0.1:6379; run the command on a node of that cluster."
        )
    try:
        socket.create_connection((found[1], int(found[2])), CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BreedsError(
            f"No Ray cluster answers at {address} ({reason}); look whether it runs (ray status), and at the "
            f"address that `ray start --head` said."
        ) from None


def _not_joined(address: str, error: Exception) -> BreedsError:
    if address == "auto":
        return BreedsError(
            "This machine is no node of a running Ray cluster; start one (docs/cluster.md), name its head "
            "with --address HOST:PORT, or use --address local for this machine alone."
        )
    reason = " ".join(str(error).split())[:200]
    return BreedsError(
        f"The Ray cluster at {address} cannot be joined from this machine ({reason}); the command is to run "
        f"on one of its nodes, with the same Ray and Python."
    )
