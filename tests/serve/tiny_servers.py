"""Servers of a few lines on real sockets: they answer, hang, reset, or send what nobody asked for."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


def raw(*parts: bytes) -> Reply:
    """These bytes, in so many writes, and the end of the connection."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return reply


def answer(body: bytes = b"", status: int = 200) -> Reply:
    return raw(b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)


async def hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def endless(head: bytes, part: bytes) -> Reply:
    """As many bytes as anybody reads."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(part)
            await writer.drain()

    return reply


class TinyServer:
    """Answers each path as `replies` says at the time, and any other with 404."""

    def __init__(self, replies: dict[str, Reply]) -> None:
        self.replies = replies
        self.port = 0
        self.asked: list[tuple[str, bytes, bytes]] = []
        """Path, head and body of each request."""

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.asked]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            length = [
                line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
            ]
            self.asked.append((path, head, await reader.readexactly(int(length[0]) if length else 0)))
            await self.replies.get(path, answer(status=404))(writer)
        writer.close()


@asynccontextmanager
async def serving(server: TinyServer, *, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[TinyServer]:
    """The server listens on a port of this machine, and ends with all that it has under way."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError):
            await server.serve(reader, writer)
        writer.transport.abort()
        tasks.discard(task)

    listener = await asyncio.start_server(connected, "127.0.0.1", port, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in set(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something to hold. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)
