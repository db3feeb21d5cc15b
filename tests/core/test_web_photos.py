"""Photos from the web: what is fetched, from whom, within which bounds; against real servers on this machine.

The servers are on the loopback interface, which only the argument `allow` opens, and which nothing that a
user can set gives.
"""

from __future__ import annotations

import ast
import base64
import gzip
import io
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_refused
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_answers_page import cards_of
from test_predict import model, place, quick_engine, script, unseen  # noqa: F401

from breeds.errors import BreedsError, PhotoError
from breeds.heads.model import Model
from breeds.photos import FilePhoto, decode, picture
from breeds.photos.addresses import LONGEST_URL, is_public, parse
from breeds.photos.inputs import AHEAD, list_inputs
from breeds.photos.web import Limits, fetch
from breeds.prediction import predict

# Twelve photos are few for scikit-learn's solver, and enough here.
pytestmark = pytest.mark.filterwarnings("ignore:.*[Ll]ine [Ss]earch")

#: What a test waits for at most where nothing should be waited for.
QUICK = Limits(size=200_000, seconds=5)
HASTY = Limits(size=200_000, seconds=0.5)

#: What a path is answered with: bytes, or what writes to the connection until it is closed.
Answer = bytes | Callable[[socket.socket], None]


def ok(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def leads_to(where: str, status: str = "302 Found") -> bytes:
    return ok(b"", f"Location: {where}", status=status)


class Server:
    """A server whose answers are written by hand, byte for byte; it notes what it was asked."""

    def __init__(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[bytes] = []
        self.closing = threading.Event()
        self._tls = tls
        self._listener = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
        self.port: int = self._listener.getsockname()[1]
        self.allow = {(host, self.port)}
        self.url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            head = b""
            while b"\r\n\r\n" not in head:
                block = connection.recv(65536)
                if not block:
                    return
                head += block
            self.asked.append(head)
            answer = self.answers.get(head.split()[1].decode(), ok(b"", status="404 Not Found"))
            if callable(answer):
                answer(connection)
            else:
                connection.sendall(answer)
        except OSError:  # who asked has gone
            pass
        finally:
            connection.close()

    def close(self) -> None:
        self.closing.set()
        self._listener.close()


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """Whatever a server does, what fetches ends when its time is up, and does not only go unheard."""
    yield
    end = time.monotonic() + 2
    while any(thread.name == "fetch" for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def server(nothing_goes_on: None) -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="module")
def photo(drawn_photos: Path) -> bytes:
    return next(iter(sorted(drawn_photos.rglob("*.jpg")))).read_bytes()


def short(value: object) -> str:
    """Name a test's argument, which may be half a megabyte."""
    return repr(value)[:50]


def reason(url: str, **options: object) -> str:
    """Why there is nothing at an address; it must be said soon."""
    started = time.monotonic()
    with pytest.raises(PhotoError) as found:
        fetch(url, **{"limits": QUICK, **options})  # type: ignore[arg-type]
    assert time.monotonic() - started < 4
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 300
    return str(found.value)


# which addresses are public


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254",
        "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
        "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:a00:1", "::127.0.0.1",
        "::ffff:0:127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808", "100::1", "2001::1", "2001:0:a00:1::", "2001:db8::1", "2002:7f00:1::",
        "2002:808:808::", "3fff::1", "5f00::1", "fc00::1", "fd12::1", "fe80::1", "fe80::1%eth0", "fec0::1",
        "ff02::1", "ff0e::1", "2606:4700::1%1", "localhost", "", "8.8.8.8 ", "0x08.8.8.8", "08.8.8.8",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "1.1.1.1",
        "172.32.0.1",
        "100.128.0.1",
        "2606:4700::1111",
        "2a00:1450::1",
        "64:ff9b::8.8.8.8",
    ],
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


# which addresses of the web are taken


@pytest.mark.parametrize(
    "url",
    [
        "http://", "http:///a", "http://:80/", "http://a:/", "http://a:0/", "http://a:65536/", "http://a:+80/",
        "http://a:8 0/", "http://user@a/", "http://user:secret@a/", "http://@a/", "http://a\\@b/",
        "http:\\\\a/", "http://a/\r\nX: y", "http://a/\n", "http://a/\x1b[2J", "http://a/\x00", "http://a b/",
        "http://a/b c", "http://a\t/", "http://a/\xa0", "http://a/\u2028", "http://a/\udce9", "http://%31%32%37.0.0.1/",
        "http://a%00b/", "http://[::1]b/", "http://[::1", "http://[fe80::1%25eth0]/", "http://[v1.a]/",
        "http://[127.0.0.1]/", "http://a..b/", "http://.a/", "http://a../", "http://" + "a" * 64 + "/",
        "http://" + ".".join(["a" * 60] * 5) + "/", "http://a/" + "b" * LONGEST_URL, "http://a,b/", "http://[::g]/",
        "http://a\u2100b/", "http://xn--\u00fc/", "http://\u00fc" + "a" * 300 + "/",
        "ftp://a/", "file:///etc/passwd", "//a/", "a", "", "javascript:alert(1)", "data:image/png,x", "gopher://a/",
    ],
    ids=short,
)  # fmt: skip
def test_addresses_that_are_refused_are_never_looked_up(url: str) -> None:
    asked: list[str] = []
    assert reason(url, resolve=lambda host: asked.append(host) or ["8.8.8.8"])
    assert not asked


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("HTTP://Example.COM", ("http", "example.com", 80, "/")),
        ("https://example.com.:8443/a%20b?c=d&e#f", ("https", "example.com", 8443, "/a%20b?c=d&e")),
        ("http://[2606:4700:0:0::1]:80/", ("http", "2606:4700::1", 80, "/")),
        ("https://bücher.example/ü?ß={1}", ("https", "xn--bcher-kva.example", 443, "/%C3%BC?%C3%9F=%7B1%7D")),
        ("http://a_b.example/~x/[1].jpg?u=http://b/", ("http", "a_b.example", 80, "/~x/[1].jpg?u=http://b/")),
    ],
)
def test_addresses_are_taken_apart(url: str, wanted: tuple[str, str, int, str]) -> None:
    found = parse(url)
    assert (found.scheme, found.host, found.port, found.path) == wanted
    assert parse(found.url) == found


