"""Commands of Breeds in processes that are forked from one which has loaded the libraries they use.

Loading these is most of what a command on few photos costs. Each still is a process of its own, with its
arguments, folder, environment, streams and exit code, and imports Breeds itself; only what it would have
imported of other people's is there already, and Python's objects are not taken down one by one at its end,
which costs more than most commands. Run as a program this is the process that is forked: it loads
nothing before it is asked, has computed nothing, and ends when its stdin does.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

#: Where the one process is, for all that share the tests.
ADDRESS = "BREEDS_TESTS_FORKED"
#: What a command may set in its environment and still be forked: other names may decide how libraries load.
#: Folders of Python's path are looked into for whatever is not loaded yet, and proxies when one is asked.
HARMLESS = {"BREEDS_CACHE", "KERAS_HOME", "PYTHONPATH"} | {
    name for proxy in ("https_proxy", "all_proxy", "no_proxy") for name in (proxy, proxy.upper())
}
_LOADED = (
    "numpy", "h5py", "PIL.Image", "safetensors.numpy", "scipy.linalg", "scipy.optimize",
    "sklearn.linear_model", "matplotlib.figure", "jinja2", "joblib", "threadpoolctl", "tqdm", "httpcore",
    "fastapi", "uvicorn",
)  # fmt: skip


@contextmanager
def serving(folder: Path, **env: str) -> Iterator[None]:
    """Have the process that is forked, for as long as the block lasts; `env` is what it starts with too."""
    address, before = folder / "forked", os.environ.get(ADDRESS)
    process = subprocess.Popen(
        [sys.executable, __file__, address],
        env={**os.environ, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin and process.stdout
    assert process.stdout.readline() == b"ready\n"
    os.environ[ADDRESS] = str(address)
    try:
        yield
    finally:
        del os.environ[ADDRESS]
        if before is not None:
            os.environ[ADDRESS] = before
        process.stdin.close()
        process.stdout.close()
        process.wait(60)


class Ended(subprocess.CompletedProcess[str]):
    """How a command ended, and the most memory it had, in kB: what was loaded for it counts."""

    peak: int


def run(
    target: list[str],
    cwd: Path,
    env: dict[str, str],
    given: str | None,
    timeout: float,
    stdout: str = "",
) -> Ended:
    """Run a script, or ``-m`` and a module, with arguments as `subprocess.run` does, and as quietly.

    `stdout` is a file that it writes to instead.
    """
    ours, theirs = zip(*(os.pipe() for _ in range(2)), strict=True)
    if stdout:
        os.close(theirs[0])
        theirs = (os.open(stdout, os.O_WRONLY), theirs[1])
    stdin, feed = os.pipe()
    found = ["", ""]

    def read(number: int) -> None:
        with open(ours[number], encoding=None) as stream:
            found[number] = stream.read()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), open(feed, "w") as stream:
            stream.write(given or "")

    threads = [*(threading.Thread(target=read, args=(n,)) for n in range(2)), threading.Thread(target=write)]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(os.environ[ADDRESS])
        message = json.dumps({"target": target, "cwd": os.fspath(cwd), "env": env}).encode("ascii")
        socket.send_fds(connection, [len(message).to_bytes(8, "little")], [stdin, *theirs])
        for fd in (stdin, *theirs):
            os.close(fd)
        for thread in threads:
            thread.start()
        connection.sendall(message)
        try:
            answer = connection.recv(100)  # a timeout ends the connection, and that the process
        finally:
            connection.close()
    for thread in threads:
        thread.join(timeout)
    assert answer, "the forked process is gone"
    code, peak = map(int, answer.split())
    ended = Ended(target, code, *found)
    ended.peak = peak
    return ended


def _serve(address: str) -> None:
    """Fork for every connection, until stdin ends."""
    signal.signal(signal.SIGCHLD, _reap)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        print("ready", flush=True)
        loaded = False
        while 0 not in (ready := select.select([0, listening], [], [])[0]):
            if listening not in ready:
                continue
            connection, _ = listening.accept()
            if not loaded:
                _load()
                loaded = True
            if os.fork():
                connection.close()
                continue
            listening.close()
            return _attend(connection)
    return None


def _reap(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _load() -> None:
    import gc
    import importlib

    for name in _LOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _attend(connection: socket.socket) -> None:
    """Run what is asked for in one more fork, and tell how it ended; who asked may go away before."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, fds, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as stream:
        asked = json.loads(stream.read(int.from_bytes(size, "little")))
    child = os.fork()
    if not child:
        connection.close()
        os.setsid()  # there is no terminal, whatever the tests are started from
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
            os.close(fd)
        _end(lambda: _become(**asked))
    for fd in (0, 1, 2, *fds):
        os.close(fd)
    while True:
        ended, status, used = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if select.select([connection], [], [], 0.005)[0]:
            os.kill(child, signal.SIGKILL)
    with contextlib.suppress(OSError):
        connection.sendall(b"%d %d" % (os.waitstatus_to_exitcode(status), used.ru_maxrss))
    os._exit(0)


def _become(target: list[str], cwd: str, env: dict[str, str]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    path = [folder for folder in env.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[:] = [*path, *(folder for folder in sys.path if folder != os.path.dirname(__file__))]
    if target[0] == "-m":
        sys.path.insert(0, cwd)
        sys.argv[:] = target[1:]
        runpy.run_module(target[1], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, os.path.dirname(target[0]))
        sys.argv[:] = target
        runpy.run_path(target[0], run_name="__main__")


def _end(run: Callable[[], None]) -> NoReturn:
    """Run and end as Python does: threads, what is to be done at exit, what is still to be written."""
    code = 0
    try:
        try:
            run()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            code = 1
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except BaseException:
        code = 120
    os._exit(code & 0xFF)


if __name__ == "__main__":
    _serve(sys.argv[1])
