"""A connection that carries one request after the other.

Time stamps are taken where bytes are read, and packets are acknowledged at once: a server that leaves Nagle's
algorithm on (llama.cpp's does) holds tokens back until the last packet is acknowledged, and a delayed acknowledgement
makes dozens of them arrive as one.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import httptools

from autopoiesis.bench.load.exchange import MALFORMED, RESET, Exchange

QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Where the system can; it wears off."""


class Connection(asyncio.Protocol):
    """Says by `ended` when its exchange is over; where it is `free` then, another one may begin on it."""

    def __init__(self, ended: Callable[[Connection, Exchange], None]) -> None:
        self.free = False
        self.idle_since_s = 0.0
        self.exchange: Exchange | None = None
        self._ended = ended
        self._transport: Any = None
        self._socket: Any = None
        self._parser: Any = None
        self._status = 0
        self._outcome: str | None = None
        """Once the answer is over: the kind of fault, empty where there is none."""
        self._read_s = 0.0

    def begin(self, exchange: Exchange, message: bytes) -> None:
        """Send a request. The connection must be free, or just made."""
        self.exchange = exchange
        self.free = False
        self._status = 0
        self._outcome = None
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(message)

    def close(self) -> None:
        """Drop the connection; no `ended` follows."""
        self.free = False
        self.exchange = None
        if self._transport is not None:
            self._transport.abort()

    # --- the transport's side -----------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._socket = transport.get_extra_info("socket")
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._read_s = time.monotonic()
        if QUICK_ACK is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)
        if self.exchange is None:
            # bytes that nobody asked for: the next answer could not be told from them
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._outcome = MALFORMED
        if self._outcome is not None:
            self._end(self._outcome)

    def connection_lost(self, error: Exception | None) -> None:
        self.free = False
        self._read_s = time.monotonic()
        if self.exchange is None:
            return
        if self._status not in (0, 200):
            # an answer without a length ends with its connection
            self._end(f"status {self._status}")
        else:
            self._end("" if self.exchange.answer.done else RESET)

    # --- the parser's side --------------------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        self._status = int(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        if self.exchange is not None and self._status == 200 and not self._outcome:
            self._outcome = self.exchange.answer.feed(body, self._read_s) or None

    def on_message_complete(self) -> None:
        if self.exchange is None or self._outcome or 100 <= self._status < 200:
            return
        self.free = bool(self._parser.should_keep_alive())
        if self._status != 200:
            self._outcome = f"status {self._status}"
        else:
            self._outcome = "" if self.exchange.answer.done else MALFORMED

    def _end(self, fault: str) -> None:
        exchange, self.exchange = self.exchange, None
        assert exchange is not None
        exchange.fault = fault
        exchange.end_s = self.idle_since_s = self._read_s
        self._ended(self, exchange)