PIECES = [*"/:@.?#[]%\\ab0x-\n\t\x1b ü。１", "http://", "https:", "127.0.0.1"]


@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join))
@settings(max_examples=300)
def test_whatever_is_taken_is_read_in_one_way(text: str) -> None:
    for url in (text, f"http://{text}"):
        try:
            found = parse(url)
        except PhotoError:
            continue
        assert found.url.isascii()
        assert found.url.isprintable()
        assert " " not in found.url
        assert not {*"@\\/?#%"} & {*found.host}
        assert parse(found.url) == found


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1",
        "127.0.0.1.", "localhost", "LOCALHOST.", "0", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]", "１２７。０。０。１", "169.254.169.254", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
        "10.0.0.1", "[fe80::1]",
    ],
)  # fmt: skip
def test_no_way_of_writing_an_address_leads_to_this_machine(host: str) -> None:
    found = reason(f"http://{host}:9/")
    assert "is no public address" in found or "cannot be found" in found  # where there is no IPv6


def test_the_reason_names_the_address() -> None:
    assert reason("http://127.0.0.1/a.jpg") == "leads to 127.0.0.1, which is no public address"


# who is asked


def test_what_is_fetched_and_what_is_asked(
    server: Server, photo: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\ndefault login a password b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    server.answers["/a.jpg?b"] = leads_to("/c", "301 Moved").replace(
        b"\r\n\r\n", b"\r\nSet-Cookie: d=e\r\n\r\n"
    )
    server.answers["/c"] = ok(photo, "Content-Type: text/plain; charset=utf-8")
    data = fetch(f"{server.url}/a.jpg?b#f", allow=server.allow)
    assert data == photo  # a photo that is served as text is one
    assert decode(data, 32).shape == (32, 32, 3)
    for head in server.asked:
        lines = head.decode().lower().split("\r\n")
        assert f"host: 127.0.0.1:{server.port}" in lines
        assert "accept-encoding: identity" in lines
        assert not any(line.startswith(("cookie", "authorization", "referer")) for line in lines)


def test_the_address_that_is_asked_is_the_one_that_was_checked(server: Server, photo: bytes) -> None:
    """A name that changes its mind: it is looked up once for each connection, and never again."""
    server.answers["/a"] = ok(photo)
    given: list[list[str]] = [["127.0.0.1"], ["127.0.0.2"]]
    looked_up: list[str] = []

    def resolve(host: str) -> list[str]:
        looked_up.append(host)
        return given[len(looked_up) - 1]

    url = f"http://dogs.example:{server.port}/a"
    assert fetch(url, allow=server.allow, resolve=resolve) == photo
    assert looked_up == ["dogs.example"]
    assert b"Host: dogs.example" in server.asked[0]
    assert (
        reason(url, allow=server.allow, resolve=resolve) == "leads to 127.0.0.2, which is no public address"
    )
    assert len(server.asked) == 1


def test_a_redirect_to_the_same_name_is_looked_up_and_checked_again(server: Server) -> None:
    server.answers["/a"] = leads_to("/b")
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    found = reason(
        f"http://dogs.example:{server.port}/a", allow=server.allow, resolve=lambda _: next(answers)
    )
    assert found == "leads to 10.0.0.1, which is no public address"
    assert len(server.asked) == 1


@pytest.mark.parametrize("other", ["10.0.0.1", "::1", "fe80::1%lo", "::ffff:127.0.0.1", "not an address"])
@pytest.mark.parametrize("first", [True, False])
def test_a_name_with_one_private_address_is_not_asked(server: Server, other: str, first: bool) -> None:
    addresses = [other, "127.0.0.1"] if first else ["127.0.0.1", other]
    found = reason(f"http://a.example:{server.port}/", allow=server.allow, resolve=lambda _: addresses)
    assert found == f"leads to {other}, which is no public address"
    assert not server.asked


def test_the_next_address_is_tried_where_one_does_not_answer(server: Server, photo: bytes) -> None:
    server.answers["/"] = ok(photo)
    allow = {*server.allow, ("127.0.0.9", server.port)}
    addresses = ["127.0.0.9", "127.0.0.1"]
    assert fetch(f"http://a.example:{server.port}", allow=allow, resolve=lambda _: addresses) == photo


def test_what_is_allowed_is_one_port_of_one_address(server: Server) -> None:
    assert "127.0.0.1" in reason(f"http://127.0.0.1:{server.port + 1}/", allow=server.allow)
    assert "127.0.0.2" in reason(f"http://127.0.0.2:{server.port}/", allow=server.allow)


@pytest.mark.slow
def test_nothing_but_tests_allows_what_is_not_public() -> None:
    """No module and no script gives `allow`, but for the one that takes it."""
    files = [*(ROOT / "breeds").rglob("*.py"), *ROOT.glob("*.py")]
    assert len(files) > 50
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        given = [node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "allow"]
        assert not given, path
        if path != ROOT / "breeds" / "photos" / "web.py":
            assert "_Guard" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize(
    "where",
    [
        "http://10.0.0.1/", "http://localhost/", "http://127.0.0.1/", "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/", "http://[::ffff:10.0.0.1]/", "http://[fe80::1]/", "//192.168.0.1/", "http://0x7f.1/",
        "http://127.0.0.1:1/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", ["301 Moved Permanently", "307 Temporary Redirect"])
def test_redirects_to_machines_that_are_not_public(server: Server, where: str, status: str) -> None:
    server.answers["/"] = leads_to(where, status)
    found = reason(server.url, allow=server.allow)
    assert "is no public address" in found or "cannot be found" in found
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "where",
    [
        "file:///etc/passwd", "ftp://example.com/a", "javascript:alert(1)", "gopher://a/", "http://a:b@c/",
        "http://a/\\b", "https:", "http://[::1", "/a b", "\xa0", "http://a/" + "b" * LONGEST_URL, "data:,x",
    ],
    ids=short,
)  # fmt: skip
def test_redirects_to_what_is_not_taken(server: Server, where: str) -> None:
    server.answers["/"] = leads_to(where)
    assert reason(server.url, allow=server.allow).startswith("is sent on to an address that is not taken: ")


def test_redirects_are_five_at_most(server: Server, photo: bytes) -> None:
    server.answers |= {f"/{n}": leads_to(f"{n - 1}") for n in range(1, 8)} | {"/0": ok(photo)}
    server.answers["/round"] = leads_to("/round")
    assert fetch(f"{server.url}/5", allow=server.allow) == photo
    assert reason(f"{server.url}/6", allow=server.allow) == "leads on more than 5 times"
    del server.asked[:]
    assert reason(f"{server.url}/round", allow=server.allow) == "leads on more than 5 times"
    assert len(server.asked) == 6


@pytest.mark.parametrize("lines", [[], ["Location: /a", "Location: /b"]])
def test_a_redirect_has_one_place_to_go(server: Server, lines: list[str]) -> None:
    server.answers["/"] = ok(b"", *lines, status="302 Found")
    assert "does not say where" in reason(server.url, allow=server.allow)


# within which bounds


def endless(start: bytes, more: bytes, pause: float = 0) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(more)
            time.sleep(pause)

    return answer


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "start",
    [HEAD + b"\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\n", HEAD + b"Content-Length: 200001\r\n\r\n"],
)
def test_a_body_without_end(server: Server, start: bytes) -> None:
    server.answers["/"] = endless(start, b"ff\r\n" + b"x" * 255 + b"\r\n")
    assert reason(server.url, allow=server.allow) == "is larger than 0.2 MB"


