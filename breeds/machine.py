"""What this machine gives to one process: cores and memory."""

from __future__ import annotations

import os


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_of_machine() -> int:
    """Return how many bytes of memory there are for programs: the machine's, or what a container may use."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            found = min(found, int(file.read()))
    except (OSError, ValueError):  # no container, or one without a bound
        pass
    return found
