"""The application: its answers are predict.py's, and whatever a request does stays a request."""

from __future__ import annotations

import asyncio
import gc
import http.client
import http.server
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from conftest import ROOT, assert_refused, extract_photos, run_script
from PIL import Image
from served import (
    MODEL,
    PATIENCE,
    Gate,
    Served,
    files,
    jpeg,
    multipart,
    part,
    serving,
    serving_here,
)

from breeds.app.service import Answered, InferenceService, RefusedError, Upload
from breeds.app.site import Secrets
from breeds.errors import BreedsError
from breeds.features import Store
from breeds.heads.model import Model
from breeds.photos import key_of
from breeds.photos.web import fetch
from breeds.training import train

pytestmark = pytest.mark.filterwarnings("ignore:.*[Ll]ine [Ss]earch")


def until(true: object, seconds: float = PATIENCE) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


# --- its answers -------------------------------------------------------------------------------


def test_the_answers_are_those_of_predict_in_the_order_asked(
    served: Served, app_place: Path, drawn_photos: Path, tmp_path: Path
) -> None:
    known = sorted((app_place / "photos").rglob("*.jpg"))[:3]
    others = sorted(sorted(drawn_photos.iterdir())[-1].iterdir())[:3]
    shutil.copy(known[0], tmp_path / "cut.jpg")
    os.truncate(tmp_path / "cut.jpg", 700)
    (tmp_path / "empty.jpg").touch()
    Image.open(known[1]).save(tmp_path / "a.png")
    odd = sorted(tmp_path.glob("*.*"))
    asked = [others[0], odd[0], known[0], odd[1], others[1], odd[2], known[1], known[0], known[2], others[2]]
    done = run_script("predict.py", *asked, "--top-k=3", "--format=json", "--no-cache",
                      "--model", app_place / MODEL, cwd=tmp_path)  # fmt: skip
    wanted = [json.loads(line) for line in done.stdout.splitlines()]
    with served.client() as client:
        answer = client.post(
            "/api/predict", files=[("files", (path.name, path.read_bytes())) for path in asked]
        )
        assert answer.status_code == 200
        assert [row["name"] for row in answer.json()] == [path.name for path in asked]
        for row in wanted:
            del row["path"]
        found = answer.json()
        for row in found:
            del row["name"]
        assert found == wanted
        assert sum(row["error"] is not None for row in found) == 2
        five = client.post("/api/predict?top=5", files=files(known[0].read_bytes())).json()
        assert len(five[0]["top"]) == 5 and five[0]["top"][:3] == wanted[2]["top"]
    assert served.left() == []


def test_many_photos_keep_their_order(served: Served) -> None:
    photos = [jpeg(number, (400, 300) if number % 7 == 0 else (32, 24)) for number in range(60)]
    photos[13] = photos[40] = b"no photo"
    with served.client() as client:
        together = client.post("/api/predict", files=files(*photos)).json()
        assert [row["name"] for row in together] == [f"{number}.jpg" for number in range(60)]
        for number in (0, 7, 13, 59):
            (alone,) = client.post("/api/predict", files=files(photos[number])).json()
            assert {**alone, "name": ""} == {**together[number], "name": ""}
        assert [number for number, row in enumerate(together) if row["error"]] == [13, 40]


@pytest.fixture
def web() -> Iterator[tuple[str, Callable[[str, threading.Event], bytes], list[str]]]:
    """A web server, how to fetch from it, and what it was asked for; ``/slow`` is never answered."""
    asked: list[str] = []
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path == "/slow":
                over.wait(PATIENCE)
            self.send_response(200 if self.path.endswith(".jpg") else 404)
            self.end_headers()
            self.wfile.write(jpeg(3) if self.path != "/bad.jpg" else b"no photo")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]

        def allowed(url: str, stop: threading.Event) -> bytes:
            return fetch(url, stop=stop, allow=[("127.0.0.1", port)])

        yield f"http://127.0.0.1:{port}", allowed, asked
        over.set()
        server.shutdown()


