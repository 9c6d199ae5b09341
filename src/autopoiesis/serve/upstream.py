"""Connections to replicas: kept alive, used by one request at a time, and pooled for each replica."""

from __future__ import annotations

import asyncio
import ssl
from typing import Protocol, cast

import httptools

from autopoiesis.serve.health import Failure
from autopoiesis.serve.http import NOT_RETURNED

IDLE_MAX = 512
"""Unused connections kept for one replica."""
IDLE_S = 60.0
HEAD_BYTES = 64 * 1024
"""Largest head of a response."""


class Receiver(Protocol):
    """Who waits for a response. Exactly one of `ended` and `lost` is called for each request, as the last."""

    def body(self, data: bytes) -> None:
        """A part of the body; status and headers are known by then."""

    def ended(self) -> None:
        """The response is whole."""

    def lost(self, kind: Failure) -> None:
        """There will be no more."""


class Upstream(asyncio.Protocol):
    """A connection to one replica."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._pieces: list[bytes] = []
        self._whole = self._keeps = False
        self._head_bytes = 0
        self._silent_bytes = 0
        """Taken in by the parser since it last had anything to say."""
        self.used = False
        """Whether it has carried a request before: then the replica may have closed it in the meantime."""
        self.idle_since = 0.0
        self.answered = False
        """Whether anything has come for the request under way."""
        self.status = 0
        self.kind = b""
        """The content type."""
        self.headers: list[bytes] = []
        """Lines to return to the client."""
        self.framed = False
        """Whether the response says where it ends; otherwise it ends with the connection."""

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes, receiver: Receiver) -> None:
        """Begin a request; the connection must be usable and free."""
        assert self._transport is not None
        self._receiver = receiver
        self.answered = self._whole = self.framed = False
        self.status, self.kind, self.headers, self._head_bytes, self._silent_bytes = 0, b"", [], 0, 0
        self._transport.write(request)

    def abandon(self) -> None:
        """Nobody waits for the response any more: the engine sees a client that has gone."""
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._receiver is None or self._parser is None:  # an answer to nothing
            self.abandon()
            return
        self.answered = True
        head_bytes = self._head_bytes
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._lose(Failure.PROTOCOL)
            return
        if self._pieces:
            body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            self._receiver.body(body)
            self._silent_bytes = 0
        elif self._head_bytes == head_bytes:
            # A header without end, or interim replies without one, come to nothing that is counted.
            self._silent_bytes += len(data)
            if self._silent_bytes > HEAD_BYTES:
                self._lose(Failure.PROTOCOL)
                return
        if self._whole and self._receiver is not None:
            self._end(self._keeps)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = self._parser = None  # the parser and this object hold each other
        self._pool.closed(self)
        if self._receiver is None:
            return
        if exc is None and self.status and not self.framed:
            self._end(False)  # without a length, the end of the connection is the end of the body
        else:
            self._lose(Failure.RESET)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._whole:
            raise ValueError("a response that nobody has asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_BYTES:
            raise ValueError("the head of a response is too large")
        if self.status:  # a trailer is no header (RFC 9110, 6.5.1)
            return
        if name == b"content-type":
            self.kind = value
        elif name == b"content-length" or name == b"transfer-encoding":
            self.framed = True
        if name not in NOT_RETURNED:
            self.headers.append(b"%b: %b\r\n" % (name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self.status = self._parser.get_status_code()
        if not 100 <= self.status < 600:
            raise ValueError("a status that HTTP does not have")
        if self.status < 200:  # 100 Continue and 103 Early Hints come before the response
            self.status, self.kind, self.headers, self.framed = 0, b"", [], False

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        self._whole = self.status != 0
        # The parser knows this only now, and forgets it at once.
        self._keeps = self._parser.should_keep_alive()

    def _end(self, keep: bool) -> None:
        receiver, self._receiver = self._receiver, None
        self.used = True
        if keep and self.usable:
            self.resume()  # whoever read it last may have been slow
            self._pool.keep(self)
        elif self._transport is not None:
            self._transport.close()
        assert receiver is not None
        receiver.ended()

    def _lose(self, kind: Failure) -> None:
        receiver, self._receiver = self._receiver, None
        if self._transport is not None:
            self._transport.abort()
        assert receiver is not None
        receiver.lost(kind)


class Pool:
    """The connections to one replica."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        host: str,
        port: int,
        *,
        tls: bool,
        token: str | None,
        connect_timeout_s: float,
    ) -> None:
        name = f"[{host}]" if ":" in host else host
        self.lines = f"host: {name}:{port}\r\n".encode()
        """Headers of every request: the replica's name, and what it wants to see of us."""
        if token is not None:
            self.lines += f"authorization: Bearer {token}\r\n".encode()
        self._loop = loop
        self._host = host
        self._port = port
        self._tls = ssl.create_default_context() if tls else None
        self._timeout_s = connect_timeout_s
        self._idle: list[Upstream] = []
        self._closed = False

    def take(self) -> Upstream | None:
        """An unused connection, the one used last: it is the least likely to have been closed."""
        while self._idle:
            upstream = self._idle.pop()
            if upstream.usable:
                return upstream
        return None

    async def connect(self) -> Upstream:
        """A new connection. Raises OSError or TimeoutError."""
        async with asyncio.timeout(self._timeout_s):
            _, upstream = await self._loop.create_connection(
                lambda: Upstream(self), self._host, self._port, ssl=self._tls
            )
        return upstream

    def keep(self, upstream: Upstream) -> None:
        if self._closed or len(self._idle) >= IDLE_MAX:
            upstream.abandon()
            return
        upstream.idle_since = self._loop.time()
        self._idle.append(upstream)

    def closed(self, upstream: Upstream) -> None:
        if upstream in self._idle:
            self._idle.remove(upstream)

    def reap(self) -> None:
        """Close what nobody has used for a while."""
        oldest = self._loop.time() - IDLE_S
        while self._idle and self._idle[0].idle_since < oldest:
            self._idle.pop(0).abandon()

    def close(self) -> None:
        """Keep no connection any more; those in use end with their requests."""
        self._closed = True
        for upstream in tuple(self._idle):
            upstream.abandon()
        self._idle.clear()
