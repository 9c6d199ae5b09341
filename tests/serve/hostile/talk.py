"""A connection of a client that says what it likes, and judges all that it hears."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from hostile.replies import TAG, Reply, Truncated, Violation, read_reply

PATIENCE_S = 20.0
CHAT = b"/v1/chat/completions"
LIMIT = 2**18


@dataclass
class Target:
    """The gateway that is talked to, and what the engines behind it have seen."""

    port: int
    key: bytes
    rng: random.Random
    tags: int = 0
    requests: int = 0
    """Of all clients; a connection that never made a whole one counts once."""
    statuses: dict[int, int] = field(default_factory=dict)

    def tag(self, kind: str = "") -> bytes:
        self.tags += 1
        return b"t@%b%d@" % (kind.encode(), self.tags)

    def hidden(self) -> bytes:
        """The tag of a request that no engine may ever see."""
        return self.tag("h")

    @asynccontextmanager
    async def talk(self, *, receive_bytes: int | None = None) -> AsyncIterator[Talk]:
        """A connection; it is gone afterwards."""
        file = socket.socket()
        file.setblocking(False)
        if receive_bytes is not None:
            file.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(file, ("127.0.0.1", self.port))
        reader = asyncio.StreamReader(LIMIT if receive_bytes is None else 2**12)
        transport, protocol = await loop.create_connection(lambda: _Protocol(reader), sock=file)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield Talk(self, reader, writer)
        except TimeoutError:
            raise Violation(f"nothing came for {PATIENCE_S:g} s") from None
        finally:
            writer.transport.abort()

    def post(self, body: bytes, *headers: bytes, path: bytes = CHAT, version: bytes = b"1.1") -> bytes:
        """A whole request."""
        return self.head(b"content-length: %d" % len(body), *headers, path=path, version=version) + body

    def head(self, *headers: bytes, method: bytes = b"POST", path: bytes = CHAT, version: bytes = b"1.1") -> bytes:
        lines = (b"host: gateway", b"authorization: Bearer " + self.key, *headers)
        return b"%b %b HTTP/%b\r\n%b\r\n\r\n" % (method, path, version, b"\r\n".join(lines))


class Talk:
    """What one client says and hears."""

    def __init__(self, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.target = target
        self.rng = target.rng
        self.reader = reader
        self._writer = writer
        self.tag = target.tag()
        """Of the request under way; empty where answers may have any."""
        target.requests += 1

    def body(self, **fields: Any) -> bytes:
        """Of a good request that bears the tag."""
        return json.dumps(chat(self.tag, **fields)).encode()

    async def send(self, data: bytes) -> bool:
        """Whether the gateway was still there to hear it."""
        if self._writer.is_closing():
            return False
        try:
            self._writer.write(data)
            await self._writer.drain()
            await asyncio.sleep(0)
        except ConnectionError:
            return False
        return not self._writer.is_closing()

    async def send_at_once(self, data: bytes) -> bool:
        """As `send`, but what the gateway does not take is not sent."""
        if self._writer.is_closing() or self._writer.transport.get_write_buffer_size():
            return False
        self._writer.write(data)
        await asyncio.sleep(0)
        return not self._writer.is_closing()

    @property
    def heard(self) -> bool:
        """Whether anything has come, or the end."""
        return self.reader.at_eof() or bool(self.reader._buffer)  # type: ignore[attr-defined]

    async def ask(self, body: bytes, *headers: bytes, path: bytes = CHAT) -> Reply:
        """A whole request and its reply."""
        await self.send(self.target.post(body, *headers, path=path))
        return await self.reply()

    async def reply(self, *statuses: int, method: str = "POST") -> Reply:
        """The next reply, of one of these statuses if any are given. Raises Violation."""
        reply = await self.maybe_reply(method=method)
        if reply is None:
            raise Violation("the connection ended without a reply")
        if statuses and reply.status not in statuses:
            raise Violation(f"{reply.status} instead of {statuses}: {reply.body[:200]!r}")
        return reply

    async def maybe_reply(self, *, method: str = "POST") -> Reply | None:
        """The next reply, or None if the connection ends instead."""
        reply = await read_reply(self.reader, method)
        if reply is not None:
            statuses = self.target.statuses
            statuses[reply.status] = statuses.get(reply.status, 0) + 1
            for tag in TAG.findall(reply.body + reply.tail + b"".join(reply.headers.values())):
                if self.tag and tag != self.tag:
                    raise Violation(f"the answer to {self.tag!r} has {tag!r} in it")
        return reply

    async def refused(self, *statuses: int, method: str = "POST") -> Reply:
        """One error, and the end of the connection: no second reply whatever came after it."""
        reply = await self.reply(*statuses, method=method)
        if reply.status < 400:
            raise Violation(f"{reply.status} to what is no request")
        if not reply.closes:
            raise Violation(f"a {reply.status} to what is no request leaves the connection open")
        await self.over()
        return reply

    async def over(self) -> None:
        """Nothing more comes but the end. Raises Violation."""
        with suppress(ConnectionError):
            if more := await self.reader.read(256):
                raise Violation(f"more than was asked for: {more[:80]!r}")

    async def drain(self, *, at_most: int = 2**30) -> int:
        """Read and forget until the end, or so much; how much it was."""
        size = 0
        with suppress(ConnectionError, Truncated):
            while size < at_most and (data := await self.reader.read(2**16)):
                size += len(data)
        return size

    def half_close(self) -> None:
        if not self._writer.is_closing():
            with suppress(OSError):
                self._writer.write_eof()

    def reset(self) -> None:
        """Go as a process does that is killed while data is on its way."""
        file = self._writer.get_extra_info("socket")
        with suppress(OSError):
            file.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


class _Protocol(asyncio.StreamReaderProtocol):
    """What came before a reset can be read."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(None)


def chat_bytes(tag: bytes) -> bytes:
    return json.dumps(chat(tag)).encode()


def chat(tag: bytes, **fields: Any) -> dict[str, Any]:
    """A good request for the good engine; `do` says how the other one answers."""
    content = f"please echo {tag.decode()}"
    model = "evil" if "do" in fields else "good"
    return {"model": model, "messages": [{"role": "user", "content": content}], "tag": tag.decode()} | fields