def test_photos_are_fetched_from_the_web_each_on_its_own_row(
    app_place: Path, tmp_path: Path, web: tuple[str, Callable[[str, threading.Event], bytes], list[str]]
) -> None:
    url, allowed, _ = web
    with serving_here(app_place, tmp_path, fetch=allowed) as running, running.client() as client:
        urls = [f"{url}/{name}" for name in ("1.jpg", "none", "bad.jpg", "2.jpg")]
        urls += ["http://10.0.0.1/a.jpg", "file:///etc/passwd", "\udcff", ""]
        rows = client.post("/api/predict", content=json.dumps({"urls": urls}), headers=JSON).json()
        assert [row["name"] for row in rows[:6]] == urls[:6]
        assert [row["error"] is None for row in rows] == [
            True,
            False,
            False,
            True,
            False,
            False,
            False,
            False,
        ]
        (wanted,) = client.post("/api/predict", files=files(jpeg(3))).json()
        assert rows[0]["top"] == rows[3]["top"] == wanted["top"]
        cards = client.post("/card", files={"url": (None, urls[0])}).text
        assert wanted["guess"] in cards and "<img" in cards
        assert running.left() == []


def test_who_leaves_while_photos_are_fetched_ends_that(
    app_place: Path, tmp_path: Path, web: tuple[str, Callable[[str, threading.Event], bytes], list[str]]
) -> None:
    url, allowed, asked = web
    stopped: list[threading.Event] = []

    def watched(url: str, stop: threading.Event) -> bytes:
        stopped.append(stop)
        return allowed(url, stop)

    body = json.dumps({"urls": [f"{url}/1.jpg", *[f"{url}/slow"] * 20]}).encode()
    with serving_here(app_place, tmp_path, Gate().open, fetch=watched) as running:
        with running.raw(post(body, b"application/json")):
            until(lambda: asked.count("/slow") == 4)
        assert running.site is not None
        site = running.site
        until(lambda: stopped[0].is_set() and site.uploads.here == 0)
        time.sleep(0.2)
    assert asked.count("/slow") <= 8


JSON = {"content-type": "application/json"}


def test_no_machine_that_is_not_public_is_asked(served: Served) -> None:
    with served.client() as client:
        rows = client.post("/api/predict", json={"urls": [f"{served.url}/static/look.css", "http://[::1]/"]})
        assert all("public" in row["error"] for row in rows.json()), rows.text
        for wrong in (b"", b"{", b"[]", b'{"urls": []}', b'{"urls": [1]}', b'{"urls": "a"}', b"[" * 100_000):
            found = client.post("/api/predict", content=wrong, headers=JSON)
            assert (found.status_code, "error" in found.json()) == (400, True)
        assert client.post("/api/predict", json={"urls": ["a"] * 257}).status_code == 413
        assert client.post("/api/predict", json={"urls": ["a" * 2**20]}).status_code == 413


def test_without_a_network_addresses_are_refused_and_not_asked_for(app_place: Path, tmp_path: Path) -> None:
    with serving(app_place, tmp_path, "--no-network") as running, running.client() as client:
        rows = client.post("/api/predict", json={"urls": ["https://example.org/a.jpg", "file:///etc/passwd"]})
        assert [row["error"] for row in rows.json()] == ["fetching from the web is switched off"] * 2
        assert 'name="url"' not in client.get("/").text


def test_model_and_health(served: Served, app_place: Path) -> None:
    with served.client() as client:
        until(lambda: client.get("/api/health").json()["warm"])
        assert client.get("/api/health").json()["status"] == "ok"
        model = Model.load(app_place / MODEL)
        about = client.get("/api/model").json()
        assert about["classes"] == model.classes
        assert (about["name"], about["config"]) == ("photos", str(model.config))


def test_openapi_describes_it_and_nothing_is_loaded_from_elsewhere(served: Served) -> None:
    with served.client() as client:
        described = client.get("/openapi.json").json()
        assert set(described["paths"]) == {"/api/predict", "/api/model", "/api/health"}
        assert set(described["paths"]["/api/predict"]["post"]["requestBody"]["content"]) == {
            "multipart/form-data",
            "application/json",
        }
        assert "://" not in json.dumps(described)
        for address in ("/", "/api"):
            page = client.get(address).text
            assert not re.findall(r"""(?:src|href|action)=["'](?!/(?!/)|data:,)""", page)


def test_head_is_get_without_a_body(served: Served) -> None:
    with served.client() as client:
        found, whole = client.head("/"), client.get("/")
        assert (found.status_code, found.content) == (200, b"")
        assert found.headers["content-length"] == str(len(whole.content))


# --- photos of the store ------------------------------------------------------------------------


