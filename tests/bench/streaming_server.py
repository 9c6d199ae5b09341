"""A deterministic OpenAI-compatible server: one token every few milliseconds, and a fault where it is told to."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TEMPLATE_TOKENS = 7
"""Of every chat prompt; a word is two tokens here."""


@dataclass
class Server:
    """What the server does, and what it was asked."""

    token_s: float = 0.002
    faults: Mapping[int, str] = field(default_factory=dict)
    """By number of the request, from 0: `status N`, `reset`, `hang`, `error event`, `malformed`, `end early`."""
    counts: bool = True
    """Whether it says how many tokens there were."""
    certificate: str = ""
    """File with a certificate and its key, for TLS."""
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    began_s: list[float] = field(default_factory=list)
    ended_s: dict[int, float] = field(default_factory=dict)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                number = len(self.asked)
                self.heads.append(head)
                self.began_s.append(time.monotonic())
                self.asked.append(json.loads(await reader.readexactly(length)))
                await self._answer(number, self.asked[number], writer)
                self.ended_s[number] = time.monotonic()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, number: int, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        fault = self.faults.get(number, "")
        if fault.startswith("status"):
            reply = b'{"error":{"message":"no"}}'
            status = fault.removeprefix("status ").encode()
            writer.write(b"HTTP/1.1 %b No\r\nContent-Length: %d\r\n\r\n%b" % (status, len(reply), reply))
            return
        writer.write(HEAD)
        for token in range(body["max_tokens"]):
            await asyncio.sleep(self.token_s)
            if token == 1 and fault:
                await self._go_wrong(fault, writer)
                return
            _event(writer, _token(body, token))
        if self.counts:
            prompt, answer = prompt_tokens(body), body["max_tokens"]
            _event(writer, {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": answer}})
        _chunk(writer, b"data: [DONE]\n\n")
        _chunk(writer, b"")
        await writer.drain()

    async def _go_wrong(self, fault: str, writer: asyncio.StreamWriter) -> None:
        if fault == "hang":
            await asyncio.sleep(3600)
        elif fault == "error event":
            _event(writer, {"error": {"message": "the engine is gone", "code": 500}})
            _chunk(writer, b"")
        elif fault == "malformed":
            _chunk(writer, b"data: {nonsense\n\n")
        elif fault == "end early":
            _chunk(writer, b"")
        elif fault == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        await writer.drain()


def prompt_tokens(body: dict[str, Any]) -> int:
    """As this server counts them."""
    if "messages" in body:
        return TEMPLATE_TOKENS + 2 * sum(len(message["content"].split()) for message in body["messages"])
    return len(body["prompt"])


def _token(body: dict[str, Any], token: int) -> dict[str, Any]:
    text = f" t{token}"
    return {"choices": [{"delta": {"content": text}} if "messages" in body else {"text": text}]}


def _event(writer: asyncio.StreamWriter, event: object) -> None:
    _chunk(writer, b"data: %b\n\n" % json.dumps(event).encode())


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


@contextmanager
def streaming_server(server: Server) -> Iterator[Server]:
    """Serve until the end of the block."""
    ready = threading.Event()
    over: list[Any] = []

    async def main() -> None:
        stop = asyncio.Event()
        context = None
        if server.certificate:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(server.certificate)
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=1 << 26, ssl=context)
        server.url = f"http{'s' * bool(context)}://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
        loop = asyncio.get_running_loop()
        over.append(lambda: loop.call_soon_threadsafe(stop.set))
        ready.set()
        await stop.wait()
        listener.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    ready.wait()
    try:
        yield server
    finally:
        over[0]()
        thread.join()
