"""One HTTP request of a client, as it is parsed: what the gateway needs of it, and what goes on to a replica."""

from __future__ import annotations

import math
import random
import re
from typing import TYPE_CHECKING

from autopoiesis.serve.http import NOT_FORWARDED
from autopoiesis.serve.openai import ApiError

if TYPE_CHECKING:
    from autopoiesis.serve.keys import Key

_REQUEST_ID = re.compile(rb"[\w.:\-]{1,128}")
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
"""W3C Trace Context, 3.2: version, trace, parent, flags; later versions may append fields."""
_SESSION_BYTES = 256


class Request:
    """A request's head and body. `id` and `trace` are the client's where it sent usable ones."""

    __slots__ = (
        "_dropped", "_lines", "authorization", "body", "coding", "continued", "host", "id", "keep_alive", "key",
        "length", "method", "minor", "origin", "received", "session", "size", "target", "timeout_s", "trace",
    )  # fmt: skip

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.authorization: bytes | None = None
        self.key: Key | None = None
        """Whose request it is, once the head is complete."""
        self.id = b""
        self.host = self.origin = b""
        self.trace = b""
        """`traceparent`, as it came."""
        self.session = b""
        self.timeout_s = math.inf
        """What the client gives the request, by `x-request-timeout` in seconds."""
        self.length: int | None = None
        """As announced; None for a chunked body or none."""
        self.coding = b""
        """The `transfer-encoding`."""
        self.continued = False
        """Whether the client waits for `100 Continue`."""
        self.keep_alive = True
        self.minor = 1
        """HTTP/1.minor."""
        self.received: bytes | bytearray = b""
        """What has come of the body. Many pieces grow in place, since each alone would take more than its bytes."""
        self.size = 0
        """Bytes of the body that have come."""
        self.body = b""
        """Once it is whole."""
        self._lines: list[tuple[bytes, bytes]] = []
        self._dropped: set[bytes] | None = None

    @property
    def path(self) -> bytes:
        return self.target.partition(b"?")[0]

    def header(self, name: bytes, value: bytes) -> None:
        """Take one header. Raises ApiError (400) for a value that cannot be used."""
        name = name.lower()
        if name not in NOT_FORWARDED:
            self._lines.append((name, value))
            if name == b"origin":
                self.origin = value
        elif name == b"authorization":
            self.authorization = value
        elif name == b"content-length":
            self.length = int(value) if value.isdigit() and len(value) < 19 else None
        elif name == b"transfer-encoding":
            self.coding = value
        elif name == b"x-request-id":
            self.id = value if _REQUEST_ID.fullmatch(value) else b""
        elif name == b"traceparent":
            self.trace = value
        elif name == b"expect":
            self.continued = value.lower() == b"100-continue"
        elif name == b"connection":
            names = {option.strip().lower() for option in value.split(b",")} - {b"keep-alive", b"close"}
            self._dropped = (self._dropped or set()) | names
        elif name == b"host":
            self.host = value
        elif name == b"x-session-id":
            self.session = value[:_SESSION_BYTES]
        elif name == b"x-request-timeout":
            self.timeout_s = seconds(value)

    @property
    def framing(self) -> bytes:
        """The header that says how long the body is; empty if there is none."""
        if self.coding:
            return b"transfer-encoding: %b\r\n" % self.coding
        return b"content-length: %d\r\n" % self.length if self.length else b""

    def lines(self) -> bytes:
        """The headers that go on to the replica."""
        dropped = self._dropped
        if dropped:  # headers that the client says concern this connection alone
            return b"".join([b"%b: %b\r\n" % line for line in self._lines if line[0] not in dropped])
        return b"".join([b"%b: %b\r\n" % line for line in self._lines])


def seconds(value: bytes) -> float:
    """A time limit. Raises ApiError (400)."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        message = "x-request-timeout must be a number of seconds above 0"
        raise ApiError(400, message, param="x-request-timeout", code="invalid_header")
    return number


def span(trace: bytes, ids: random.Random) -> bytes:
    """The `traceparent` of the gateway's own span: in the client's trace, or in a new one that is not sampled."""
    match = _TRACEPARENT.fullmatch(trace) if trace else None
    if match is None or match[1] == b"ff" or not match[2].strip(b"0") or not match[3].strip(b"0"):
        return b"00-%032x-%016x-00" % (ids.getrandbits(128) | 1, ids.getrandbits(64) | 1)
    return b"00-%b-%016x-%b" % (match[2], ids.getrandbits(64) | 1, match[4])
