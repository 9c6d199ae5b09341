"""One client's connection: HTTP/1.1 in, whole answers or streams of events out, one call after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import parse_qs

import httptools

from autopoiesis.serve.emulated.refusal import Refusal

BODY_BYTES = 32 << 20
HEADER_BYTES = 64 << 10
HEADERS = 256
CALLS = 64
"""Sent ahead on one connection before the first of them is answered."""
LINGER_S = 1.0
"""How long what a refused client still sends is read and dropped, so that it gets to read the answer."""
REQUEST_ID_BYTES = 256


@dataclass(frozen=True, slots=True)
class Request:
    """A call that has come in whole."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes
    id: str | None
    """From `X-Request-Id`, if it is plain."""
    keep_alive: bool
    chunked: bool
    """Whether the client can read a stream in chunks; it reads to the connection's end if not."""


class Reading(Protocol):
    """Who is answering on a connection."""

    def lost(self) -> None:
        """The client is gone."""

    def resumed(self) -> None:
        """The client reads again."""


class Connection(asyncio.Protocol):
    """`serve` is given each call, in turn, and answers it, now or later."""

    def __init__(
        self, serve: Callable[[Request, Connection], None], connections: set[Connection], keep_alive_s: float
    ) -> None:
        self.blocked = False
        """The client does not read as fast as we write."""
        self.answering: Reading | None = None
        """Who wants to know of it when the client is gone."""
        self._serve = serve
        self._connections = connections
        self._keep_alive_s = keep_alive_s
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._calls: deque[Request | Refusal] = deque()
        self._current: Request | None = None
        self._deaf = False
        """Nothing more is read."""
        self._idle: asyncio.TimerHandle | None = None
        self.on_message_begin()

    # --- the transport ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._connections.add(self)
        self._rest()

    def connection_lost(self, error: Exception | None) -> None:
        self._deaf = True
        self._connections.discard(self)
        self._busy()
        if self.answering is not None:
            answering, self.answering = self.answering, None
            answering.lost()

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False
        if self.answering is not None:
            self.answering.resumed()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._busy()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # the call is answered in the protocol that it came in, as its last
            self._deaf = True
        except httptools.HttpParserError:
            self._refuse(Refusal(400, "the request is not well-formed HTTP/1.1"))
        if self._current is None:
            if self._calls:
                self._next()
            else:
                self._rest()

    # --- the parser ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url = b""
        self._id: str | None = None
        self._headers = 0
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._continue = False

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count(len(url), 0)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value), 1)
        name = name.lower()
        if name == b"x-request-id" and value.isascii() and len(value) <= REQUEST_ID_BYTES:
            text = value.decode()
            if text and all(c.isalnum() or c in "-_.:" for c in text):
                self._id = text
        elif name == b"expect" and value.lower() == b"100-continue":
            self._continue = True

    def on_headers_complete(self) -> None:
        if self._continue and not self._deaf and self._current is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > BODY_BYTES:
            self._refuse(Refusal(413, f"the body is larger than {BODY_BYTES} bytes"))
        elif not self._deaf:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._deaf:
            return
        if len(self._calls) >= CALLS:
            self._refuse(Refusal(400, f"more than {CALLS} calls were sent ahead of their answers"))
            return
        try:
            target = httptools.parse_url(self._url)
            path, query = (target.path or b"/").decode(), parse_qs((target.query or b"").decode())
        except (httptools.HttpParserInvalidURLError, ValueError):
            self._refuse(Refusal(400, "the request's target is not well-formed"))
            return
        chunked = self._parser.get_http_version() != "1.0"
        self._calls.append(
            Request(
                method=self._parser.get_method().decode(),
                path=path,
                query=query,
                body=b"".join(self._body),
                id=self._id,
                keep_alive=self._parser.should_keep_alive() and chunked and not self._parser.should_upgrade(),
                chunked=chunked,
            )
        )

    def _count(self, more: int, headers: int) -> None:
        self._header_bytes += more
        self._headers += headers
        if self._header_bytes > HEADER_BYTES or self._headers > HEADERS:
            self._refuse(Refusal(431, f"the head is larger than {HEADER_BYTES} bytes or {HEADERS} fields"))

    def _refuse(self, refusal: Refusal) -> None:
        """What comes next cannot be read: say so once what came before has been answered."""
        if not self._deaf:
            self._deaf = True
            self._body.clear()
            self._calls.append(refusal)

    # --- answers ------------------------------------------------------------------------------------------------

    def _next(self) -> None:
        if self._current is not None or not self._calls or self._transport.is_closing():
            return
        call = self._calls.popleft()
        if isinstance(call, Refusal):
            self._transport.write(_head(call.status, "application/json", len(call.body), None, False) + call.body)
            self.close()
            return
        self._current = call
        try:
            self._serve(call, self)
        except Refusal as refusal:
            self.respond(refusal.status, refusal.body)

    def respond(self, status: int, body: bytes = b"", kind: str = "application/json", *, last: bool = False) -> None:
        """Answer the call; with `last` it is the connection's last."""
        call = self._call()
        keep_alive = call.keep_alive and not last
        self._transport.write(_head(status, kind, len(body), call.id, keep_alive) + body)
        self._done(keep_alive)

    @property
    def waits(self) -> bool:
        """Somebody waits for the answer to a call."""
        return self._current is not None and not self._transport.is_closing()

    def begin_stream(self) -> bool:
        """Answer the call with events from now on; whether they must be sent in chunks."""
        call = self._call()
        kind = "text/event-stream; charset=utf-8"
        self._transport.write(_head(200, kind, None, call.id, call.keep_alive, call.chunked))
        return call.chunked

    def write(self, data: bytes) -> None:
        """Part of a stream."""
        self._transport.write(data)

    def end_stream(self, data: bytes) -> None:
        """The rest of it."""
        self._transport.write(data)
        self._done(self._call().keep_alive)

    def close(self) -> None:
        """What has been written is sent still; what the client sends is dropped."""
        self._deaf = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER_S, self._transport.close)

    def close_idle(self) -> None:
        """Close it, if nothing is being answered."""
        if self._current is None:
            self._transport.close()

    def abort(self) -> None:
        """Close it at once, as a process that dies does."""
        self._transport.abort()

    def _call(self) -> Request:
        assert self._current is not None, "no call is being answered"
        return self._current

    def _done(self, keep_alive: bool) -> None:
        self._current = None
        self.answering = None
        if not keep_alive:
            self._transport.close()
        elif self._calls:
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self._rest()

    def _rest(self) -> None:
        """The connection may be idle for so long."""
        if self._idle is None and not self._deaf:
            self._idle = asyncio.get_running_loop().call_later(self._keep_alive_s, self._transport.close)

    def _busy(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None


def _head(status: int, kind: str, length: int | None, id: str | None, keep_alive: bool, chunked: bool = True) -> bytes:
    """The head of an answer; without a length, of one that is sent in chunks or up to the connection's end."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"content-type: {kind}"]
    if length is not None:
        lines.append(f"content-length: {length}")
    elif chunked:
        lines.append("transfer-encoding: chunked")
    if id is not None:
        lines.append(f"x-request-id: {id}")
    if not keep_alive:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
