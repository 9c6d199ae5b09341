"""An engine of which a request says how it is to answer: well, or against every rule."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)\r\n")


@dataclass
class Call:
    """A request for a completion, as the engine got it."""

    engine: Engine
    writer: asyncio.StreamWriter
    asked: dict[str, Any]
    rng: random.Random

    @property
    def tag(self) -> str:
        return str(self.asked.get("tag"))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()
        await asyncio.sleep(0)  # or whoever writes without end lets nobody else run until all buffers are full

    async def plain(self, content: bytes | None = None, status: bytes = b"200 OK", *headers: bytes) -> None:
        await self.send(whole(self.completion() if content is None else content, status, *headers))

    def completion(self) -> bytes:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": self.tag}}
        usage = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
        answer = {"id": "x", "object": "chat.completion", "created": 0, "choices": [choice], "usage": usage}
        return json.dumps(answer).encode()

    async def begin_stream(self) -> None:
        await self.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    def event(self, number: int, **fields: object) -> bytes:
        choices = [{"index": 0, "delta": {"content": f"{self.tag}/{number}"}, "finish_reason": None}]
        event = {"id": "x", "object": "chat.completion.chunk", "created": 0, "choices": choices} | fields
        return b"data: " + json.dumps(event).encode() + b"\n\n"

    async def stream(self, events: int) -> None:
        await self.begin_stream()
        data = [self.event(number) for number in range(events)]
        if (self.asked.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 7, "completion_tokens": events, "total_tokens": 7 + events}
            data.append(self.event(0, choices=[], usage=usage))
        data.append(b"data: [DONE]\n\n")
        for piece in self.cut(b"".join(data)):
            await self.send(chunk(piece))
        await self.send(b"0\r\n\r\n")

    def cut(self, data: bytes) -> list[bytes]:
        """Pieces that end anywhere."""
        places = sorted({0, len(data), *(self.rng.randrange(len(data)) for _ in range(4))})
        return [data[start:end] for start, end in pairwise(places)]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(content: bytes, status: bytes = b"200 OK", *headers: bytes) -> bytes:
    """A reply with its length."""
    named = b"".join(header + b"\r\n" for header in headers)
    kind = b"" if b"content-type" in named else b"content-type: application/json\r\n"
    return b"HTTP/1.1 %b\r\n%b%bcontent-length: %d\r\n\r\n%b" % (status, kind, named, len(content), content)


class Engine:
    """An OpenAI server in this event loop."""

    def __init__(self, model: str, answers: dict[str, Callable[[Call], Awaitable[None]]], rng: random.Random) -> None:
        self._model = model
        self._answers = answers
        self._rng = rng
        self._server: asyncio.Server
        self.seen: set[str] = set()
        """Tags of all that came."""
        self.under_way = 0
        self.url = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    def close(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                path = head.split(b" ", 2)[1].decode()
                if (probe := self._probe(path, body)) is not None:
                    writer.write(whole(probe))
                    continue
                try:
                    asked = json.loads(body)
                except (ValueError, RecursionError):
                    asked = {}
                await self._answer(Call(self, writer, asked, self._rng), reader)
        writer.transport.abort()

    async def _answer(self, call: Call, reader: asyncio.StreamReader) -> None:
        """Answer, unless the client goes first."""
        self.seen.add(call.tag)
        self.under_way += 1
        answer = asyncio.ensure_future(self._answers[call.asked.get("do", "well")](call))
        try:
            while not answer.done():
                await asyncio.wait([answer], timeout=0.05)
                if reader.at_eof() or call.writer.is_closing():
                    answer.cancel()
                    with suppress(asyncio.CancelledError):
                        await answer
                    return
            await answer
        finally:
            self.under_way -= 1

    def _probe(self, path: str, body: bytes) -> bytes | None:
        if path == "/health":
            return b"{}"
        if path == "/v1/models":
            return json.dumps({"object": "list", "data": [{"id": self._model, "object": "model"}]}).encode()
        if path == "/metrics":
            return b'vllm:num_requests_running{engine="0"} 1\nvllm:num_requests_waiting{engine="0"} 0\n'
        return b'{"choices":[{"text":"x"}]}' if b'"tag"' not in body else None


async def answer_well(call: Call) -> None:
    """As any engine."""
    if delay := call.asked.get("delay_s"):
        await asyncio.sleep(delay)
    events = call.asked.get("max_tokens", 8)
    if not isinstance(events, int) or not 0 <= events < 1000 or "tag" not in call.asked:
        await call.plain(b'{"detail":"that cannot be computed"}', b"400 Bad Request")
    elif call.asked.get("stream"):
        await call.stream(events)
    else:
        await call.plain()
