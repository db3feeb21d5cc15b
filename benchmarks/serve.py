"""The application under load: photos/s against its engine alone, how long an answer takes, and its memory."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from table import child, report, show

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def run_alone(model_path: str, count: str, *photos: str) -> None:
    """Print photos/s of the engine and its decoding threads, as the application opens it, without any HTTP."""
    from breeds.backbones.pipeline import Pipeline
    from breeds.backbones.resolve import open_network
    from breeds.heads.model import Model
    from breeds.machine import cores
    from breeds.photos import FilePhoto, key_of

    model = Model.load(Path(model_path))
    keyed = [(key_of(FilePhoto(path).read()), FilePhoto(path)) for path in photos]
    opener = partial(open_network, model, model.parts[0], None, "auto", cores() <= 4)
    with Pipeline(opener, max(2, os.cpu_count() or 2)) as pipeline:
        list(pipeline.features(keyed[:4], model.config))
        started = time.perf_counter()
        asked = list(islice(cycle(keyed), int(count)))
        assert len(list(pipeline.features(asked, model.config))) == int(count)
        report(rate=int(count) / (time.perf_counter() - started))


@contextmanager
def serving(model: Path):
    """Run the application and yield its process and port, once the network is open."""
    command = [sys.executable, "-m", "breeds.app", "--model", str(model.absolute()), "--port", "0"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as process:
        assert process.stdout
        port = int(process.stdout.readline().split("http://")[1].split("/")[0].rpartition(":")[2])
        while not ask(port, "GET", "/api/health")[1]["warm"]:
            time.sleep(0.2)
        try:
            yield process, port
        finally:
            process.terminate()


def ask(
    port: int, method: str, path: str, body: bytes = b"", connection: http.client.HTTPConnection | None = None
):
    """Send one request and return the status and what the JSON says."""
    connection = connection or http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Content-Type": "multipart/form-data; boundary=b"} if body else {}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def body_of(photo: bytes) -> bytes:
    """Return a body with one photo."""
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    return head + photo + b"\r\n--b--\r\n"


def load(port: int, clients: int, requests: int, bodies: list[bytes]) -> tuple[float, list[float]]:
    """Let some clients send one photo after the other; return photos/s and the seconds of each answer."""
    taken: list[float] = []
    numbers = iter(range(requests))
    lock = threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            started = time.perf_counter()
            status, (row,) = ask(port, "POST", "/api/predict", bodies[number % len(bodies)], connection)
            assert status == 200 and row["error"] is None, row
            taken.append(time.perf_counter() - started)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == requests
    return requests / (time.perf_counter() - started), taken


def resident(process: subprocess.Popen[str]) -> float:
    """Return the memory that a process holds, in MB (Linux)."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def small_model(folder: Path) -> tuple[Path, list[Path]]:
    """Make a model of drawn photos on random weights at 96 pixels, where the network costs little."""
    from breeds.config import FeatureConfig
    from breeds.extraction import extract
    from breeds.features import Store
    from breeds.sample import write_samples
    from breeds.selection import Selection
    from breeds.training import train

    write_samples(folder / "photos", per_breed=6)
    extract(
        Selection(folder / "photos"), folder / "features/photos.h5", FeatureConfig(weights="random", size=96)
    )
    train(Store(folder / "features/photos.h5"), C=0.01).save(folder / "models/photos.safetensors")
    return folder / "models/photos.safetensors", sorted((folder / "photos").rglob("*.jpg"))


def main() -> None:
    """Measure, and print the tables."""
    if sys.argv[1:2] == ["--alone"]:
        run_alone(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", type=Path, help="the model to serve (default: one of drawn photos, made first)"
    )
    parser.add_argument("--photos", type=Path, help="a folder of photos to send (default: those)")
    parser.add_argument("--requests", type=int, default=400, help="for each number of clients")
    parser.add_argument(
        "--memory", type=int, default=10_000, help="requests over which memory is watched, 0 for none"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        small, drawn = small_model(Path(made)) if arguments.memory or not arguments.model else (None, [])
        model = arguments.model or small
        photos = sorted(arguments.photos.rglob("*.jpg"))[:200] if arguments.photos else drawn
        under_load(model, photos, arguments.requests)
        if arguments.memory:
            memory(small, drawn, arguments.memory)


def under_load(model: Path, photos: list[Path], requests: int) -> None:
    """Print photos/s and seconds for 1, 8 and 32 clients."""
    paths = [str(path) for path in photos[:50]]
    rows = []
    for clients in (1, 8, 32):
        alone = child(__file__, "--alone", str(model), str(min(requests, 200)), *paths)["rate"]
        with serving(model) as (process, port):
            bodies = [body_of(path.read_bytes()) for path in photos]
            load(port, 4, 20, bodies)
            rate, taken = load(port, clients, requests, bodies)
            slow = statistics.quantiles(taken, n=20)[-1]
            row = (str(clients), rate, f"{rate / alone:.0%}", 1000 * statistics.median(taken), 1000 * slow)
            rows.append((*row, resident(process)))
    show(("clients", "photos/s", "of the engine alone", "median ms", "95 % within ms", "MB"), rows)


def memory(model: Path, photos: list[Path], requests: int) -> None:
    """Print how much memory the process holds as requests go by."""
    bodies = [body_of(path.read_bytes()) for path in photos]
    rows = []
    with serving(model) as (process, port):
        done = 0
        for _ in range(10):
            load(port, 8, requests // 10, bodies)
            done += requests // 10
            rows.append((f"{done:,}", resident(process)))
    show(("requests", "MB"), rows)


if __name__ == "__main__":
    main()
