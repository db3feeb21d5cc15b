"""What tests let a cluster's processes do."""

from __future__ import annotations

import errno
import os
import signal


def deadly(number: int) -> int:
    """Kill this process for the number 7; others are doubled."""
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def full(number: int) -> int:
    """Fail as on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def place_of(number: int) -> str:
    """The node that this runs on."""
    import ray

    return str(ray.get_runtime_context().get_node_id())
