"""One HTTP/1.1 request on a connection of its own, for whoever asks a replica now and then.

The answer is read whole. Whoever answers may be slow, broken or hostile: time and size are bounded, and whatever goes
wrong is one ReplicaError, which says nothing of what was in the answer.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from autopoiesis.errors import ReplicaError

_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a replica listens."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    """None: plain HTTP."""
    bearer: str | None = field(default=None, repr=False)
    """Key that the replica wants."""

    @property
    def authority(self) -> str:
        """Host and port, as a URL has them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Answer(NamedTuple):
    status: int
    body: bytes


async def get(endpoint: Endpoint, path: str, *, timeout_s: float, bytes_max: int) -> Answer:
    """As `post`, without a body."""
    return await _exchange(endpoint, _head(endpoint, "GET", path) + b"\r\n", timeout_s, bytes_max)


async def post(endpoint: Endpoint, path: str, json: bytes, *, timeout_s: float, bytes_max: int) -> Answer:
    """The answer, of any status, if it is complete after `timeout_s` seconds and `bytes_max` bytes, headers included.

    Raises ReplicaError.
    """
    length = f"Content-Type: application/json\r\nContent-Length: {len(json)}\r\n\r\n"
    return await _exchange(endpoint, _head(endpoint, "POST", path) + length.encode() + json, timeout_s, bytes_max)


def _head(endpoint: Endpoint, method: str, path: str) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: {endpoint.authority}\r\nAccept: */*\r\nConnection: close\r\n"
    if endpoint.bearer is not None:
        head += f"Authorization: Bearer {endpoint.bearer}\r\n"
    return head.encode()


async def _exchange(endpoint: Endpoint, request: bytes, timeout_s: float, bytes_max: int) -> Answer:
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=endpoint.tls)
            try:
                writer.write(request)
                return await _answer(reader, bytes_max)
            finally:
                writer.transport.abort()
    except TimeoutError:
        raise ReplicaError(f"no answer within {timeout_s:g} s") from None
    except ssl.SSLCertVerificationError:
        raise ReplicaError("its certificate is not trusted; SSL_CERT_FILE may name a file of authorities") from None
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ReplicaError(f"the connection failed ({reason})") from None


async def _answer(reader: asyncio.StreamReader, bytes_max: int) -> Answer:
    response = _Response()
    parser = HttpResponseParser(response)
    response.status_code = parser.get_status_code
    received = 0
    while not response.complete:
        data = await reader.read(_READ_BYTES)
        received += len(data)
        if received > bytes_max:
            raise ReplicaError(f"an answer of more than {bytes_max} bytes")
        if not data and not response.ends_with_connection:
            raise ReplicaError("the connection ended before the answer did")
        if not data:
            break
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            raise ReplicaError("what it answers is not HTTP") from None
    return Answer(response.status, bytes(response.body))


class _Response:
    """What the parser calls: the first answer that is not an interim one (1xx)."""

    def __init__(self) -> None:
        self.status_code: Callable[[], int]
        self.status = 0
        self.body = bytearray()
        self.complete = False
        self._has_headers = self._has_length = False

    @property
    def ends_with_connection(self) -> bool:
        return self._has_headers and not self._has_length

    def on_header(self, name: bytes, value: bytes) -> None:
        self._has_length |= name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        if not self.complete:
            self.status = self.status_code()
            self._has_headers = self.status >= 200

    def on_body(self, data: bytes) -> None:
        if not self.complete:
            self.body += data

    def on_message_complete(self) -> None:
        self.complete = self._has_headers
