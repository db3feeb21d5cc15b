"""``breeds app``: the model's pages in the browser, and an endpoint for programs."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from concurrent.futures import wait
from pathlib import Path

from breeds.backbones import ENGINE_CHOICES
from breeds.cli import common
from breeds.errors import BreedsError
from breeds.started import command
from breeds.text import say

_SHORTEST_TOKEN = 8


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = common.parser(
        "Try photos in the browser, on this machine; the same address answers programs (see /api there).",
        "app",
    )
    add = result.add_argument
    add("--model", metavar="FILE", type=Path, help="the model (default: the newest in models/)")
    add("--store", metavar="FILE", type=Path, help="the model's store (default: where it was at training)")
    add("--port", metavar="N", type=_port, default=8000, help="the port; 0 takes one that is free")
    add("--host", metavar="H", default="127.0.0.1",
        help="the address to serve on; another one than this machine's own demands --token")  # fmt: skip
    add("--token", metavar="T", type=_token,
        help="what every request has to bring: as Authorization: Bearer T, or once as /?token=T "
             "(default: none is needed)")  # fmt: skip
    add("--engine", default="auto", choices=ENGINE_CHOICES,
        help="what computes the features; auto is openvino where it works, else keras")  # fmt: skip
    add("--workers", metavar="N", type=common.workers, default=max(4, os.cpu_count() or 4),
        help="threads that read and decode photos")  # fmt: skip
    add("--max-upload", metavar="SIZE", type=common.size, default="200MB",
        help="how large the photos of one request may be altogether, in MB or GB")  # fmt: skip
    add("--no-network", action="store_true", default=False, help="fetch no photos from the web")
    return result


def main() -> int:
    """Serve until Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: common.leave(0))  # at once: what computes is left
    arguments = parser().parse_args()
    from breeds.app.server import Guard, is_loopback, listen, make_app, make_server

    if not is_loopback(arguments.host):
        if not arguments.token:
            raise BreedsError(
                f"--host {arguments.host} lets others on the network use this application and see the "
                f"photos: name a --token that they need, or leave --host out."
            )
        say(f"others who reach {arguments.host} and know the token can use this, see the photos and change "
            f"what can be changed; what is sent is not encrypted", file=sys.stderr)  # fmt: skip
    model_path = arguments.model or common.newest(common.MODELS, "*.safetensors", command("train"))
    from breeds.app.service import InferenceService, Uploads
    from breeds.app.site import Secrets, Site
    from breeds.app.state import AppState

    listening = listen(arguments.host, arguments.port)
    state = AppState(model_path, arguments.store)
    if state.now.model.config.weights == "random":
        say("the model rests on random weights: its answers say nothing about real dogs", file=sys.stderr)
    service = InferenceService(state.now.model, arguments.engine, arguments.workers)
    fetch = None if arguments.no_network else _fetch
    site = Site(state, service, Uploads(arguments.max_upload), Secrets(arguments.token or ""), fetch)
    port = listening.getsockname()[1]
    server = make_server(Guard(make_app(site), arguments.host, port))
    warm = service.start()

    def prepare() -> None:
        wait([warm])
        site.review.batches["check"].get(())  # later trainings are fast then, too

    threading.Thread(target=prepare, daemon=True).start()
    state.watch()
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    say(f"Breeds is at http://{host}:{port}/ (Ctrl-C ends it)")
    sys.stdout.flush()
    server.run(sockets=[listening])
    return 0


def _fetch(url: str, stop: threading.Event) -> bytes:
    from breeds.photos.web import fetch  # who asks for nothing from the web does not load what does

    return fetch(url, stop=stop)


def _port(text: str) -> int:
    number = common.natural(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, from 0 to 65535")
    return number


def _token(text: str) -> str:
    if len(text) < _SHORTEST_TOKEN or not (text.isascii() and text.isprintable()) or " " in text:
        raise argparse.ArgumentTypeError(
            f"a token has {_SHORTEST_TOKEN} characters or more, letters, digits and signs of ASCII"
        )
    return text
