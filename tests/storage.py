"""Object storage on this machine for the tests: moto's S3 server, and a proxy before it that makes faults."""

from __future__ import annotations

import http.client
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: What to do with a request of a method and a path: "" to pass it on, "500", "403", "cut" or "slow".
Fault = Callable[[str, str], str]


class Storage:
    """A bucket named ``dogs`` in a server of its own; requests go through `fault`, and `asked` has them."""

    def __init__(self) -> None:
        import boto3
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.behind = self._server.get_host_and_port()
        self.fault: Fault = lambda method, path: ""
        self.asked: list[tuple[str, str]] = []
        storage = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                storage.asked.append((self.command, self.path))
                storage.pass_on(self, storage.fault(self.command, self.path))

            do_HEAD = do_GET  # noqa: N815

        class Proxy(ThreadingHTTPServer):
            request_queue_size = 128  # with the library's 5 a burst of requests finds nobody there

        self._proxy = Proxy(("127.0.0.1", 0), Handler)
        self._proxy.daemon_threads = True
        threading.Thread(target=self._proxy.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._proxy.server_port}"
        self.env = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "very-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        host, port = self.behind
        self.client = boto3.client(
            "s3", endpoint_url=f"http://{host}:{port}", aws_access_key_id="key",
            aws_secret_access_key="very-secret", region_name="us-east-1",
        )  # fmt: skip
        self.client.create_bucket(Bucket="dogs")

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket="dogs", Key=name, Body=data)

    def pass_on(self, handler: BaseHTTPRequestHandler, fault: str) -> None:
        if fault in ("500", "403"):
            handler.send_response(int(fault))
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        back = http.client.HTTPConnection(*self.behind, timeout=30)
        back.request(handler.command, handler.path, headers=dict(handler.headers))
        answer = back.getresponse()
        body = answer.read()
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                handler.send_header(name, value)
        length = answer.getheader("Content-Length", "0") if handler.command == "HEAD" else str(len(body))
        handler.send_header("Content-Length", length)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if fault == "cut":
            handler.wfile.write(body[: len(body) // 2])
            handler.close_connection = True
        elif fault == "slow":
            for at in range(0, len(body), max(1, len(body) // 8)):
                handler.wfile.write(body[at : at + max(1, len(body) // 8)])
                handler.wfile.flush()
                time.sleep(0.01)
        else:
            handler.wfile.write(body)

    def close(self) -> None:
        self._proxy.shutdown()
        self._proxy.server_close()
        self._server.stop()


@contextmanager
def stored() -> Iterator[Storage]:
    """Give object storage while the block runs."""
    storage = Storage()
    try:
        yield storage
    finally:
        storage.close()
