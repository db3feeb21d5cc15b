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

from breeds.app.server import Guard, listen, make_app, make_server
from breeds.app.service import MOST_WAITING, InferenceService, Uploads
from breeds.app.site import Secrets, Site
from breeds.app.state import AppState
from breeds.backbones.resolve import open_network

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
        """What lies in the folder for temporary files, but for what the application has said."""
        return [path.name for path in self.temporary.iterdir() if path.name != "stderr"]


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
    opener: Callable[..., object] = open_network,
    token: str = "",
    most_bytes: int = 10**8,
    fetch: Callable[[str, threading.Event], bytes] | None = None,
    most_waiting: int = MOST_WAITING,
    classes: list[str] | None = None,
) -> Iterator[Served]:
    """The application in a thread of this process, where its parts can be reached.

    `opener` opens a stand-in for a network; `classes` are others than the model's own.
    """
    state = AppState(place / MODEL)
    state.now.model.classes = classes or state.now.model.classes
    service = InferenceService(state.now.model, "auto", 2, most_waiting, opener)  # type: ignore[arg-type]
    site = Site(state, service, Uploads(most_bytes), Secrets(token), fetch)
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = make_server(Guard(make_app(site), "127.0.0.1", port))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    service.start()
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{port}", place, temporary, site=site)
    finally:
        service.close()
        server.should_exit = server.force_exit = True
        thread.join(PATIENCE)


class Gate:
    """Stands in for a network: it computes one photo after the other, and only when it is let."""

    name = "gate"

    def __init__(self, width: int = 2048, photos: int = 0) -> None:
        self._width = width
        self._let = threading.Semaphore(1 + photos)  # for warming up
        self.computed = 0

    def open(self, *_: object, **__: object) -> Gate:
        """Be opened, as a network is."""
        return self

    def let(self, photos: int) -> None:
        self._let.release(photos)

    def stream(self, pixels: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        return (feature for feature, _ in self.stream_maps(pixels))

    def stream_maps(self, pixels: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for _ in pixels:
            assert self._let.acquire(timeout=PATIENCE)
            self.computed += 1
            map_ = np.zeros((2, 2, self._width), dtype=np.float32)
            yield map_[0, 0], map_


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
