"""Processes of our own that leave nothing behind: started fresh, and gone when their parent is."""

from __future__ import annotations

import ctypes
import signal
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any, TypeVar

from breeds.machine import cores as cores
from breeds.started import begin

R = TypeVar("R")


class _Fresh(SpawnProcess):
    """A new process that knows nothing of the parent's main program, and is born deaf to Ctrl-C.

    Python's own would run the main program again in the child, to find what was defined there: it
    fails where that came from standard input, and does its work twice where nothing guards it.
    What runs in our processes is defined in modules.
    """

    def start(self) -> None:
        main = sys.modules["__main__"]
        heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = main
            signal.pthread_sigmask(signal.SIG_SETMASK, heard)


class _FreshContext(SpawnContext):
    Process = _Fresh


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of new processes, which share nothing with this one and end with it.

    They are started, not forked, as threads of TensorFlow and OpenVINO do not survive a fork.
    Ctrl-C is left to the parent.
    """
    context = _FreshContext()
    pool = ProcessPoolExecutor(workers, context, _begin)
    for _ in range(workers):  # each of these starts a process
        pool.submit(int)
    return pool


def run_alone(function: Callable[..., R], *arguments: Any) -> R:
    """Return what a function returns that runs in a new process, which ends with this one whatever ends it.

    Raises
    ------
    concurrent.futures.BrokenExecutor
        If the process was killed.
    """
    with process_pool(1) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except KeyboardInterrupt:
            kill(pool)
            raise


def kill(pool: ProcessPoolExecutor) -> None:
    """Kill the pool's processes, whatever they are at."""
    for process in list((pool._processes or {}).values()):
        process.kill()


def _begin() -> None:
    """Die with the parent, where Linux can be asked to see to it, and be quiet."""
    begin()
    warnings.simplefilter("ignore")  # of what libraries warn in here nobody can mend anything
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
