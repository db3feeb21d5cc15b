"""The application put together, and served on one address."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
from socket import socket as Socket  # noqa: N812
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from breeds import __version__
from breeds.app import api, look_page, pictures, review_page, teach_page, try_page
from breeds.app.connections import Connection
from breeds.app.desk import BusyError
from breeds.app.guard import WRONG, Guard
from breeds.app.site import LeftError, Site
from breeds.app.uploads import RefusedError
from breeds.errors import BreedsError
from breeds.report.answers import plain_json
from breeds.text import say

# How long the head of a request may be, in bytes.
_LONGEST_HEAD = 32 * 2**10
# What the bytes around the photos may come to: heads of parts, and boundaries.
_AROUND = 2**20
_PAGES = (try_page, look_page, review_page, teach_page)


def make_app(site: Site) -> FastAPI:
    """Return the application: its pages, the endpoint, and an answer for every error."""
    app = FastAPI(
        title="Breeds",
        version=__version__,
        description="What breed is it? Photos stay on this machine.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.site = site
    site.pages = [page.PAGE for page in _PAGES]
    for module in (api, pictures, *_PAGES):
        app.include_router(module.router)
    ours = (RefusedError, BusyError, BreedsError, LeftError)
    for kind in (*ours, ClientDisconnect, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _problem)
    return app


def guarded(app: FastAPI, host: str, port: int) -> ASGIApp:
    """Return the application behind its guard, as it is served at a host and a port."""
    site: Site = app.state.site
    names = () if host in ("127.0.0.1", "::1", "localhost") else (socket.gethostname(), socket.getfqdn())
    return Guard(app, host, names, site.known, site.uploads.most_bytes + _AROUND, port)


async def _problem(request: Request, error: Exception) -> Response:
    """Answer for an error: JSON for programs, a page for people."""
    status, sentence, headers = _told(error)
    if request.url.path.startswith("/api/"):
        return Response(plain_json({"error": sentence}), status, headers, "application/json")
    if request.url.path == "/card":
        return PlainTextResponse(sentence.encode("utf-8", "replace"), status, headers)
    site: Site = request.app.state.site
    response = site.page(request, "problem.html", status, sentence=sentence)
    response.headers.update(headers)
    return response


def _told(error: Exception) -> tuple[int, str, dict[str, str]]:
    match error:
        case RefusedError():
            return error.status, error.sentence, error.headers
        case BusyError():
            return 503, str(error), {"retry-after": str(error.seconds)}
        case BreedsError():
            return 503, str(error), {}
        case LeftError() | ClientDisconnect():
            return 499, "Nobody waits for this.", {}
        case HTTPException(status_code=404):
            return 404, "There is nothing at this address.", {}
        case HTTPException(status_code=405):
            return 405, "This address does not take that method.", dict(error.headers or {})
        case HTTPException():
            return error.status_code, str(error.detail), dict(error.headers or {})
        case RequestValidationError():
            where = error.errors()[0] if error.errors() else {}
            named = ".".join(str(part) for part in where.get("loc", ())[1:])
            return 400, f"{named or 'The request'}: {where.get('msg', 'is not what it should be')}.", {}
        case _:
            return 500, WRONG, {}


def listen(host: str, port: int) -> Socket:
    """Take a port of an address.

    Raises
    ------
    BreedsError
        If it is taken already, or there is no such address here.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except socket.gaierror:
        raise BreedsError(
            f"--host {host}: this machine has no such name or address; try 127.0.0.1."
        ) from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise BreedsError(
                f"Port {port} is taken on {host}, maybe by another of these; choose another with --port."
            ) from None
        raise BreedsError(f"Cannot serve on {host} port {port}: {os.strerror(error.errno or 0)}.") from None


def make_server(app: ASGIApp) -> uvicorn.Server:
    """Return what serves the application; it says nothing of its own."""
    for library in ("uvicorn", "python_multipart"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)  # what strangers send is no news
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=_LONGEST_HEAD,
    )
    return uvicorn.Server(config)


async def serve(server: uvicorn.Server, listening: Socket) -> None:
    """Serve until the process ends, or ``server.should_exit`` is set."""
    asyncio.get_running_loop().set_exception_handler(_tell)
    await server._serve([listening])  # without its own way with signals


def _tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if not isinstance(error, OSError):  # a connection that broke is no news
        say(f"error: {context.get('message')}: {error!r}", file=sys.stderr)
