"""One connection of a client: requests come in one after the other, under limits, and answers go out.

What a client sends ahead of its answers waits, unparsed, and not without bound. Who sends too much, too slowly or no
HTTP gets an error in OpenAI's form and its connection is closed: first for writing, so that the answer is not lost
to a reset, and after a while altogether.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from autopoiesis.serve.config import Limits
from autopoiesis.serve.http import for_method, refusal
from autopoiesis.serve.openai import ApiError, unavailable
from autopoiesis.serve.request import Request

AHEAD_BYTES = 64 * 1024
"""Read ahead of an answer before reading pauses."""
LINGER_S = 2.0
"""How long a refused client may go on sending, unread."""
PIPELINED = 64
"""Requests that may have come in one piece, ahead of their answers."""


class Underway(Protocol):
    """A request that is being answered. It calls `Client.finished` once, unless the client has gone before."""

    def check(self, now: float) -> None:
        """Look at the clock."""

    def client_gone(self) -> None: ...

    def cancel(self, error: ApiError) -> None:
        """End it now, with this error if that can still be said."""

    def pause(self) -> None:
        """The client does not read as fast as it is written to."""

    def resume(self) -> None: ...


class Site(Protocol):
    """What is served on a port."""

    limits: Limits
    loop: asyncio.AbstractEventLoop
    now: Callable[[], float]
    stopping: bool
    buffered_bytes: int
    """Of requests, and of answers, that are kept."""

    def joined(self, client: Client) -> bool:
        """A client has connected; whether it may stay."""

    def left(self, client: Client) -> None: ...

    def look_at_head(self, request: Request) -> None:
        """Refuse what no body can make right. Raises ApiError."""

    def body_too_large(self) -> ApiError: ...

    def refused(self, error: ApiError, request_id: bytes) -> None:
        """A request has been answered with an error before it was accepted."""

    def accept(self, client: Client, request: Request) -> None:
        """A whole request has come: answer it, now or by setting `client.exchange`."""


class Client(asyncio.Protocol):
    """A connection. It has at most one exchange, or none while it waits for a request."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._limits = site.limits
        self._parser: httptools.HttpRequestParser | None = None
        self._transport: asyncio.Transport | None = None
        self._request: Request | None = None
        self._in_head = False
        self._head_bytes = 0
        self._headers = 0
        self._silent_bytes = 0
        """Taken in by the parser since it last had anything to say."""
        self._bodiless: Request | None = None
        """A request of which the parser has taken the body for another protocol."""
        self._parsed: deque[Request] = deque()
        self._ahead = bytearray()
        self._refusal: ApiError | None = None
        self._closing = False
        self._deadline = math.inf
        self._blocked_since = math.inf
        self._reading = True
        self.exchange: Underway | None = None

    # What exchanges call.

    @property
    def writable(self) -> bool:
        """Whether what is written now goes out at once, as far as we know."""
        return self._blocked_since == math.inf

    def write(self, data: bytes) -> None:
        # uvloop raises where a connection has been lost and nobody has been told yet.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def finished(self, keep: bool) -> None:
        """The exchange has written its answer."""
        self.exchange = None
        if self._transport is None:
            return
        if not keep or self._site.stopping:
            self._close()
            return
        limits = self._limits
        if self._request is None:
            self._deadline = self._site.now() + limits.idle_timeout_s
        else:
            self._deadline = self._site.now() + (limits.header_timeout_s if self._in_head else limits.body_timeout_s)
        if self._parsed or self._ahead or self._refusal is not None:
            self._site.loop.call_soon(self._next)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # What the gateway calls.

    def check(self, now: float) -> None:
        """Look at the clock: is anything overdue?"""
        if now - self._blocked_since > self._limits.write_timeout_s:
            self.abort()
        elif self.exchange is not None:
            self.exchange.check(now)
        elif now > self._deadline:
            if self._closing or self._request is None:
                self.abort()
            else:
                self._refuse(ApiError(408, "the request did not arrive in time", code="request_timeout"))

    def stop(self) -> None:
        """The gateway is about to end: close once nothing is under way."""
        if self.exchange is None and self._request is None:
            self._close()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)
        self._deadline = self._site.now() + self._limits.header_timeout_s
        if not self._site.joined(self):
            message = "the gateway has as many connections as it may have"
            self._refuse(ApiError(503, message, kind="server_error", code="too_many_connections", retry_after_s=1.0))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._site.left(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()
        # The parser and this object hold each other.
        self._parser = None
        self._forget()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self.exchange is not None or self._parsed or self._ahead or not self.writable:
            self._ahead += data
            if len(self._ahead) > AHEAD_BYTES and self._reading and self._transport is not None:
                self._reading = False
                self._transport.pause_reading()
            return
        self._feed(data)

    def pause_writing(self) -> None:
        self._blocked_since = self._site.now()
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        self._blocked_since = math.inf
        if self.exchange is not None:
            self.exchange.resume()
        else:
            self._site.loop.call_soon(self._next)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._bodiless is not None:
            self._request = self._bodiless
            return
        if len(self._parsed) >= PIPELINED:
            self._reject(ApiError(429, "too many requests in one piece", code="too_many_pipelined", close=True))
        self._request = Request()
        self._in_head = True
        self._head_bytes = self._headers = 0
        self._deadline = self._site.now() + self._limits.header_timeout_s

    def on_url(self, url: bytes) -> None:
        assert self._request is not None
        if self._bodiless is not None:
            return
        self._count(len(url))
        self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._request is not None
        if self._bodiless is not None:
            return
        self._headers += 1
        if self._headers > self._limits.headers:
            self._reject(ApiError(431, f"more than {self._limits.headers} headers", code="headers_too_large"))
        self._count(len(name) + len(value) + 4)
        if not self._in_head:  # a trailer is no header (RFC 9110, 6.5.1)
            return
        try:
            self._request.header(name, value)
        except ApiError as error:
            self._reject(error)

    def on_headers_complete(self) -> None:
        request, parser = self._request, self._parser
        assert request is not None
        assert parser is not None
        self._deadline = self._site.now() + self._limits.body_timeout_s
        if self._bodiless is not None:
            self._bodiless = None
            return
        self._in_head = False
        request.method = parser.get_method()
        version = parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._reject(_no_http())
        request.minor = 0 if version == "1.0" else 1
        try:
            self._site.look_at_head(request)
        except ApiError as error:
            self._reject(error)
        if request.continued and request.minor and self._transport is not None and self.exchange is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        request = self._request
        assert request is not None
        request.size += len(body)
        self._site.buffered_bytes += len(body)
        if request.size > self._limits.body_bytes:
            self._reject(self._site.body_too_large())
        if self._site.buffered_bytes > self._limits.buffered_bytes:
            self._reject(unavailable("the gateway holds as many bytes of requests as it may", "out_of_buffers", 1.0))
        if not request.received:
            request.received = body
        else:
            if isinstance(request.received, bytes):
                request.received = bytearray(request.received)
            request.received += body

    def on_message_complete(self) -> None:
        request, self._request = self._request, None
        assert request is not None
        assert self._parser is not None
        request.keep_alive = request.keep_alive and self._parser.should_keep_alive()
        request.body, request.received = bytes(request.received), b""
        self._parsed.append(request)

    # What happens here.

    def _feed(self, data: bytes) -> None:
        assert self._parser is not None
        if self._request is None and self._deadline == math.inf:
            self._deadline = self._site.now() + self._limits.header_timeout_s
        request, heard = self._request, self._heard
        refusal: ApiError | None = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            if (refusal := self._refusal) is None:
                raise
        except httptools.HttpParserUpgrade as upgrade:
            if rest := self._declined(data[upgrade.args[0] :]):
                self._feed(rest)
                return
        except httptools.HttpParserError:
            refusal = _no_http()
        # A header without end, or what stands beside chunks, comes to nothing that is counted.
        silent = self._request is not None and self._request is request and self._heard == heard
        self._silent_bytes = self._silent_bytes + len(data) if silent else 0
        if refusal is None and self._silent_bytes > self._limits.header_bytes:
            refusal = self._head_too_large()
        # Requests that were whole before the fault are answered first.
        self._refusal = refusal
        if self._parsed:
            self._next()
        elif refusal is not None:
            self._refuse(refusal)

    def _next(self) -> None:
        """Begin what has come while something else was under way, or the client had not read what was answered."""
        if self.exchange is not None or self._transport is None or self._closing or not self.writable:
            return
        if self._parsed:
            request = self._parsed.popleft()
            self._deadline = math.inf
            self._site.buffered_bytes -= request.size
            self._site.accept(self, request)
        elif self._refusal is not None:
            self._refuse(self._refusal)
        elif self._ahead:
            data = bytes(self._ahead)
            self._ahead.clear()
            if not self._reading:
                self._reading = True
                self._transport.resume_reading()
            self._feed(data)

    def _declined(self, rest: bytes) -> bytes:
        """What to go on with after a request that offers another protocol, of which the parser knows the head alone:
        it is taken as if it did not."""
        self._parser = httptools.HttpRequestParser(self)
        framing = self._parsed[-1].framing
        if framing:
            self._bodiless = self._parsed.pop()
            return b"POST / HTTP/1.1\r\n%b\r\n%b" % (framing, rest)
        return rest

    @property
    def _heard(self) -> int:
        """Grows with whatever the parser says of a request."""
        return self._head_bytes + (self._request.size if self._request is not None else 0)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.header_bytes:
            self._reject(self._head_too_large())

    def _head_too_large(self) -> ApiError:
        message = f"the request line and headers are longer than {self._limits.header_bytes} bytes"
        return ApiError(431, message, code="headers_too_large")

    def _reject(self, error: ApiError) -> None:
        """Stop the parser; what is raised comes back from it as its own error."""
        self._refusal = error
        raise error

    def _refuse(self, error: ApiError) -> None:
        """Answer with an error, and close once the client has had time to read it."""
        assert self._transport is not None
        request_id, method = (self._request.id, self._request.method) if self._request is not None else (b"", b"")
        self._forget()
        self._closing = True
        self._site.refused(error, request_id)
        lines = b"x-request-id: %b\r\n" % request_id if request_id else b""
        self._transport.write(for_method(method, refusal(error, lines, close=True)))
        self._close()

    def _close(self) -> None:
        if self._transport is None:
            return
        self._closing = True
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._deadline = self._site.now() + LINGER_S
        else:
            self._transport.close()

    def _forget(self) -> None:
        """What has been read and will not be answered is not kept."""
        for request in (self._request, *self._parsed):
            if request is not None:
                self._site.buffered_bytes -= request.size
                request.body = request.received = b""
        # An error and the frames that it was raised through hold each other, and all that was read.
        self._request = self._refusal = None
        self._parsed.clear()
        self._ahead.clear()


def _no_http() -> ApiError:
    return ApiError(400, "the request is not valid HTTP/1.1", code="invalid_http")