def test_photos_are_given_by_their_key(served: Served, app_place: Path) -> None:
    photo = min((app_place / "photos").rglob("*.jpg"))
    key = key_of(photo.read_bytes())
    with served.client() as client:
        for address, longest in ((f"/photo/{key}", 1200), (f"/thumb/{key}", 160)):
            found = client.get(address)
            assert found.headers["content-type"] == "image/jpeg"
            assert max(Image.open(io.BytesIO(found.content)).size) <= longest
            assert "immutable" in found.headers["cache-control"]


HOSTILE_PATHS = [
    "/photo/", "/photo/x", "/photo/" + "0" * 64, "/photo/" + "F" * 64, "/photo/../../../etc/passwd",
    "/photo/..%2f..%2fetc%2fpasswd", "/photo/%2e%2e/%2e%2e/etc/passwd", "/photo/%00", "/thumb/" + "a" * 3000,
    "/photo/" + "0" * 64 + "/..", "/thumb/" + "0" * 63 + "%0a", "/static/", "/static/../try.html",
    "/static/app/try.html", "/static/..%2f..%2f..%2fetc/passwd", "/static//etc/passwd", "/static/look.css/",
    "/static/%2e%2e/render.py", "/static/app", "//etc/passwd", "/photos/", "/docs", "/redoc", "/.git/config",
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_no_path_of_a_request_reaches_the_files(served: Served, path: str) -> None:
    answer = served.answer_to(get(path))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"root:" not in answer and b"{%" not in answer
    assert names_in(answer) >= STRICT


# --- what is wrong with a request ----------------------------------------------------------------

#: Headers that every answer has, whatever it is.
STRICT = {
    "content-security-policy", "x-content-type-options", "referrer-policy", "cross-origin-opener-policy",
    "cross-origin-resource-policy", "cache-control", "x-frame-options",
}  # fmt: skip


def names_in(answer: bytes) -> set[str]:
    """The names of the headers in an answer."""
    head = answer.partition(b"\r\n\r\n")[0].decode().splitlines()[1:]
    return {line.partition(":")[0].lower() for line in head}


KIND = b"multipart/form-data; boundary=b0undary"


def post(body: bytes, kind: bytes = KIND, more: bytes = b"") -> bytes:
    """A whole request with that body."""
    head = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + kind + b"\r\n" + more
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def get(path: str, host: str = "localhost") -> bytes:
    """A whole request, after which the connection is closed."""
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


#: The head of a field that is no photo.
FIELD = b'Content-Disposition: form-data; name="a"\r\n\r\n'


HOSTILE_BODIES = {
    "no boundary": (400, multipart(part(b"x")), b"multipart/form-data"),
    "empty boundary": (400, multipart(part(b"x")), b'multipart/form-data; boundary=""'),
    "long boundary": (400, b"x", b"multipart/form-data; boundary=" + b"b" * 300),
    "another kind": (415, b"a=b", b"application/x-www-form-urlencoded"),
    "no kind": (415, b"a=b", b""),
    "another boundary": (400, multipart(part(b"x"), boundary=b"other"), None),
    "empty": (400, b"", None),
    "no end": (400, multipart(part(b"x"), end=False), None),
    "cut": (400, multipart(part(jpeg()))[:-40], None),
    "no parts": (400, multipart(), None),
    "a part without a name": (400, multipart(b"\r\nx"), None),
    "a part of another kind": (400, multipart(FIELD.replace(b"form-data", b"attachment") + b"x"), None),
    "only fields": (400, multipart(FIELD + b"x"), None),
    "files of another field": (400, multipart(part(b"x", name=b"other")), None),
    "thousands of photos": (413, multipart(*[part(b"x")] * 3000), None),
    "thousands of fields": (413, multipart(*[FIELD + b"x"] * 3000), None),
    "a large field": (413, multipart(FIELD + b"x" * 9000), None),
    "thousands of heads": (400, multipart(b"A: b\r\n" * 3000 + part(b"x")), None),
    "an endless head": (400, multipart(b"A: " + b"b" * 100_000), None),
    "bare line feeds": (400, multipart(part(b"x")).replace(b"\r\n", b"\n"), None),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_BODIES)
def test_a_hostile_body_is_refused_in_a_sentence(served: Served, name: str) -> None:
    status, body, kind = HOSTILE_BODIES[name]
    more = b"Connection: close\r\n"
    answer = served.answer_to(post(body, kind, more) if kind is not None else post(body, more=more))
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert names_in(answer) >= STRICT
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"].endswith(".")
    assert served.left() == []


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b"../../../../tmp/x.jpg", "x.jpg"),
        (b"..\\\\..\\\\x.jpg", "x.jpg"),
        (b"/etc/passwd", "passwd"),
        (b"..", ".."),
        (b"a\0b.jpg", "a\0b.jpg"),
        (b"\xff\xfe.jpg", "\xff\xfe.jpg"),
        ("é😀.jpg".encode(), "é😀.jpg"),
        (b"x" * 3000, "x" * 255),
        (b"<script>.jpg", "<script>.jpg"),
        (b"\x1b[2J.jpg", "\x1b[2J.jpg"),
        (b"", ""),
    ],
)
def test_a_name_is_only_shown(served: Served, sent: bytes, shown: str) -> None:
    answer = served.answer_to(post(multipart(part(jpeg(), sent)), more=b"Connection: close\r\n"))
    (row,) = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert row["name"] == shown
    assert row["error"] is None
    assert served.left() == []