def test_a_body_may_have_all_that_it_may_have(server: Server) -> None:
    server.answers["/"] = ok(b"x" * QUICK.size)
    assert len(fetch(server.url, allow=server.allow, limits=QUICK)) == QUICK.size


def test_the_limit_that_people_are_told_of() -> None:
    assert Limits() == (20_000_000, 15, 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"", b""),  # nothing at all
        (b"", b"H"),
        (HEAD, b"x"),
        (HEAD, b"X: y\r\n"),
        (HEAD + b"Content-Length: 9999\r\n\r\n", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
)
def test_what_comes_in_drops(server: Server, start: bytes, more: bytes) -> None:
    server.answers["/"] = endless(start, more, 0.02)
    started = time.monotonic()
    assert reason(server.url, allow=server.allow, limits=HASTY) == "takes longer than 0.5 s"
    assert time.monotonic() - started < 1.5


@pytest.mark.slow
def test_answers_before_the_answer_and_redirects_in_drops_share_the_time(server: Server) -> None:
    server.answers["/early"] = endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.01)
    server.answers |= {f"/{n}": lambda it, n=n: (time.sleep(0.2), it.sendall(leads_to(f"/{n + 1}")))  # type: ignore[misc]
                       for n in range(6)}  # fmt: skip
    for path in ("early", "0"):
        assert reason(f"{server.url}/{path}", allow=server.allow, limits=HASTY) == "takes longer than 0.5 s"


