"""What the tests of the application share: it runs, in a process of its own or in a thread of this one."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from conftest import ROOT

from breeds.app.desk import Desk
from breeds.app.guard import Secrets
from breeds.app.server import guarded, listen, make_app, make_server, serve
from breeds.app.site import Site
from breeds.app.uploads import Uploads
from breeds.app.workshop import Workshop

MODEL, STORE = "models/photos.safetensors", "features/photos.h5"
PATIENCE = 60


@dataclass
class Served:
    """A running application: its address, and where it runs."""

    url: str
    place: Path
    temporary: Path
    process: subprocess.Popen[str] | None = None
    site: Site | None = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False, **options)  # type: ignore[arg-type]

    def raw(self, data: bytes = b"") -> socket.socket:
        """A connection on which these bytes were sent."""
        found = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        found.sendall(data)
        return found

    def answer_to(self, data: bytes) -> bytes:
        """All that comes back for a request, until the other side closes."""
        with self.raw(data) as connection:
            return all_of(connection)

    def left(self) -> list[str]:
        """What lies in the application's temporary folder, but for its lock."""
        return [path.name for path in self.temporary.glob("breeds-app-*/*") if path.name != "lock"]


def all_of(connection: socket.socket) -> bytes:
    """All that still comes on a connection, until it is closed."""
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "breeds.app", *map(str, arguments)]


@contextmanager
def serving(place: Path, temporary: Path, *arguments: object) -> Iterator[Served]:
    """The application in a process of its own, as ``python -m breeds.app`` starts it."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    with (
        open(temporary / "stderr", "w") as errors,
        subprocess.Popen(
            command("--port", 0, *arguments),
            cwd=place,
            env=env,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "http://" in line, (temporary / "stderr").read_text()
            url = line.split("http://")[1].split()[0].rstrip("/")
            yield Served(f"http://{url}", place, temporary, process)
        finally:
            if process.poll() is None:
                process.kill()


@contextmanager
def serving_here(
    place: Path,
    temporary: Path,
    desk: Callable[[Workshop], Desk] | None = None,
    token: str = "",
    most_bytes: int = 10**8,
    fetch: Callable[[str, threading.Event], bytes] | None = None,
) -> Iterator[Served]:
    """The application in a thread of this process, where its parts can be reached."""
    workshop = Workshop(place / MODEL)
    uploads = Uploads(most_bytes, temporary)
    made = desk(workshop) if desk else Desk(workshop.model)
    site = Site(workshop, made, uploads, Secrets(token), fetch)
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = make_server(guarded(make_app(site), "127.0.0.1", port))
    thread = threading.Thread(target=lambda: asyncio.run(serve(server, listening)), daemon=True)
    made.start()
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{port}", place, temporary, site=site)
    finally:
        made.close()
        server.should_exit = server.force_exit = True
        thread.join(PATIENCE)
        uploads.close()


class Gate:
    """Stands in for a network: it computes one photo after the other, and only when it is let."""

    name = "gate"

    def __init__(self, width: int) -> None:
        self._width = width
        self._let = threading.Semaphore(0)
        self.computed = 0

    def let(self, photos: int) -> None:
        self._let.release(photos)

    def stream(self, pixels: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for _ in pixels:
            assert self._let.acquire(timeout=PATIENCE)
            self.computed += 1
            yield np.zeros(self._width, dtype=np.float32)


def gated(most_waiting: int = 1024) -> tuple[Gate, Callable[[Workshop], Desk]]:
    """A gate, and what makes a desk of it."""
    gate = Gate(2048)
    gate.let(1)  # for warming up

    def make(workshop: Workshop) -> Desk:
        desk = Desk(workshop.model, workers=2, most_waiting=most_waiting)
        desk._setup.network.opened = [gate]
        return desk

    return gate, make


def jpeg(seed: int = 0, size: tuple[int, int] = (64, 48)) -> bytes:
    """A small photo of noise, another one for every seed."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


def files(*photos: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    """Photos as httpx sends them."""
    return [("files", (f"{number}.jpg", data)) for number, data in enumerate(photos)]


def multipart(*parts: bytes, boundary: bytes = b"b0undary", end: bool = True) -> bytes:
    """A body of parts, each with its own head."""
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    return body + (b"--" + boundary + b"--\r\n" if end else b"")


def part(data: bytes, filename: bytes = b"a.jpg", name: bytes = b"files") -> bytes:
    """One part of a body."""
    return b'Content-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s' % (name, filename, data)
