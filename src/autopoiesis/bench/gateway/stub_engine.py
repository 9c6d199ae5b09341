"""An engine that computes nothing: `python -m autopoiesis.bench.gateway.stub_engine PORT …`, a replica on each port.

It answers OpenAI's completions, streamed or not, with as many tokens as are asked for and after the time that the
request's ticket says, plus what gateways ask of vLLM and SGLang. Every token is a stamp. `GET /state` says how many
requests a replica has under way and has answered, those without a ticket (probes) left out.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any, cast

import msgspec

from autopoiesis.bench.gateway.ticket import DIGITS, Ticket, ticket_in

MODEL = "stub"
TOKENS = 16
"""Where a request does not say how many."""
PROMPT_TOKENS = 256
"""What usage says of every prompt."""
HEALTHY = ("/health", "/health_generate", "/ping")
COMPLETIONS = ("/v1/chat/completions", "/v1/completions")
_SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


class _Said(msgspec.Struct):
    content: str = ""


class _Options(msgspec.Struct):
    include_usage: bool = False


class _Asked(msgspec.Struct):
    """The fields of a request that count."""

    messages: list[_Said] = []
    stream: bool = False
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    """What some gateways make of `max_tokens`."""
    stream_options: _Options | None = None

    @property
    def tokens(self) -> int:
        return self.max_tokens or self.max_completion_tokens or TOKENS


_asked = msgspec.json.Decoder(_Asked)


class Replica:
    """What one port has done."""

    def __init__(self) -> None:
        self.running = 0
        self.answered = 0

    def page(self, path: str) -> object:
        """What a GET is answered with; None if there is nothing."""
        if path in HEALTHY:
            return {}
        if path == "/v1/models":
            card = {"id": MODEL, "object": "model", "created": 1, "owned_by": "vllm", "max_model_len": 32768}
            return {"object": "list", "data": [card]}
        if path in ("/model_info", "/get_model_info"):
            return {"model_path": MODEL, "tokenizer_path": MODEL, "is_generation": True}
        if path in ("/server_info", "/get_server_info"):
            return {"model_path": MODEL, "served_model_name": MODEL, "dp_size": 1, "version": "0"}
        if path == "/state":
            return {"running": self.running, "answered": self.answered}
        return None

    def metrics(self) -> bytes:
        labels = f'{{model_name="{MODEL}",engine="0"}}'
        gauges = {"num_requests_running": self.running, "num_requests_waiting": 0, "kv_cache_usage_perc": 0.25}
        return "".join(f"vllm:{name}{labels} {value}\n" for name, value in gauges.items()).encode()


class Connection(asyncio.Protocol):
    """A connection of a gateway; one request at a time is answered."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._counted = 0
        """1 while the request under way is one that counts."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._replica.running -= self._counted

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._transport is not None and not self._busy and (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            begins = end + 4
            at = head.find(b"\r\ncontent-length:")
            ends = begins + (int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0)
            if len(self._buffer) < ends:
                return
            body, self._buffer = self._buffer[begins:ends], self._buffer[ends:]
            self._take(self._transport, head.split(b"\r\n", 1)[0].decode("latin-1").split(" "), body)

    def _take(self, transport: asyncio.Transport, line: list[str], body: bytes) -> None:
        if len(line) != 3 or line[2] != "http/1.1":
            transport.close()  # some gateways try HTTP/2 first
        elif line[0] == "post" and line[1] in COMPLETIONS:
            self._complete(_asked.decode(body), chat=line[1] == COMPLETIONS[0])
        elif line[1] == "/metrics":
            transport.write(_reply(self._replica.metrics(), kind=b"text/plain; version=0.0.4"))
        elif (page := self._replica.page(line[1])) is not None:
            transport.write(_reply(msgspec.json.encode(page)))
        else:
            transport.write(_reply(b'{"error":{"message":"no such path"}}', status=b"404 Not Found"))

    def _complete(self, asked: _Asked, *, chat: bool) -> None:
        arrived_ns = time.monotonic_ns()
        ticket = ticket_in(asked.messages[-1].content if asked.messages else "")
        self._busy = True
        self._counted = int(ticket.number > 0)
        self._replica.running += self._counted
        if asked.stream:
            usage = asked.stream_options is not None and asked.stream_options.include_usage
            self._later(ticket.first_ms / 1e3, self._token, ticket, arrived_ns, asked.tokens, 0, 0.0, usage)
        else:
            self._later(ticket.first_ms / 1e3, self._whole, ticket, arrived_ns, asked.tokens, chat)

    def _later(self, delay_s: float, step: Any, *given: object) -> None:
        if delay_s:
            self._timer = self._loop.call_later(delay_s, step, *given)
        else:
            step(*given)

    def _whole(self, ticket: Ticket, arrived_ns: int, tokens: int, chat: bool) -> None:
        stamp = _stamp(ticket, arrived_ns)
        said = b'"message":{"role":"assistant","content":"%b"}' % stamp if chat else b'"text":"%b"' % stamp
        self._write(
            _reply(
                b'{"id":"stub","object":"%b","created":1,"model":"stub","choices":[{"index":0,%b,"logprobs":null,'
                b'"finish_reason":"length"}],"usage":%b}'
                % (b"chat.completion" if chat else b"text_completion", said, _usage(tokens))
            )
        )
        self._finished()

    def _token(self, ticket: Ticket, arrived_ns: int, tokens: int, sent: int, began_s: float, usage: bool) -> None:
        if sent == 0:
            began_s = self._loop.time()
            self._write(_SSE_HEAD + _event(_delta(b'"role":"assistant","content":"%b"' % _stamp(ticket, arrived_ns))))
        elif sent < tokens:
            self._write(_event(_delta(b'"content":"%b"' % _stamp(ticket, arrived_ns))))
        else:
            last = _event(_delta(b"", finish=b'"length"'))
            if usage:
                last += _event(_chunk(b'"choices":[],"usage":' + _usage(tokens)))
            self._write(last + _event(b"[DONE]") + b"0\r\n\r\n")
            self._finished()
            return
        at_s = began_s + (sent + 1) * ticket.each_ms / 1e3
        self._timer = self._loop.call_at(at_s, self._token, ticket, arrived_ns, tokens, sent + 1, began_s, usage)

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def _finished(self) -> None:
        self._replica.running -= self._counted
        self._replica.answered += self._counted
        self._busy, self._counted = False, 0
        if self._buffer:
            self._loop.call_soon(self.data_received, b"")


def _reply(body: bytes, *, status: bytes = b"200 OK", kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (status, kind, len(body), body)


def _stamp(ticket: Ticket, arrived_ns: int) -> bytes:
    return b"[%0*d %d %d]" % (DIGITS, ticket.number, arrived_ns, time.monotonic_ns())


def _usage(tokens: int) -> bytes:
    return b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % (
        PROMPT_TOKENS, tokens, PROMPT_TOKENS + tokens,
    )  # fmt: skip


def _delta(said: bytes, finish: bytes = b"null") -> bytes:
    return _chunk(b'"choices":[{"index":0,"delta":{%b},"logprobs":null,"finish_reason":%b}]' % (said, finish))


def _chunk(rest: bytes) -> bytes:
    return b'{"id":"stub","object":"chat.completion.chunk","created":1,"model":"stub",%b}' % rest


def _event(data: bytes) -> bytes:
    return b"%x\r\ndata: %b\n\n\r\n" % (len(data) + 8, data)


def run(main: Coroutine[Any, Any, None]) -> None:
    """On uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


async def serve(ports: list[int]) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_server(partial(Connection, Replica()), "127.0.0.1", port, backlog=1024)
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(serve([int(port) for port in sys.argv[1:]]))
