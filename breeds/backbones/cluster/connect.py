"""A Ray cluster, found and joined; the sentences for one that is not there."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from breeds.backbones.cluster.pool import Actors, Cluster
from breeds.errors import BreedsError
from breeds.started import need

#: How long to wait for a connection, in seconds.
CONNECT_SECONDS = 5
# How HTTP/2, by which Ray speaks, begins: with a frame of settings, type 4, from both sides.
_GREETING, _ANSWER = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", b"\0\0\0\4"
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
        address = _found_here() if address == "auto" else address
        _check_listening(address)
    try:
        with warnings.catch_warnings(), _own_signals():
            warnings.simplefilter("ignore")
            ray.init(address=address, log_to_driver=False, logging_level="CRITICAL", **how)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, AssertionError, OSError) as error:
        ray.shutdown()
        raise _not_joined(address, error) from None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what SIGTERM does here: Ray would leave without a word."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _check_listening(address: str) -> None:
    """Refuse an address at which nothing speaks as a cluster's head does: Ray would try for minutes."""
    found = _HOST_AND_PORT.fullmatch(address)
    if found is None:
        raise BreedsError(
            f"--address {address}: it is auto, local, or the HOST:PORT of a Ray cluster's head, such as "
            f"10.0.0.1:6379; run the command on a node of that cluster."
        )
    try:
        with socket.create_connection((found[1], int(found[2])), CONNECT_SECONDS) as head:
            head.sendall(_GREETING)
            is_head = head.recv(len(_ANSWER), socket.MSG_WAITALL)[3:] == _ANSWER[3:]
        reason = "" if is_head else "what is there is something else"
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    if reason:
        raise BreedsError(
            f"No Ray cluster answers at {address} ({reason}); look whether it runs (ray status), and at the "
            f"address that `ray start --head` said."
        )


def _found_here() -> str:
    """Return the address of the cluster that this machine was a node of when Ray last looked."""
    from ray._private.services import get_ray_address_from_environment

    try:
        return str(get_ray_address_from_environment("auto", None))
    except ConnectionError:
        raise BreedsError(
            "This machine is no node of a running Ray cluster; start one (docs/cluster.md), name its head "
            "with --address HOST:PORT, or use --address local for this machine alone."
        ) from None


def _not_joined(address: str, error: Exception) -> BreedsError:
    reason = " ".join(str(error).split())[:200]
    return BreedsError(
        f"The Ray cluster at {address} cannot be joined from this machine ({reason}); the command is to run "
        f"on one of its nodes, with the same Ray and Python."
    )
