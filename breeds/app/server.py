"""The application put together, guarded, and served on one address.

It serves its own pages on this machine and programs that people run here. It is not for other pages in the
same browser: those can send requests to it, and by DNS rebinding make it look their own. So the name that it
is called by is checked, where a request comes from, and its size, before anything else sees it; and every
answer tells the browser what it must not do with it.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import re
import socket
import sys
from urllib.parse import parse_qsl, urlencode

import h11
import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from breeds import __version__
from breeds.app import look_page, review_page, site, try_page
from breeds.app.service import RefusedError
from breeds.app.site import LeftError, Site, is_same
from breeds.errors import BreedsError
from breeds.report.answers import plain_json
from breeds.text import say

# How long the head of a request may be, in bytes; how many connections and requests there are at once.
_LONGEST_HEAD, _MOST_CONNECTIONS = 32 * 2**10, 256
# What the bytes around the photos may come to: heads of parts, and boundaries.
_AROUND = 2**20
_SAFE = ("GET", "HEAD")
#: Kept by browsers, told with every answer.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # without any, a form's request would not say that it is our own
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


def make_app(parts: Site) -> FastAPI:
    """Return the application: its pages, the endpoint, and an answer for every error."""
    app = FastAPI(
        title="Breeds",
        version=__version__,
        description="What breed is it? Photos stay on this machine.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.site, app.state.look = parts, look_page.Look(parts.state)
    parts.pages = [try_page.PAGE, look_page.PAGE, *review_page.PAGES]
    for module in (site, try_page, look_page, review_page):
        app.include_router(module.router)
    ours = (RefusedError, BreedsError, LeftError)
    for kind in (*ours, ClientDisconnect, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _problem)
    return app


async def _problem(request: Request, error: Exception) -> Response:
    """Answer for an error: JSON for programs, a page for people."""
    status, sentence, headers = _told(error)
    if request.url.path.startswith("/api/"):
        return Response(plain_json({"error": sentence}), status, headers, "application/json")
    if request.url.path == "/card":
        return PlainTextResponse(sentence.encode("utf-8", "replace"), status, headers)
    parts: Site = request.app.state.site
    response = parts.page(request, "problem.html", status, sentence=sentence)
    response.headers.update(headers)
    return response


def _told(error: Exception) -> tuple[int, str, dict[str, str]]:
    match error:
        case RefusedError():
            return error.status, error.sentence, error.headers
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
            return 500, "Something went wrong here; the terminal says what.", {}


class Guard:
    """The application as it is served at a host and a port: what may not pass does not come to it."""

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        parts: Site = app.state.site
        self._app = app
        self._names = {"localhost", host.lower()}
        if host not in ("127.0.0.1", "::1", "localhost"):
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        self._loopback = is_loopback(host)
        self._known = parts.known
        self._most_bytes = parts.uploads.most_bytes + _AROUND
        megabytes = self._most_bytes // 10**6
        self._too_large = f"The request is larger than {megabytes} MB; send fewer photos at once."
        self._cookie = f"breeds-{port}"  # a browser sends the cookies of a host to every port of it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._most_bytes:
                raise RefusedError(413, self._too_large)
            return message

        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            answer = self._checked(Request(scope))
        except RefusedError as error:
            answer = _refusal(scope["path"], error)
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            await (answer or self._app)(inner, bounded, strict)
        except h11.LocalProtocolError:  # of a body that is no HTTP: uvicorn has said so meanwhile
            return
        except Exception as error:  # a defect of ours; a page that says so was sent already
            what = f"{scope['method']} {scope['path']}: {type(error).__name__}: {error}"
            say(f"error: {what}", file=sys.stderr)

    def _checked(self, request: Request) -> Response | None:
        """Return how a request is answered before anybody reads it, None if it may pass.

        Raises
        ------
        RefusedError
            If it may not.
        """
        self._check_host(request.headers.get("host", ""))
        if self._known.access and (answer := self._let_in(request)):
            return answer
        if request.method not in _SAFE:
            _check_origin(request)
        if int(request.headers.get("content-length", 0)) > self._most_bytes:
            raise RefusedError(413, self._too_large)
        return None

    def _check_host(self, host: str) -> None:
        """Refuse what asks for another name: an attacker's, made to lead here."""
        name = _name_of(host)
        if name in self._names:
            return
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            address = None
        # Nobody but who is at an address can make a page there; other names can be made to lead to any.
        if address is None or (self._loopback and not address.is_loopback):
            raise RefusedError(421, "This application does not serve that name; use the address it printed.")

    def _let_in(self, request: Request) -> Response | None:
        """Refuse who does not bring the token; who brings it in the address is sent on with a cookie."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and is_same(token.strip(), self._known.access):
            return None
        if is_same(request.cookies.get(self._cookie, ""), self._known.cookie):
            return None
        query = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in query if name == "token"), "")
        if request.method in _SAFE and is_same(given, self._known.access):
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            path = "/" + request.scope["raw_path"].decode("ascii").lstrip("/\\")  # of this host alone
            answer = Response(status_code=303, headers={"location": path + (f"?{rest}" if rest else "")})
            answer.set_cookie(self._cookie, self._known.cookie, httponly=True, samesite="strict")
            return answer
        raise RefusedError(
            401,
            "This needs the token that the application was started with: open /?token=TOKEN once, or send "
            "the header Authorization: Bearer TOKEN.",
        )


def _check_origin(request: Request) -> None:
    """Refuse what another page in the browser asks for; programs say nothing of an origin."""
    headers = request.headers
    origin = headers.get("origin")
    own = origin is None or origin.partition("://")[2] == headers.get("host", "")
    if not own or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise RefusedError(403, "Another page asked for this; only pages of this application may.")


def _refusal(path: str, error: RefusedError) -> Response:
    if path.startswith("/api/"):
        return JSONResponse({"error": error.sentence}, error.status)
    return PlainTextResponse(f"{error.sentence}\n", error.status)


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _name_of(host: str) -> str:
    """Return the name or address in a Host header, without the port.

    Examples
    --------
    >>> _name_of("Localhost:8000"), _name_of("[::1]:8000"), _name_of("::1")
    ('localhost', '::1', '')
    """
    match = re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*))(?::\d+)?", host)
    return (match[1] or match[2] or "").lower().removesuffix(".") if match else ""


def listen(host: str, port: int) -> socket.socket:
    """Take a port of an address.

    Raises
    ------
    BreedsError
        If it is taken already, or there is no such address here.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, address = found[0]
        # Named by its protocol, asyncio lets no packet wait for the one before (Nagle): 40 ms an answer.
        listening = socket.socket(family, kind, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address[:2])
        listening.listen(128)
        return listening
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
    """Return what serves the application, within uvicorn's limits; it says nothing of its own."""
    for library in ("uvicorn", "python_multipart", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)  # what strangers send is no news
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=_LONGEST_HEAD,
        )
    )