def test_answers_before_the_answer_have_an_end(server: Server) -> None:
    server.answers["/"] = endless(b"", b"HTTP/1.1 103 Early Hints\r\nX: " + b"y" * 8000 + b"\r\n\r\n")
    assert reason(server.url, allow=server.allow) == "is larger than 0.2 MB"


@pytest.mark.slow
def test_looking_up_shares_the_time_too() -> None:
    asleep = threading.Event()
    found = reason("http://a.example/", limits=HASTY, resolve=lambda _: asleep.wait(3) and [])
    assert found == "takes longer than 0.5 s"
    asleep.set()


@pytest.mark.slow
def test_a_machine_that_takes_connections_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        for scheme in ("http", "https"):
            found = reason(f"{scheme}://127.0.0.1:{port}/", allow={("127.0.0.1", port)}, limits=HASTY)
            assert found == "takes longer than 0.5 s"


def test_who_stops_waits_no_longer(server: Server) -> None:
    server.answers["/"] = endless(HEAD + b"\r\n", b"x", 0.05)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    assert reason(server.url, allow=server.allow, stop=stop) == "was given up"
    assert time.monotonic() - started < 1


# what servers do


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (ok(b"x", status="404 Not Found"), "the server answers 404 (not found)"),
        (ok(b"x", status="500 \x1b[2J"), "the server answers 500 (internal server error)"),
        (ok(b"x", status="599 ?"), "the server answers 599"),
        (ok(b"x", status="206 Partial Content"), "the server answers 206 (partial content)"),
        (ok(b"", status="304 Not Modified"), "the server answers 304 (not modified)"),
        (ok(b"", status="204 No Content"), "the server answers 204 (no content)"),
        (ok(b"x", status="401 Unauthorized"), "the server answers 401 (unauthorized)"),
        (ok(b""), "empty file (0 bytes)"),
        (ok(b"x" * 9, length=10), "the server ends before all of it was sent"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nxx", "the server ends before all of it was sent"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "the server ends before all of it was sent"),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\nxx", "the server gives no answer of HTTP"),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", "the server gives no answer of HTTP"),
        (HEAD + b"Content-Length: -1\r\n\r\nx", "the server gives no answer of HTTP"),
        (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nx", "the server gives no answer of HTTP"),
        (ok(b"", length=200_001), "is larger than 0.2 MB"),
        (b"", "the server gives no answer of HTTP"),
        (b"SSH-2.0-OpenSSH_9.0\r\n", "the server gives no answer of HTTP"),
        (HEAD, "the server gives no answer of HTTP"),
        (HEAD + b"X: " + b"y" * 500_000 + b"\r\n\r\n", "the server gives no answer of HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "the server gives no answer of HTTP"),
    ],
    ids=short,
)
def test_what_is_no_photo_has_its_reason(server: Server, answer: bytes, wanted: str) -> None:
    server.answers["/"] = answer
    assert reason(server.url, allow=server.allow) == wanted


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip", "x-unknown"])
def test_a_compressed_bomb_is_not_unpacked(server: Server, coding: str) -> None:
    server.answers["/"] = ok(gzip.compress(bytes(50_000_000)), f"Content-Encoding: {coding}")
    assert (
        reason(server.url, allow=server.allow) == "the server sends it compressed, though it was asked not to"
    )


