"""A photo from the web: fetched in bounded time and bytes, and only from machines that are public.

The guard stands where the connection is made: a name is looked up once, every address that it has is
checked, and the connection goes to one of those, after each redirect again. So no name can be one machine
while it is checked and another when it is asked. Proxies, passwords and cookies there are none.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import httpcore

from breeds import __version__
from breeds.errors import PhotoError
from breeds.photos.addresses import Target, is_public, parse

#: Addresses and ports that may be asked though they are not public.
Allowed = Collection[tuple[str, int]]

# How often a fetch that is waited for looks whether anybody still wants it, in seconds.
_STOPS = 0.1
# How many of a name's addresses are tried.
_TRIED = 4
# What may come beside the photo itself: heads of answers, redirects, lengths of chunks.
_BESIDE = 2**20
_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = {
    "Accept": "image/jpeg, image/png, image/webp, image/gif, image/bmp, image/tiff, */*;q=0.1",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": f"Breeds/{__version__}",
}


class Limits(NamedTuple):
    """What one fetch may take in all, redirects included."""

    size: int = 20 * 10**6
    seconds: float = 15
    redirects: int = 5


LIMITS = Limits()


def look_up(host: str) -> list[str]:
    """Return the addresses of a host, the best first.

    Raises
    ------
    OSError
        If there are none.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def fetch(
    url: str,
    *,
    stop: threading.Event | None = None,
    allow: Allowed = (),
    limits: Limits = LIMITS,
    resolve: Callable[[str], Iterable[str]] = look_up,
) -> bytes:
    """Fetch a photo: at most 20 MB, in 15 seconds and over five redirects, all together.

    What comes is a stranger's bytes, whatever its server calls them: `breeds.photos` judges them.

    Parameters
    ----------
    url
        An address of http or https.
    stop
        Once another thread sets it, fetching ends soon, with a `PhotoError`.
    allow
        Addresses with ports that may be asked though they are not public, such as ``("127.0.0.1", 8080)``:
        for tests that serve photos themselves. Nothing that a user can set leads here.
    limits, resolve
        What it may take, and how names are looked up; tests have others.

    Returns
    -------
    bytes
        The whole body, never empty.

    Raises
    ------
    PhotoError
        With the reason, whatever goes wrong.
    """
    clock = _Clock(limits)
    answer: SimpleQueue[bytes | PhotoError] = SimpleQueue()

    def work() -> None:
        try:
            answer.put(_follow(parse(url), _Guard(allow, resolve, clock), clock))
        except PhotoError as error:
            answer.put(error)
        except Exception as error:  # a server can make a library raise nearly anything
            answer.put(PhotoError(f"cannot be fetched ({type(error).__name__})"))

    # In a thread of its own, as nothing else ends a look-up in time; whoever waits is free when time is up.
    threading.Thread(target=work, name="fetch", daemon=True).start()
    try:
        while True:
            try:
                found = answer.get(timeout=min(_STOPS, clock.left()))
            except Empty:
                if stop is not None and stop.is_set():
                    raise PhotoError("was given up") from None
                continue
            if isinstance(found, PhotoError):
                raise found
            return found
    finally:
        clock.given_up = True


