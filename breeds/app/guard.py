"""What every request passes before anything else sees it, and every answer after.

The application serves its own pages on this machine and programs that people run here. It is not for other
pages in the same browser: those can send requests to it, and by DNS rebinding make it look their own. So
the name that it is called by is checked, where a request comes from, its size, and how slowly it comes;
and every answer tells the browser what it must not do with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import secrets
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from breeds.app.uploads import RefusedError, too_large
from breeds.text import say

#: A body has to come at least as fast (bytes a second), with no pause longer than this (seconds).
SLOWEST, LONGEST_PAUSE = 20_000, 15.0
#: Seconds in which a piece of an answer has to be taken.
_TAKE_SECONDS = 30.0
#: How many headers a request may have.
MOST_HEADERS = 100
# How long what still comes of a refused body is passed over.
_DRAIN_SECONDS = 3.0
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
}
NO_STORE = "no-store"
WRONG = "Something went wrong here; the terminal says what."


@dataclass(frozen=True)
class Secrets:
    """What only those know who may.

    Attributes
    ----------
    access
        What every request has to bring, "" if none needs to.
    page
        Drawn for this process, and in every page: what changes something has to bring it.
    """

    access: str = ""
    page: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def check_page(self, token: str) -> None:
        """Make sure that what changes something was asked for by a page of ours.

        Raises
        ------
        RefusedError
            If not.
        """
        if not _same(token, self.page):
            raise RefusedError(403, "This page is of an earlier start of the application; load it again.")

    @property
    def cookie(self) -> str:
        """The value of the cookie that stands for `access`, which cannot be told from it."""
        return hashlib.sha256(f"cookie {self.access}".encode()).hexdigest()


class Guard:
    """The ASGI application around the application.

    Parameters
    ----------
    app
        What serves the requests that pass.
    host
        The host that it was told to serve on.
    names
        Further names of this machine by which it may be called.
    known
        What requests have to bring.
    most_bytes
        How many bytes a body may have.
    """

    def __init__(
        self, app: ASGIApp, host: str, names: Iterable[str], known: Secrets, most_bytes: int, port: int = 0
    ) -> None:
        self._app = app
        self._names = {"localhost", host.lower(), *(name.lower() for name in names)}
        self._loopback = is_loopback(host)
        self._known = known
        self._most_bytes = most_bytes
        self._cookie = f"breeds-{port}"  # a browser sends cookies to every port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            return
        exchange = _Exchange(scope, receive, send, self._most_bytes)
        try:
            headers = _unique_headers(scope)
            self._check_host(headers)
            if not await self._let_in(scope, headers, exchange):
                return
            self._check_origin(scope, headers)
            exchange.check_length(headers)
            inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
            await self._app(inner, exchange.receive, exchange.send)
        except Exception as error:
            await exchange.fail(error)

    def _check_host(self, headers: dict[str, str]) -> None:
        """Refuse what asks for another name: an attacker's, made to lead here."""
        name = _name_of(headers.get("host", ""))
        if name in self._names:
            return
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            address = None
        # Nobody but who is at an address can make a page there; other names can be made to lead to any.
        if address is None or (self._loopback and not address.is_loopback):
            raise RefusedError(421, "This application does not serve that name; use the address it printed.")

    async def _let_in(self, scope: Scope, headers: dict[str, str], exchange: _Exchange) -> bool:
        """Say whether to go on with a request; who brings the token in the address gets it as a cookie."""
        if not self._known.access:
            return True
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(token.strip(), self._known.access):
            return True
        if _same(_cookie(headers.get("cookie", ""), self._cookie), self._known.cookie):
            return True
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in query if name == "token"), "")
        if scope["method"] in _SAFE and _same(given, self._known.access):
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            path = "/" + scope["raw_path"].decode("ascii").lstrip("/\\")  # of this host, never another's
            cookie = f"{self._cookie}={self._known.cookie}; Path=/; HttpOnly; SameSite=Strict"
            await exchange.answer(
                303, "", {"location": path + (f"?{rest}" if rest else ""), "set-cookie": cookie}
            )
            return False
        raise RefusedError(
            401,
            "This needs the token that the application was started with: open /?token=TOKEN once, or send "
            "the header Authorization: Bearer TOKEN.",
        )

    def _check_origin(self, scope: Scope, headers: dict[str, str]) -> None:
        """Refuse what another page in the browser asks for; programs say nothing of an origin."""
        if scope["method"] in _SAFE:
            return
        origin = headers.get("origin")
        own = origin is None or origin.partition("://")[2] == headers.get("host", "")
        if not own or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise RefusedError(403, "Another page asked for this; only pages of this application may.")