def test_what_is_no_http_or_too_long_is_refused(served: Served) -> None:
    for data in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nHost: localhost\r\nA b: c\r\n\r\n",
                 b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 100_000,
                 b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
                 b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                 b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n"):  # fmt: skip
        answer = served.answer_to(data + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 "), (data[:60], answer[:200])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200), ("GET", "/api", 200), ("GET", "/api/health", 200), ("GET", "/openapi.json", 200),
        ("GET", "/static/look.css", 200), ("GET", "/nothing", 404), ("GET", "/api/nothing", 404),
        ("PUT", "/", 405), ("GET", "/api/predict", 405), ("OPTIONS", "/api/predict", 405),
        ("POST", "/", 415), ("POST", "/card", 415), ("POST", "/api/predict?top=0", 400), ("TRACE", "/", 405),
    ],
)  # fmt: skip
def test_every_answer_has_the_strict_headers(served: Served, method: str, path: str, status: int) -> None:
    with served.client() as client:
        found = client.request(method, path)
    assert found.status_code == status
    assert set(found.headers) >= STRICT
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert "server" not in found.headers and "access-control-allow-origin" not in found.headers
    assert path.startswith("/static") == ("immutable" in found.headers["cache-control"])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((good, 200) for good in ("localhost", "LOCALHOST:1", "localhost.", "127.0.0.1", "127.0.0.1:8000",
                                   "127.9.9.9", "[::1]:80")),
        *((bad, 421) for bad in ("evil.example", "evil.example:8000", "localhost.evil.example", "0.0.0.0", "",
                                 "127.0.0.1.evil.example", "192.168.1.2", "localhost:x", "2130706433",
                                 "127.1",
                                 "localhost@evil.example", "[::1", "localhost, evil.example")),
    ],
)  # fmt: skip
def test_only_its_own_names_are_served(served: Served, host: str, status: int) -> None:
    answer = served.answer_to(get("/", host))
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert names_in(answer) >= STRICT


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "OWN"}, 200),
        ({"origin": "OWN", "sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"origin": "http://localhost:1"}, 403),
        ({"origin": "http://127.0.0.1.evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "OWN", "sec-fetch-site": "same-site"}, 403),
    ],
)
def test_other_pages_may_ask_for_nothing(served: Served, headers: dict[str, str], status: int) -> None:
    headers = {name: value.replace("OWN", served.url) for name, value in headers.items()}
    with served.client() as client:
        for path in ("/api/predict", "/card", "/"):
            answer = client.post(path, files=files(jpeg()), headers=headers)
            assert (answer.status_code, set(answer.headers) >= STRICT) == (status, True)


# --- tokens --------------------------------------------------------------------------------------


def test_with_a_token_nothing_is_served_without_it(app_place: Path, tmp_path: Path) -> None:
    token = "correct-horse"
    with serving_here(app_place, tmp_path, token=token) as running, running.client() as client:
        for path in ("/", "/api/health", "/static/look.css", "/nothing", "/openapi.json", "/?token=wrong"):
            refused = client.get(path)
            assert (refused.status_code, set(refused.headers) >= STRICT) == (401, True)
        for wrong in (
            f"Bearer {token}x",
            "Bearer",
            token,
            f"Basic {token}",
            f"Bearer {token[:-1]}",
        ):
            assert client.get("/api/health", headers={"authorization": wrong}).status_code == 401
        assert client.post(f"/api/predict?token={token}", files=files(jpeg())).status_code == 401
        bearer = {"authorization": f"Bearer {token}"}
        assert client.get("/api/health", headers=bearer).status_code == 200
        assert client.post("/api/predict", files=files(jpeg()), headers=bearer).status_code == 200
        evil = {**bearer, "host": "evil.example"}
        assert client.get("/api/health", headers=evil).status_code == 421
        moved = client.get(f"/api/model?a=1&token={token}&b=%26")
        assert (moved.status_code, moved.headers["location"]) == (303, "/api/model?a=1&b=%26")
        cookie = moved.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and token not in cookie
        assert client.get("/api/model").status_code == 200
        client.cookies.clear()
        name = cookie.partition("=")[0]
        for wrong in (token, "", "x"):
            assert client.get("/", headers={"cookie": f"{name}={wrong}"}).status_code == 401
        for path in (f"//evil.example/?token={token}", f"/\\evil.example/?token={token}"):
            answer = running.answer_to(get(path))
            assert b"location: /evil.example" in answer


def test_the_pages_token_is_another_for_every_start() -> None:
    one, other = Secrets(), Secrets()
    one.check_page(one.page)
    for wrong in (other.page, "", "é"):
        with pytest.raises(RefusedError):
            one.check_page(wrong)


# --- slow, many, gone ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["length", "chunks"])
def test_what_is_too_large_is_refused_while_it_comes(app_place: Path, tmp_path: Path, how: str) -> None:
    with (
        serving_here(app_place, tmp_path, Gate().open, most_bytes=10**6) as running,
        running.client() as client,
    ):
        body = multipart(part(b"x" * 4_000_000))
        kind = {"content-type": "multipart/form-data; boundary=b0undary"}
        content = body if how == "length" else (body[i : i + 50_000] for i in range(0, len(body), 50_000))
        answer = client.post("/api/predict", content=content, headers=kind)
        assert (answer.status_code, set(answer.headers) >= STRICT) == (413, True)
        assert "MB" in answer.json()["error"]
        assert running.left() == []
        assert client.get("/api/health").status_code == 200


def test_beyond_the_queue_there_is_503_and_when_to_come_again(app_place: Path, tmp_path: Path) -> None:
    gate = Gate()
    photos = files(*[jpeg(n) for n in range(41)])
    with (
        serving_here(app_place, tmp_path, gate.open, most_waiting=40) as running,
        ThreadPoolExecutor() as pool,
        running.client() as client,
    ):
        waiting = pool.submit(lambda: running.client().post("/api/predict", files=photos[:40]))
        until(lambda: running.site.service.waiting >= 30)  # type: ignore[union-attr]
        for path, some in (("/api/predict", photos), ("/api/predict", photos[:20]), ("/card", photos[:20])):
            refused = client.post(path, files=some)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert set(refused.headers) >= STRICT
        assert client.get("/api/health").json()["waiting"] >= 30
        gate.let(1000)
        assert waiting.result().status_code == 200
        assert client.post("/api/predict", files=photos[:20]).status_code == 200


@pytest.mark.thorough  # it waits for threads, and failed now and then beside other tests
def test_who_gives_up_costs_nothing_more(app_place: Path, tmp_path: Path) -> None:
    gate = Gate()
    body = multipart(*[part(jpeg(n)) for n in range(100)])
    with serving_here(app_place, tmp_path, gate.open) as running:
        assert running.site is not None
        site = running.site
        for _ in range(3):
            with running.raw(post(body)):
                until(lambda: site.service.waiting == 100)
            until(lambda: site.service.waiting == 0)
        until(lambda: site.uploads.here == 0)
        gate.let(3)
        with running.client() as client:
            gate.let(9)  # of 300 photos some had been begun before it was noticed that nobody waits for them
            assert client.post("/api/predict", files=files(jpeg(7))).status_code == 200
        assert gate.computed <= 13


def test_photos_that_are_here_at_once_are_bounded(app_place: Path, tmp_path: Path) -> None:
    gate = Gate(photos=9)
    with serving_here(app_place, tmp_path, gate.open, most_bytes=10**6) as running:
        assert running.site is not None
        site = running.site
        body = post(multipart(part(b"x" * 900_000)))[:-20]
        slow = [running.raw(body) for _ in range(4)]
        until(lambda: site.uploads.here > 3_000_000)
        with running.client() as client:
            refused = client.post("/api/predict", files=files(b"x" * 900_000))
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
            for connection in slow:
                connection.close()
            until(lambda: client.post("/api/predict", files=files(b"x" * 900_000)).status_code == 200)
        until(lambda: site.uploads.here == 0)


# --- the inference service -------------------------------------------------------------------------


@pytest.fixture
def service(app_place: Path) -> Iterator[InferenceService]:
    """The service on the model of `app_place`, with its network."""
    service = InferenceService(Model.load(app_place / MODEL))
    yield service
    service.close()


def uploaded(*paths: Path) -> list[Upload]:
    found = [Upload(path.name) for path in paths]
    for upload, path in zip(found, paths, strict=True):
        upload.fill(path.read_bytes())
    return found


T = TypeVar("T")


def in_a_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a thread of its own: the browser's tests leave a loop running in pytest's."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def answered(service: InferenceService, photos: list[Upload]) -> list[Answered]:
    return in_a_loop(service.answers(photos))


def test_the_model_is_exchanged_while_it_runs(service: InferenceService, app_place: Path) -> None:
    paths = sorted((app_place / "photos").rglob("*.jpg"))[:6]
    before = answered(service, uploaded(*paths))
    store = Store(app_place / "features/photos.h5")
    other = train(store, C=10.0)
    other.classes = [name.upper() for name in other.classes]
    service.use(other)
    assert service.warm  # the same network stays open
    after = answered(service, uploaded(*paths))
    features = store.features_of([key_of(path.read_bytes()) for path in paths])
    for (old, new), feature in zip(zip(before, after, strict=True), features, strict=True):
        assert old.model.classes != new.model.classes == other.classes
        assert new.answer.probabilities is not None
        assert np.allclose(new.answer.probabilities, other.probabilities(feature[None])[0], atol=1e-12)
        assert old.explanation is not None and new.explanation is not None


@pytest.fixture(scope="module")
def two_stores(app_place: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model on two stores of the same photos."""
    other = tmp_path_factory.mktemp("other") / "crop.h5"
    extract_photos(app_place / "photos", other, size=96, resize="crop")
    return train(Store(app_place / "features/photos.h5", other), C=0.01)


def test_a_model_that_cannot_be_explained_still_answers(
    two_stores: Model, service: InferenceService, app_place: Path, tmp_path: Path
) -> None:
    two_stores.save(tmp_path / "two.safetensors")
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    paths = [*sorted((app_place / "photos").rglob("*.jpg"))[:9], tmp_path / "bad.jpg"]
    service.use(two_stores)
    found = answered(service, uploaded(*paths))
    options = ("--format=json", "--no-cache", "--model", tmp_path / "two.safetensors")
    done = run_script("predict.py", *paths, *options, cwd=tmp_path)
    wanted = [json.loads(line) for line in done.stdout.splitlines()]
    for one, row in zip(found, wanted, strict=True):
        assert one.explanation is None
        shares = one.answer.probabilities
        assert (None if shares is None else round(float(shares.max()), 6)) == row["probability"]


def test_a_network_that_cannot_be_opened_is_said_and_mended_by_another(
    app_place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Model.load(app_place / MODEL)
    broken = Model.load(app_place / MODEL)
    broken.config = replace(model.config, weights_sha256="0" * 64)
    service = InferenceService(broken)
    service.start()
    until(lambda: service.failure)
    photos = uploaded(min((app_place / "photos").rglob("*.jpg")))
    with pytest.raises(BreedsError, match="weights"):
        answered(service, photos)
    service.use(model)
    assert answered(service, photos)[0].answer.probabilities is not None
    assert service.failure == ""
    service.close()
    assert "no photo can be answered: The model was trained on" in capsys.readouterr().err


def test_a_photo_of_the_store_is_explained_once_until_the_model_changes(app_place: Path) -> None:
    gate, model = Gate(photos=10), Model.load(app_place / MODEL)
    service = InferenceService(model, opener=gate.open)
    (photo,) = uploaded(min((app_place / "photos").rglob("*.jpg")))

    async def twice() -> None:
        both = await asyncio.gather(*(service.explained("key", photo) for _ in range(2)))
        assert both[0] is both[1] and both[0].explanation is not None

    in_a_loop(twice())
    assert gate.computed == 1
    service.use(Model.load(app_place / MODEL))
    in_a_loop(twice())
    assert gate.computed == 2
    service.close()


def test_what_goes_wrong_is_a_sentence_and_no_page_of_python(
    app_place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving_here(app_place, tmp_path, Gate().open) as running, running.client() as client:

        def fail(*_: object) -> None:
            raise ZeroDivisionError("\x1b[2J\nfake: line")

        running.site.picture = fail  # type: ignore[union-attr, method-assign]
        answer = client.get("/photo/" + "0" * 64)
        assert (answer.status_code, set(answer.headers) >= STRICT) == (500, True)
        assert "ZeroDivision" not in answer.text
    said = capsys.readouterr().err
    assert "ZeroDivisionError: \\x1b[2J\\nfake: line" in said
    assert len(said.splitlines()) == 1 and "Traceback" not in said


# --- the command line ------------------------------------------------------------------------------


def test_mistakes_are_one_sentence(app_place: Path, tmp_path: Path) -> None:
    def ran(*arguments: object, cwd: Path = app_place) -> subprocess.CompletedProcess[str]:
        return run_script("-m breeds.app", *arguments, cwd=cwd)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_refused(ran("--port", port), str(port), "--port")
    assert_refused(ran("--host", "0.0.0.0", "--port", 0), "0.0.0.0", "--token")
    assert_refused(ran("--host", "no.such.host.invalid", "--port", 0, "--token", "12345678"), "--host")
    assert_refused(ran("--host", "192.0.2.1", "--port", 0, "--token", "12345678"), "192.0.2.1")
    assert_refused(ran(cwd=tmp_path), "train_head.py")
    assert_refused(ran("--model", "no.safetensors"), "no.safetensors")
    assert_refused(ran("--store", "no.h5"), "no.h5")


@pytest.mark.parametrize("wrong", ["--port=70000", "--port=x", "--token=short", "--token=with blank",
                                   "--token=éééééééé", "--workers=0", "--max-upload=1"])  # fmt: skip
def test_options_that_make_no_sense_are_refused(tmp_path: Path, wrong: str) -> None:
    done = run_script("-m breeds.app", wrong, cwd=tmp_path)
    assert done.returncode == 2 and wrong.split("=")[0] in done.stderr and "Traceback" not in done.stderr


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, breeds.cli.app as m; m.parser(); print(*{'fastapi', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_quietly_and_leaves_nothing(app_place: Path, tmp_path: Path, number: int) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with serving(app_place, temporary) as running:
        assert running.process is not None
        body = multipart(*[part(jpeg(n)) for n in range(200)])
        with running.raw(post(body)), running.raw(post(body)[:-50]):
            until(lambda: running.client().get("/api/health").json()["waiting"] == 200)
            running.process.send_signal(number)
            assert running.process.wait(5) == 0
        rest = running.process.stdout.read()  # type: ignore[union-attr]
    said = (temporary / "stderr").read_text()
    assert [line for line in said.splitlines() if not line.startswith(("using ", "the model rests on"))] == []
    assert rest == ""
    assert os.listdir(temporary) == ["stderr"]


def test_an_answer_that_was_given_is_let_go_at_once(app_place: Path, tmp_path: Path) -> None:
    """What is in a circle with a photo or an answer would stay until Python looks, which it rarely does."""
    gate = Gate(photos=10_000)
    body = multipart(part(jpeg(0, (300, 200))))
    kind = {"Content-Type": KIND.decode()}
    with serving_here(app_place, tmp_path, gate.open) as running:
        connection = http.client.HTTPConnection("127.0.0.1", running.port)

        def ask(path: str, times: int) -> None:
            for _ in range(times):
                connection.request("POST", path, body, kind)
                assert b"No answer" not in connection.getresponse().read()

        for path in ("/api/predict", "/card"):
            ask(path, 10)
            gc.collect()
            gc.disable()
            tracemalloc.start()
            try:
                ask(path, 60)
                assert tracemalloc.get_traced_memory()[0] < 10 * len(body)
            finally:
                tracemalloc.stop()
                gc.enable()
        connection.close()
