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
    Ctrl-C is left to the parent: they are born deaf to it.
    """
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent)
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for _ in range(workers):  # each of these starts a process
            pool.submit(int)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
    return pool


def _end_with_parent() -> None:
    """Die with the parent, where Linux can be asked to see to it."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
