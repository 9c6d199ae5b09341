"""HTTP replies as a strict client reads them, and what a gateway's errors must look like."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field

TAG = re.compile(rb"t@[a-z]*\d+@")
"""Every request has a tag of its own, which is in every good answer to it."""
KEPT_BYTES = 2**20

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-9]\d\d) ([ -~]*)\r\n")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\t -~\x80-\xff]*)")


class Violation(Exception):
    """The gateway has done what it must not."""


class Truncated(Violation):
    """The connection ended within a reply."""


@dataclass
class Reply:
    status: int
    headers: dict[bytes, bytes]
    body: bytes = b""
    """As much as is kept of it."""
    size: int = 0
    tail: bytes = b""
    """The end of a body of which not all is kept."""
    interim: list[int] = field(default_factory=list)
    """Statuses below 200 that came before it."""

    @property
    def closes(self) -> bool:
        return self.headers.get(b"connection", b"").lower() == b"close"

    def add(self, data: bytes) -> None:
        if len(self.body) < KEPT_BYTES:
            self.body += data
        self.size += len(data)
        self.tail = data[-256:] if len(data) >= 256 else (self.tail + data)[-256:]


async def read_reply(reader: asyncio.StreamReader, method: str) -> Reply | None:
    """The next reply that is not interim, judged; None if the connection ends instead. Raises Violation."""
    interim: list[int] = []
    while True:
        head = await _head(reader)
        if head is None:
            if interim:
                raise Truncated("the connection ended after an interim reply")
            return None
        reply = _parsed(head)
        if reply.status >= 200:
            break
        interim.append(reply.status)
    reply.interim = interim
    try:
        await _read_body(reader, reply, method)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Truncated(f"the connection ended within the body of a {reply.status}") from error
    judge(reply, method)
    return reply


def judge(reply: Reply, method: str) -> None:
    """Raises Violation unless an error has the form of OpenAI's errors."""
    if reply.status < 400 or method == "HEAD":
        return
    if reply.headers.get(b"content-type") != b"application/json":
        raise Violation(f"a {reply.status} of type {reply.headers.get(b'content-type')!r}")
    if reply.headers.get(b"content-encoding", b"identity") != b"identity":
        raise Violation(f"a {reply.status} with content-encoding {reply.headers[b'content-encoding']!r}")
    if (wait := reply.headers.get(b"retry-after")) is not None and not wait.isdigit():
        raise Violation(f"retry-after {wait!r}")
    if not is_openai_error(reply.body):
        raise Violation(f"a {reply.status} that is no OpenAI error: {reply.body[:200]!r}")


def is_openai_error(content: bytes) -> bool:
    """Whether that is an OpenAI error and nothing else."""
    try:
        answer = json.loads(content.decode("utf-8"))
        error = answer["error"]
        return (
            isinstance(error["message"], str)
            and isinstance(error["type"], str)
            and isinstance(error["param"], str | None)
            and isinstance(error["code"], str | int | None)
            and not isinstance(error["code"], bool)
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def events_of(reply: Reply) -> list[bytes]:
    """The data of a stream's events. Raises Violation if they are not whole."""
    data = reply.body.replace(b"\r\n", b"\n")
    if not data.endswith(b"\n\n"):
        raise Violation(f"a stream that ends within an event: {data[-80:]!r}")
    return [event.removeprefix(b"data: ") for event in data[:-2].split(b"\n\n")]


async def _head(reader: asyncio.StreamReader) -> bytes | None:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise Truncated(f"the connection ended within a head: {error.partial[:80]!r}") from None
        return None
    except ConnectionError:
        return None
    except asyncio.LimitOverrunError:
        raise Violation("a head without end") from None


def _parsed(head: bytes) -> Reply:
    match = _STATUS_LINE.match(head)
    if match is None:
        raise Violation(f"no status line: {head[:80]!r}")
    headers: dict[bytes, bytes] = {}
    for line in head[match.end() : -2].split(b"\r\n")[:-1]:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise Violation(f"no header: {line[:80]!r}")
        name = header[1].lower()
        if name in headers and name in (b"content-length", b"content-type", b"transfer-encoding", b"x-request-id"):
            raise Violation(f"{name!r} twice")
        headers[name] = header[2]
    if b"content-length" in headers and b"transfer-encoding" in headers:
        raise Violation("content-length beside transfer-encoding")
    return Reply(int(match[1]), headers)


async def _read_body(reader: asyncio.StreamReader, reply: Reply, method: str) -> None:
    if method == "HEAD" or reply.status in (204, 304):
        return
    if b"content-length" in reply.headers:
        left = int(reply.headers[b"content-length"])
        while left:
            data = await reader.readexactly(min(left, 2**16))
            reply.add(data)
            left -= len(data)
    elif reply.headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        while True:
            line = await reader.readuntil(b"\r\n")
            if not re.fullmatch(rb"[0-9a-fA-F]+\r\n", line):
                raise Violation(f"no chunk: {line[:80]!r}")
            size = int(line, 16)
            data = await reader.readexactly(size + 2)
            if data[-2:] != b"\r\n":
                raise Violation("a chunk of another size")
            if not size:
                return
            reply.add(data[:-2])
    elif reply.closes:
        while data := await reader.read(2**16):
            reply.add(data)
    else:
        raise Violation(f"a {reply.status} that does not say where it ends")
