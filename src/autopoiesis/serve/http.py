"""HTTP/1.1 as bytes: the replies that the gateway itself writes, and what of headers it passes on."""

from __future__ import annotations

import math
from http import HTTPStatus

from autopoiesis.serve.openai import JSON, ApiError

PLAIN = b"text/plain; version=0.0.4; charset=utf-8"
"""Of a Prometheus page."""
PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}

HOP_BY_HOP = frozenset(
    (
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    )
)  # fmt: skip
"""Headers that concern one connection only (RFC 9110, 7.6.1)."""

OURS = frozenset(
    (b"host", b"content-length", b"expect", b"authorization", b"accept-encoding", b"x-request-id", b"traceparent",
     b"x-request-timeout", b"x-session-id")
)  # fmt: skip
"""Headers of a request that the gateway answers or writes itself. Answers come uncompressed, or usage were hidden."""

NOT_FORWARDED = HOP_BY_HOP | OURS
NOT_RETURNED = HOP_BY_HOP | {b"content-length", b"content-type", b"x-request-id", b"date", b"server"}


def head(status: int, headers: bytes) -> bytes:
    """The head of a reply; `headers` are whole lines."""
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, PHRASES.get(status, b"Unknown"), headers)


def reply(status: int, body: bytes, *, kind: bytes = JSON, headers: bytes = b"", close: bool = False) -> bytes:
    """A whole reply."""
    lines = b"content-type: %b\r\ncontent-length: %d\r\n%b" % (kind, len(body), headers)
    return head(status, lines + b"connection: close\r\n" if close else lines) + body


def for_method(method: bytes, answer: bytes) -> bytes:
    """The reply as it goes out: HEAD gets it without its body."""
    return answer[: answer.index(b"\r\n\r\n") + 4] if method == b"HEAD" else answer


def refusal(error: ApiError, headers: bytes = b"", *, close: bool = False) -> bytes:
    """The reply to a request that is refused."""
    if error.retry_after_s is not None:
        headers += b"retry-after: %d\r\n" % max(1, math.ceil(error.retry_after_s))
    if error.status == 401:
        headers += b"www-authenticate: Bearer\r\n"
    return reply(error.status, error.body, headers=headers, close=close or error.close)


def chunk(data: bytes) -> bytes:
    """A piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
