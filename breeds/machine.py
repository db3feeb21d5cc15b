"""Cores, memory, threads that work ahead, a process of its own for a function, and quiet around libraries."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from breeds.errors import BreedsError, PhotoError
from breeds.started import begin, commanded

T = TypeVar("T")
R = TypeVar("R")


class Ahead(Protocol):
    """Yields every item, in order, with what a function gives for it, somewhere else and ahead of time."""

    def __call__(
        self, function: Callable[[T], R], items: Iterable[T], /
    ) -> Iterator[tuple[T, R | PhotoError]]:
        """Begin."""
        ...


# Below which level TensorFlow says nothing; it looks when it says the first thing.
_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_CHILD = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from breeds.machine import answer; answer(int(sys.argv[1]))"
)


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


def run_ahead(
    pool: Executor, function: Callable[[T], R], items: Iterable[T], window: int
) -> Iterator[tuple[T, R]]:
    """Yield every item with its result, in order, with at most `window` of them under way."""
    under_way: deque[tuple[T, Future[R]]] = deque()
    try:
        for item in items:
            under_way.append((item, pool.submit(function, item)))
            if len(under_way) == window:
                first, future = under_way.popleft()
                yield first, future.result()
        while under_way:
            first, future = under_way.popleft()
            yield first, future.result()
    finally:
        for _, future in under_way:
            future.cancel()


def run_alone(function: Callable[..., R], *arguments: Any) -> R:
    """Return what a module's function returns in a new process, which ends with this one whatever ends it.

    It is no process of `multiprocessing`, which would run the caller's main program again in the child: that
    fails where the program came from standard input, and does its work twice where nothing guards it.

    Raises
    ------
    concurrent.futures.BrokenExecutor
        If the process was killed.
    """
    reader, writer = os.pipe()
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is left to this process
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(writer)], stdin=subprocess.PIPE, pass_fds=(writer,)
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        os.close(writer)
    with child, open(reader, "rb") as answers:
        try:
            assert child.stdin is not None
            try:
                with child.stdin:
                    child.stdin.write(pickle.dumps(sys.path))
                    child.stdin.write(pickle.dumps((function, arguments)))
            except BrokenPipeError:  # it is gone, as is seen below
                pass
            found = answers.read()
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        raise BrokenExecutor(f"a process of our own has ended with {child.returncode}")
    succeeded, result = pickle.loads(found)
    if not succeeded:
        raise result
    return result  # type: ignore[no-any-return]


def answer(writer: int) -> None:
    """Run what `run_alone` sends, in the child: quietly, and, on Linux, to die with the parent."""
    begin()
    warnings.simplefilter("ignore")  # of what libraries warn in here nobody can mend anything
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    function, arguments = pickle.load(sys.stdin.buffer)
    try:
        found = True, function(*arguments)
    except Exception as error:
        if not isinstance(error, BreedsError):
            error.add_note(traceback.format_exc())
        found = False, error
    with open(writer, "wb") as answers:
        pickle.dump(found, answers)


@contextmanager
def _asked_to_be_quiet() -> Iterator[None]:
    before = os.environ.get(_LEVEL)
    os.environ.setdefault(_LEVEL, "3")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_LEVEL, None)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the block writes to stdout and stderr to itself, but show it if the block crashes.

    In another program only TensorFlow is asked to be quiet: the streams are that program's, and its threads'.
    """
    if not commanded():
        with _asked_to_be_quiet():
            yield
        return
    os.environ.setdefault(_LEVEL, "3")
    sys.stdout.flush()
    sys.stderr.flush()
    stdout, stderr = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 1)
        os.dup2(chatter.fileno(), 2)
        try:
            yield
        except BreedsError:
            raise
        except BaseException:
            chatter.seek(0)
            os.write(stderr, chatter.read())
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            os.close(stdout)
            os.close(stderr)
