"""Processes of our own that leave nothing behind: started fresh, and gone when their parent is."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys
from concurrent.futures import ProcessPoolExecutor


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of new processes, which share nothing with this one and end with it.

    They are started, not forked, as threads of TensorFlow and OpenVINO do not survive a fork.
    """
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent)


def _end_with_parent() -> None:
    """Leave Ctrl-C to the parent and, where Linux is asked to see to it, die with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
