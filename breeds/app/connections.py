"""Connections within bounds: how many, how long one may say nothing, and how long it may take nothing."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from breeds.app.guard import with_headers

#: How many connections are open at once; each costs some kilobytes.
MOST = 256
#: Seconds in which the head of a request has to be there, and in which an answer has to be taken on.
HEAD_SECONDS, TAKE_SECONDS = 15.0, 30.0
_TICK = 2.0


class Connection(H11Protocol):
    """One connection; whoever is slow is cut off, and holds nobody up until then.

    uvicorn itself waits without end for the head of a request, and for an answer to be taken.
    """

    _watch: asyncio.TimerHandle | None = None
    _quiet_since = _unsent_since = 0.0
    _last_cycle: Any = None
    _unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or say that there are too many."""
        super().connection_made(transport)
        # asyncio does so itself only for sockets made with an explicit protocol number; without it, head and
        # body go out as two packets, and the second waits 40 ms for the client to have confirmed the first.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._quiet_since = self._unsent_since = self.loop.time()
        self._watch = self.loop.call_later(_TICK, self._check)
        if len(self.connections) > MOST:
            self._refuse(503, "Too many connections; try again in a moment.", [(b"retry-after", b"2")])

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, unless the connection is already being closed."""
        if not self.transport.is_closing():
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Answer for what is no HTTP, with the headers that every answer has."""
        self._refuse(400, "This is no request that HTTP knows, or its head is too long.", [])

    def _refuse(self, status: int, sentence: str, more: list[tuple[bytes, bytes]]) -> None:
        body = f"{sentence}\n".encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *more,
        ]
        head = h11.Response(status_code=status, headers=with_headers(headers), reason=STATUS_PHRASES[status])
        events = (head, h11.Data(data=body), h11.EndOfMessage())
        try:
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        except h11.LocalProtocolError:  # in the middle of an answer
            self.transport.abort()
        self.transport.close()

    def _check(self) -> None:
        """Look at the connection, every now and then, and cut it if it is stuck."""
        now = self.loop.time()
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        serving = self.cycle is not None and not self.cycle.response_complete
        if serving or self.cycle is not self._last_cycle:
            self._last_cycle, self._quiet_since = self.cycle, now
        if now - self._unsent_since > TAKE_SECONDS or now - self._quiet_since > HEAD_SECONDS:
            self.transport.abort()
        else:
            self._watch = self.loop.call_later(_TICK, self._check)