class _Exchange:
    """A request and its answer: how the body is read, and what is sent."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, most_bytes: int) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._most_bytes = most_bytes
        self._received, self._started = 0, 0.0
        self._complete = scope["method"] in _SAFE  # nobody reads a body of these
        self._answered = self._ended = False

    def check_length(self, headers: dict[str, str]) -> None:
        """Refuse at once what says that it is too large."""
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._most_bytes:
            raise RefusedError(413, too_large(self._most_bytes))

    async def receive(self) -> Message:
        """Read the next piece of the body, within its bounds of size and time."""
        if self._complete:
            return await self._receive()
        now = asyncio.get_running_loop().time()
        self._started = self._started or now
        left = self._started + LONGEST_PAUSE + self._received / SLOWEST - now
        try:
            message = await asyncio.wait_for(self._receive(), max(0, min(left, LONGEST_PAUSE)))
        except TimeoutError:
            raise RefusedError(408, "The request came too slowly.") from None
        if message["type"] == "http.request":
            self._complete = not message.get("more_body", False)
            self._received += len(message.get("body", b""))
            if self._received > self._most_bytes:
                raise RefusedError(413, too_large(self._most_bytes))
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self._answered = True
            message = {**message, "headers": with_headers(message.get("headers", []))}
            if not self._complete:  # what still comes is no next request
                message["headers"].append((b"connection", b"close"))
        elif not message.get("more_body", False):
            self._ended = True
            if not self._complete:
                await self._take({**message, "more_body": True})
                await self._drain()
                message = {"type": "http.response.body", "body": b""}
        await self._take(message)

    async def _take(self, message: Message) -> None:
        try:
            await asyncio.wait_for(self._send(message), _TAKE_SECONDS)
        except TimeoutError:
            raise _CutError from None

    async def _drain(self) -> None:
        """Pass over what still comes of the body: who is still sending could not read the answer."""

        async def rest() -> None:
            while True:
                message = await self._receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return

        with suppress(TimeoutError):
            await asyncio.wait_for(rest(), _DRAIN_SECONDS)

    async def answer(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
        """Answer with a sentence."""
        data, kind = f"{sentence}\n".encode(), "text/plain; charset=utf-8"
        if self._scope["path"].startswith("/api/"):
            data, kind = json.dumps({"error": sentence}).encode(), "application/json"
        found = {"content-type": kind, "content-length": str(len(data)), **(headers or {})}
        raw = [(name.encode(), value.encode("latin-1")) for name, value in found.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})
        await self.send({"type": "http.response.body", "body": data})

    async def fail(self, error: Exception) -> None:
        """Answer for an error: of the request, or a defect of ours, which is told on the terminal."""
        if isinstance(error, _CutError):
            raise error
        if not isinstance(error, RefusedError):
            say(f"error: {self._scope['method']} {self._scope['path']}: {type(error).__name__}: {error}",
                file=sys.stderr)  # fmt: skip
        if self._ended:
            return
        if self._answered:
            raise _CutError from None
        if isinstance(error, RefusedError):
            await self.answer(error.status, error.sentence, error.headers)
        else:
            await self.answer(500, WRONG)


class _CutError(Exception):
    """The answer cannot be finished, or is not taken: the connection is cut."""


def with_headers(given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer with those that every answer has, where it has none of its own."""
    found = list(given)
    names = {name.lower() for name, _ in found}
    more = {**HEADERS, "cache-control": NO_STORE}
    return found + [(k.encode(), v.encode()) for k, v in more.items() if k.encode() not in names]


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _unique_headers(scope: Scope) -> dict[str, str]:
    """Return the headers; those that are decided by must not come twice."""
    if len(scope["headers"]) > MOST_HEADERS:
        raise RefusedError(431, f"The request has more than {MOST_HEADERS} headers.")
    found: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1").lower()
        if name in found and name in ("host", "origin", "authorization", "content-length", "sec-fetch-site"):
            raise RefusedError(400, f"The header {name} came twice.")
        found[name] = (
            value.decode("latin-1") if name not in found else f"{found[name]}; {value.decode('latin-1')}"
        )
    return found


def _name_of(host: str) -> str:
    """Return the name or address in a Host header, without the port.

    Examples
    --------
    >>> _name_of("Localhost:8000"), _name_of("[::1]:8000"), _name_of("::1")
    ('localhost', '::1', '')
    """
    if host.startswith("["):
        name, end, port = host[1:].partition("]")
        port = (port.removeprefix(":") if port else "0") if end else ""
    else:
        name, colon, port = host.partition(":")
        port = port if colon else "0"
    return name.lower().removesuffix(".") if port.isdecimal() else ""


def _cookie(header: str, name: str) -> str:
    pairs = (pair.strip().partition("=") for pair in header.split(";"))
    return next((value for found, _, value in pairs if found == name), "")


def _same(given: str, wanted: str) -> bool:
    """Compare in a time that says nothing of how much is right."""
    return bool(wanted) and hmac.compare_digest(given.encode(), wanted.encode())