def test_identity_is_no_compression(server: Server, photo: bytes) -> None:
    server.answers["/"] = ok(photo, "Content-Encoding: Identity")
    assert fetch(server.url, allow=server.allow) == photo


def test_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    found = reason(f"http://127.0.0.1:{port}/", allow={("127.0.0.1", port)})
    assert found == "the server cannot be reached: Connection refused"


def test_a_name_that_is_not_there() -> None:
    assert reason("http://a.invalid/").startswith("its host a.invalid cannot be found: ")
    assert reason("http://a.example/", resolve=lambda _: []) == "its host a.example has no address"


def test_ipv6(photo: bytes) -> None:
    try:
        server = Server(host="::1")
    except OSError:
        pytest.skip("there is no IPv6 here")
    server.answers["/"] = ok(photo)
    assert fetch(server.url, allow=server.allow) == photo
    assert f"Host: [::1]:{server.port}\r\n".encode() in server.asked[0]
    server.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for dogs.example that nobody has signed, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "certificate",
         "-days", "2", "-subj", "/CN=dogs.example", "-addext", "subjectAltName=DNS:dogs.example"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    both = folder / "both.pem"
    both.write_text((folder / "certificate").read_text() + (folder / "key").read_text())
    return both


@pytest.fixture
def secure(certificate: Path) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    made = Server(context)
    yield made
    made.close()


def test_a_certificate_that_nobody_has_signed(secure: Server, photo: bytes) -> None:
    secure.answers["/"] = ok(photo)
    found = reason(f"https://dogs.example:{secure.port}", allow=secure.allow, resolve=lambda _: ["127.0.0.1"])
    assert found.startswith("the server's certificate is not valid: self")
    assert not secure.asked