class _Clock:
    """What is left of the time and the bytes of one fetch; once given up, nothing."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.given_up = False
        self._end = time.monotonic() + limits.seconds
        self._received = 0

    def left(self) -> float:
        """Return the seconds that are left; never 0."""
        left = self._end - time.monotonic()
        if left <= 0 or self.given_up:
            raise self.too_slow()
        return left

    def receive(self, data: bytes) -> bytes:
        """Count what comes over the line."""
        self._received += len(data)
        if self._received > self.limits.size + _BESIDE:
            raise self.too_large()
        return data

    def too_slow(self) -> PhotoError:
        """Return what to say of a photo that takes too long."""
        return PhotoError(f"takes longer than {self.limits.seconds:g} s")

    def too_large(self) -> PhotoError:
        """Return what to say of a photo with too many bytes."""
        return PhotoError(f"is larger than {self.limits.size / 10**6:g} MB")


class _Guard(httpcore.NetworkBackend):
    """Makes connections, to addresses that were checked and to nothing else."""

    def __init__(self, allow: Allowed, resolve: Callable[[str], Iterable[str]], clock: _Clock) -> None:
        self._allow = allow
        self._resolve = resolve
        self._clock = clock
        self._plain = httpcore.SyncBackend()

    def connect_tcp(self, host: str, port: int, *_: object, **__: object) -> httpcore.NetworkStream:
        """Connect to the first address of `host` that answers, if all of them may be asked."""
        addresses = self._checked(host, port)[:_TRIED]
        for later in range(len(addresses) - 1, -1, -1):
            address = addresses[-1 - later]
            try:
                # An address of digits is looked up nowhere: this one is connected to.
                stream = self._plain.connect_tcp(address, port, self._clock.left() / (later + 1))
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if not later:
                    raise
                continue
            return _Stream(stream, self._clock)
        raise PhotoError(f"its host {host} has no address")

    def _checked(self, host: str, port: int) -> list[str]:
        try:
            addresses = list(self._resolve(host))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "no name that can be looked up"
            raise PhotoError(f"its host {host} cannot be found: {reason}") from None
        for address in addresses:
            if not is_public(address) and (address, port) not in self._allow:
                raise PhotoError(f"leads to {address}, which is no public address")
        return addresses


class _Stream(httpcore.NetworkStream):
    """A connection whose every step takes no more than what is left of the time and the bytes."""

    def __init__(self, inner: httpcore.NetworkStream, clock: _Clock) -> None:
        self._inner = inner
        self._clock = clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._clock.receive(self._inner.read(max_bytes, self._clock.left()))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._clock.left())

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = self._inner.start_tls(ssl_context, server_hostname, self._clock.left())
        return _Stream(inner, self._clock)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


@cache
def _trusted() -> ssl.SSLContext:
    """Return what certificates are checked against; to read it takes a while."""
    return httpcore.default_ssl_context()


def _follow(target: Target, guard: _Guard, clock: _Clock) -> bytes:
    """Return the body of what is at an address, or where its redirects lead."""
    for _ in range(clock.limits.redirects + 1):
        found = _ask(target, guard, clock)
        if isinstance(found, bytes):
            return found
        target = target.follow(found)
    raise PhotoError(f"leads on more than {clock.limits.redirects} times")


def _ask(target: Target, guard: _Guard, clock: _Clock) -> bytes | str:
    """Ask for one address; return what it holds, or the address that it leads to."""
    url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
    headers: list[tuple[bytes | str, bytes | str]] = [("Host", target.authority), *_HEADERS.items()]
    trusted = _trusted() if target.scheme == "https" else None
    with (
        _reasons("gives no answer of HTTP", clock),
        httpcore.ConnectionPool(trusted, network_backend=guard, max_keepalive_connections=0) as pool,
        pool.stream("GET", url, headers=headers) as response,
    ):
        if response.status in _REDIRECTS:
            return _location(response)
        if response.status != 200:
            raise PhotoError(f"the server answers {_meaning(response.status)}")
        with _reasons("ends before all of it was sent", clock):
            return _body(response, clock)


def _values(response: httpcore.Response, name: bytes) -> list[str]:
    found = [value for header, value in response.headers if header.lower() == name]
    return [value.decode("utf-8", "surrogateescape").strip(" \t") for value in found]


def _location(response: httpcore.Response) -> str:
    found = _values(response, b"location")
    if len(found) != 1:
        raise PhotoError("the server sends it elsewhere, and does not say where")
    return found[0]


def _meaning(status: int) -> str:
    """Return a status as people read it.

    Examples
    --------
    >>> _meaning(404), _meaning(599)
    ('404 (not found)', '599')
    """
    try:
        return f"{status} ({HTTPStatus(status).phrase.lower()})"
    except ValueError:
        return str(status)


def _body(response: httpcore.Response, clock: _Clock) -> bytes:
    """Return the body, as many bytes as it may have, as they were sent."""
    codings = {coding.lower() for coding in _values(response, b"content-encoding")} - {"identity", ""}
    if codings:
        raise PhotoError("the server sends it compressed, though it was asked not to")
    most = clock.limits.size
    # More than one length, or none that is a number, was refused by the library.
    if any(int(length) > most for length in _values(response, b"content-length")):
        raise clock.too_large()
    data = bytearray()
    for block in response.iter_stream():
        data += block
        clock.left()
        if len(data) > most:
            raise clock.too_large()
    if not data:
        raise PhotoError("empty file (0 bytes)")
    return bytes(data)


@contextmanager
def _reasons(invalid: str, clock: _Clock) -> Iterator[None]:
    """Make a reason of what can go wrong on the way; nothing of it repeats what a server has sent."""
    try:
        yield
    except httpcore.TimeoutException:
        raise clock.too_slow() from None
    except httpcore.ProtocolError:
        raise PhotoError(f"the server {invalid}") from None
    except httpcore.NetworkError as error:
        raise PhotoError(_failure(error)) from None


def _failure(error: httpcore.NetworkError) -> str:
    cause = error.args[0] if error.args else None  # the pool takes off the exception's own cause
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the server's certificate is not valid: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return "no encrypted connection to the server (TLS)"
    reason = getattr(cause, "strerror", None) or "the connection broke"
    return f"the server cannot be reached: {reason}"
