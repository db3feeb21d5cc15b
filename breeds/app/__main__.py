"""``python -m breeds.app``: the model's pages in the browser, and an endpoint for programs."""

from __future__ import annotations

if __name__ == "__main__":  # before all else: Ctrl-C ends it quietly
    import os
    import signal

    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, lambda *_: os._exit(0))

import argparse
import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from breeds.backbones.registry import ENGINE_CHOICES
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
    _on_signals(lambda: None)
    arguments = parser().parse_args()
    from breeds.app.guard import is_loopback

    if not is_loopback(arguments.host):
        if not arguments.token:
            raise BreedsError(
                f"--host {arguments.host} lets others on the network use this application and see the "
                f"photos: name a --token that they need, or leave --host out."
            )
        say(f"others who reach {arguments.host} and know the token can use this, see the photos and change "
            f"what can be changed; what is sent is not encrypted", file=sys.stderr)  # fmt: skip
    model_path = arguments.model or common.newest(common.MODELS, "*.safetensors", command("train"))
    from breeds.app.desk import Desk
    from breeds.app.guard import Secrets
    from breeds.app.server import guarded, listen, make_app, make_server, serve
    from breeds.app.site import Site
    from breeds.app.uploads import Uploads
    from breeds.app.workshop import Workshop

    listening = listen(arguments.host, arguments.port)
    workshop = Workshop(model_path, arguments.store)
    if workshop.model.config.weights == "random":
        say("the model rests on random weights: its answers say nothing about real dogs", file=sys.stderr)
    uploads = Uploads(arguments.max_upload)
    _on_signals(uploads.close)
    desk = Desk(workshop.model, arguments.engine, arguments.workers)
    known = Secrets(arguments.token or "")
    site = Site(workshop, desk, uploads, known, None if arguments.no_network else _fetch)
    port = listening.getsockname()[1]
    app = guarded(make_app(site), arguments.host, port)
    desk.start()
    threading.Thread(target=workshop.warm_up, daemon=True).start()
    workshop.watch()
    site.review.prepare(lambda: not (desk.warm or desk.failure))
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    say(f"Breeds is at http://{host}:{port}/ (Ctrl-C ends it)")
    sys.stdout.flush()
    asyncio.run(serve(make_server(app), listening))
    return 0


def _fetch(url: str, stop: threading.Event) -> bytes:
    from breeds.photos.web import fetch  # who asks for nothing from the web does not load what does

    return fetch(url, stop=stop)


def _on_signals(close: Callable[[], None]) -> None:
    """End at once on Ctrl-C: what computes is left, and `close` removes what is to be removed."""

    def end(*_: object) -> NoReturn:
        close()
        common.leave(0)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


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


if __name__ == "__main__":
    common.run(main)