def test_a_certificate_is_for_its_name_alone(
    secure: Server, photo: bytes, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr("breeds.photos.web._trusted", lambda: trusted)
    secure.answers |= {"/": ok(photo), "/plain": leads_to(f"http://dogs.example:{secure.port}/")}
    how = {"allow": secure.allow, "resolve": lambda _: ["127.0.0.1"]}
    assert fetch(f"https://dogs.example.:{secure.port}", **how) == photo  # type: ignore[arg-type]
    assert "certificate is not valid: Hostname mismatch" in reason(
        f"https://cats.example:{secure.port}", **how
    )
    assert "certificate is not valid: IP address mismatch" in reason(
        f"https://127.0.0.1:{secure.port}", **how
    )
    assert "from https to http" in reason(f"https://dogs.example:{secure.port}/plain", **how)


@pytest.mark.slow
def test_a_server_without_tls(server: Server) -> None:
    found = reason(f"https://127.0.0.1:{server.port}", allow=server.allow, limits=HASTY)
    assert found in ("no encrypted connection to the server (TLS)", "takes longer than 0.5 s")


# among the photos to predict


def test_photos_come_in_order_a_few_ahead_and_none_waits_for_the_next_line(
    server: Server, photo: bytes
) -> None:
    server.answers |= {f"/{n}": ok(photo + b"%d" % n) for n in range(40)}
    names = [f"{server.url}/{n}" for n in range(40)]
    names[7:7] = ["a.jpg", f"{server.url}/none"]
    came, seen = [], 0
    for one in list_inputs(
        ["-"], iter(f"{name}\n" for name in names), fetch=partial(fetch, allow=server.allow)
    ):
        came.append(one)
        seen += one is not None
        assert len(server.asked) <= seen + AHEAD + 1
    photos = [one for one in came if one is not None]
    assert [one.name for one in photos] == names
    assert came[0] is not None and came[-1] is not None and came.count(None) >= 2  # so that they are answered
    for one in photos:
        number = one.name.rpartition("/")[2]
        if one.name == "a.jpg":
            assert one == FilePhoto("a.jpg")
        elif number == "none":
            with pytest.raises(PhotoError, match=r"the server answers 404 \(not found\)"):
                one.read()
        else:
            assert one.read() == photo + number.encode()


@pytest.mark.slow
def test_nothing_is_loaded_or_made_where_no_address_is_asked_for(place: Path) -> None:  # noqa: F811
    code = (
        "import sys, tempfile, predict; tempfile.TemporaryDirectory = None; sys.argv[1:] = ['photos']; "
        "assert predict.main() == 0; assert not {'httpcore', 'idna'} & set(sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=place, env=env, check=True, timeout=60)


def predict_from(
    server: Server, *arguments: str, stdin: str = "", **options: object
) -> subprocess.Popen[str]:
    """Start predict.py with what only a test can give: the port of this one server may be asked."""
    code = (
        "import sys; from functools import partial; import predict; from breeds.cli import common\n"
        "from breeds.photos.web import fetch\n"
        f"common.run(lambda: predict.main(partial(fetch, allow={server.allow!r})))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=env, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,  # type: ignore[call-overload]
    )  # fmt: skip


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of programs that a test starts."""
    made = tmp_path / "scratch"
    made.mkdir()
    monkeypatch.setenv("TMPDIR", str(made))
    return made


@pytest.mark.slow
def test_addresses_and_paths_are_answered_alike(server: Server, place: Path, scratch: Path) -> None:  # noqa: F811
    files = sorted((place / "photos").rglob("*.jpg"))
    server.answers |= {f"/{n}?x": ok(file.read_bytes(), "Content-Type: a/b") for n, file in enumerate(files)}
    server.answers["/page.jpg"] = ok(b"<!doctype html><title>\x1b[2J</title>" * 9, "Content-Type: image/jpeg")
    odd = f"{server.url}/\x1b[2Ja"
    bad = [f"{server.url}/none.jpg", f"{server.url}/page.jpg", "http://127.0.0.1:1/", "https://", odd]
    urls = [f"{server.url}/{n}?x" for n in range(len(files))]
    mixed = [name for pair in zip(urls, map(str, files), strict=True) for name in pair]
    run = predict_from(server, "-", files[0].as_posix(), urls[0], "--out", "out.csv")
    _, said = run.communicate("\n".join([*mixed, *bad]), timeout=120)
    assert run.returncode == 1, said
    assert "31 photos = 26 answers + 5 without" in said
    table = pd.read_csv("out.csv", keep_default_na=False)
    assert list(table.path) == [
        *mixed,
        *bad[:-1],
        f"{server.url}/\N{REPLACEMENT CHARACTER}[2Ja",
        mixed[1],
        urls[0],
    ]
    by_url, by_path = table.iloc[: len(mixed) : 2], table.iloc[1 : len(mixed) : 2]
    for column in ("breed", "probability", "guess", "error"):
        assert list(by_url[column]) == list(by_path[column])
    assert set(by_url.error) == {""}
    reasons = list(table.error[len(mixed) : len(mixed) + len(bad)])
    assert reasons[0] == "the server answers 404 (not found)"
    assert reasons[1].startswith("not a photo of a known format")
    assert reasons[2] == "leads to 127.0.0.1, which is no public address"
    assert "\x1b" not in said
    assert "\\x1b[2Ja" in said
    assert not list(scratch.iterdir())


def test_a_photo_from_the_web_is_kept_by_its_content(
    server: Server, model: Model, quick_engine: list[str], unseen: list[str]  # noqa: F811
) -> None:  # fmt: skip
    server.answers |= {"/a": ok(Path(unseen[0]).read_bytes()), "/b": ok(Path(unseen[0]).read_bytes())}
    found = []
    for path in (f"{server.url}/a", f"{server.url}/b", unseen[0]):
        photos = list_inputs([path], fetch=partial(fetch, allow=server.allow))
        found += predict(model, photos, None, Path("models"), opener=quick_engine)
    assert [answer.path for answer in found] == [f"{server.url}/a", f"{server.url}/b", unseen[0]]
    assert len({answer.probabilities.tobytes() for answer in found}) == 1
    assert quick_engine == ["opened"]


def test_without_somebody_to_fetch_an_address_has_no_answer(model: Model) -> None:  # noqa: F811
    (answer,) = predict(model, list_inputs(["-"], ["https://a.example/b.jpg\n"], network=False))
    assert answer.error.startswith("is on the web")


@pytest.mark.slow
def test_the_page_and_the_pictures_show_what_was_fetched_once(
    server: Server, place: Path, scratch: Path  # noqa: F811
) -> None:  # fmt: skip
    files = sorted((place / "photos").rglob("*.jpg"))
    server.answers |= {f"/{file.name}": ok(file.read_bytes()) for file in files[:2]}
    urls = [f"{server.url}/{file.name}" for file in files[:2]]
    names = [urls[0], str(files[0]), urls[1], f"{server.url}/none"]
    run = predict_from(server, *names, "--html", "page.html", "--explain", "why", "--out", "out.csv")
    _, said = run.communicate(timeout=300)
    assert run.returncode == 1, said
    assert "no picture for" not in said
    assert len(server.asked) == 3
    cards = cards_of(Path("page.html"))
    assert [card.alt for card in cards] == [name.rpartition("/")[2] for name in names[:3]]
    for card, file in zip(cards, [files[0], files[0], files[1]], strict=True):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(card.src.partition(",")[2]))), float)
        assert np.abs(shown - np.asarray(picture(file.read_bytes(), 160), float)).mean() < 6
    assert [bool(card.address) for card in cards] == [False, True, False]
    table = pd.read_csv("why/explanations.csv", keep_default_na=False)
    assert list(table.photo) == names
    assert all((place / "why" / name).is_file() for name in table.picture[:3])
    assert table.error[3] == "the server answers 404 (not found)"
    assert {path.name for path in scratch.iterdir()} <= {"__pycache__"}  # of what TensorFlow makes


@pytest.mark.slow
def test_one_ctrl_c_ends_it_and_leaves_nothing(server: Server, place: Path, scratch: Path) -> None:  # noqa: F811
    asked = threading.Event()

    def drop(connection: socket.socket) -> None:
        asked.set()
        endless(HEAD + b"\r\n", b"x", 0.05)(connection)

    photo = next((place / "photos").rglob("*.jpg"))
    server.answers |= {"/a": ok(photo.read_bytes()), "/b": drop}
    run = predict_from(server, f"{server.url}/a", f"{server.url}/b")
    assert asked.wait(60)
    started = time.monotonic()
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=30)
    assert run.returncode == 130, said
    assert time.monotonic() - started < 5
    assert not list(scratch.iterdir())


@pytest.mark.slow
def test_no_network(place: Path) -> None:  # noqa: F811
    assert_refused(
        script("photos", "http://127.0.0.1:1/a", "--no-network"), "http://127.0.0.1:1/a", "--no-network"
    )
    photo = str(next(Path("photos").rglob("*.jpg")))
    done = script("-", "--no-network", "--out", "out.csv", stdin=f"http://127.0.0.1:1/a\n{photo}\n")
    assert done.returncode == 1
    table = pd.read_csv("out.csv", keep_default_na=False)
    assert list(table.path) == ["http://127.0.0.1:1/a", photo]
    assert table.error[0] == "is on the web, and the network is not to be used (--no-network)"
    assert table.error[1] == ""
    with pytest.raises(BreedsError, match="no-network"):
        list_inputs(["https://a.example/"], [], network=False)


def test_the_command_line_as_it_is_asks_no_machine_of_this_network(server: Server, place: Path) -> None:  # noqa: F811
    done = script(f"{server.url}/a", "--out", "out.csv")
    assert done.returncode == 1
    assert "leads to 127.0.0.1, which is no public address" in done.stderr
    assert not server.asked
