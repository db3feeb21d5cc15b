"""Processes of our own that leave nothing behind: started fresh, and gone when their parent is."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor

from breeds.photos.memory import Budget, use_budget


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of new processes, which share nothing with this one and end with it.

    They are started, not forked, as threads of TensorFlow and OpenVINO do not survive a fork.
    Ctrl-C is left to the parent: they are born deaf to it. What they decode at once is bounded by
    one budget for all of them.
    """
    context = multiprocessing.get_context("spawn")
    budget = Budget(context.Lock(), context.Semaphore(Budget.pieces()))
    pool = ProcessPoolExecutor(workers, context, _begin, (budget,))
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for _ in range(workers):  # each of these starts a process
            pool.submit(int)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
    return pool


def _begin(budget: Budget) -> None:
    """Die with the parent, where Linux can be asked to see to it, and decode quietly in its bounds."""
    use_budget(budget)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
