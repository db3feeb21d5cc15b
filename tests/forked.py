"""Commands of Breeds in processes that are forked from one which has loaded the libraries they use.

Loading these is most of what a command on few photos costs. Each still is a process of its own, with its
arguments, folder, environment, streams and exit code, and imports Breeds itself; only what it would have
imported of other people's is there already. Run as a program this is the process that is forked: it loads
nothing before it is asked, has computed nothing, and ends when its stdin does.
"""

from __future__ import annotations

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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

#: Where the one process is, for all that share the tests.
ADDRESS = "BREEDS_TESTS_FORKED"
#: What a command may set in its environment and still be forked: other names may decide how libraries load.
HARMLESS = {"BREEDS_CACHE", "KERAS_HOME"}
_LOADED = (
    "numpy", "h5py", "PIL.Image", "safetensors.numpy", "scipy.linalg", "scipy.optimize",
    "sklearn.linear_model", "matplotlib.figure", "jinja2", "joblib", "threadpoolctl", "tqdm", "httpcore",
    "fastapi", "uvicorn",
)  # fmt: skip


@contextmanager
def serving(folder: Path) -> Iterator[None]:
    """Have the process that is forked, for as long as the block lasts."""
    address = folder / "forked"
    process = subprocess.Popen(
        [sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin and process.stdout
    assert process.stdout.readline() == b"ready\n"
    os.environ[ADDRESS] = str(address)
    try:
        yield
    finally:
        del os.environ[ADDRESS]
        process.stdin.close()
        process.stdout.close()
        process.wait(60)


def run(
    target: list[str], cwd: Path, env: dict[str, str], given: str | None, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a script, or ``-m`` and a module, with arguments as `subprocess.run` does, and as quietly."""
    ours, theirs = zip(*(os.pipe() for _ in range(2)), strict=True)
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
    return subprocess.CompletedProcess(target, int(answer), *found)


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
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
            os.close(fd)
        return _become(**asked)
    for fd in (0, 1, 2, *fds):
        os.close(fd)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if select.select([connection], [], [], 0.005)[0]:
            os.kill(child, signal.SIGKILL)
    with contextlib.suppress(OSError):
        connection.sendall(b"%d" % os.waitstatus_to_exitcode(status))
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


if __name__ == "__main__":
    _serve(sys.argv[1])
