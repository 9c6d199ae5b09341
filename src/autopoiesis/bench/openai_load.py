"""An open-loop load on an OpenAI-compatible endpoint, and the telemetry of what came back.

Requests are sent at their arrival times whatever the engine does. Prompts are lists of token ids, so that their
lengths are exact; answers run to their full length (`ignore_eos`) and are streamed.

The client shares a machine with the engine, so it must cost next to nothing while the load runs: one thread, plain
sockets of the standard library, a time stamp for every read and the bytes kept as they came. They are parsed when the
load is over.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np

from autopoiesis.cost.telemetry import Stream
from autopoiesis.errors import ScenarioError
from autopoiesis.workload import Requests

REQUESTS_MAX = 20_000
SECONDS_MAX = 3600.0
QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Acknowledge at once, where the system can: a server that leaves Nagle's algorithm on (llama.cpp's does) holds tokens
back until the last packet is acknowledged, and a delayed acknowledgement makes dozens of them arrive as one."""
ANSWER_BYTES_MAX = 64 << 20
"""Of one request; more than that is no answer to what was asked."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to send: `url` up to and including the version, as in `http://127.0.0.1:8000/v1`."""

    url: str
    model: str
    first_token: int
    """Prompts are drawn from the token ids `first_token` …"""
    last_token: int
    """… to `last_token`, inclusive: the ordinary words of the vocabulary."""
    allow_remote: bool = False
    """Whether an address that is not this machine's own may be loaded."""

    def address(self) -> tuple[str, int, str]:
        """Host, port and path. Raises ScenarioError for a URL that cannot be used or must not be loaded."""
        parts = urlsplit(self.url)
        try:
            host, port = parts.hostname, parts.port or 80
        except ValueError:
            host = None
        if parts.scheme != "http" or not host:
            raise ScenarioError(f"endpoint {self.url!r}: must be http://HOST:PORT/v1")
        if not self.allow_remote and not _is_loopback(host):
            raise ScenarioError(
                f"endpoint {self.url!r}: not an address of this machine; a load may be sent elsewhere only where that "
                "is allowed explicitly"
            )
        return host, port, f"{parts.path.rstrip('/')}/completions"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What came of a load."""

    streams: tuple[Stream, ...]
    """Those answered in full, times from the start of the load."""
    failures: tuple[str, ...]
    """One reason for every other request."""
    late_p99_s: float
    """How much later than its arrival time a request was sent."""
    client_cpu_s: float
    """CPU time of this process while the load ran."""

    @property
    def client_cpu_s_per_token(self) -> float:
        return self.client_cpu_s / max(sum(len(stream.token_s) for stream in self.streams), 1)


def send_load(endpoint: Endpoint, requests: Requests, *, seed: int, timeout_s: float) -> LoadResult:
    """Send every request at its `arrival_s` and wait for all answers, at most `timeout_s` in all.

    `seed` draws the prompts. What has not been answered by then has failed. Sessions and shared prefixes are not
    reproduced: every prompt is new. Raises ScenarioError for an endpoint or a load that is refused.
    """
    address = endpoint.address()
    if not 0 < timeout_s <= SECONDS_MAX:
        raise ScenarioError(f"timeout_s must be above 0 and at most {SECONDS_MAX:g}, not {timeout_s!r}")
    if not 0 < len(requests) <= REQUESTS_MAX:
        raise ScenarioError(f"a load must have from 1 to {REQUESTS_MAX} requests, not {len(requests)}")
    if np.any(requests.previous >= 0):
        raise ScenarioError("a load cannot have sessions; give single requests")
    if requests.input_tokens.min() < 1 or requests.output_tokens.min() < 1:
        raise ScenarioError("a load's prompts and answers must have at least one token")
    calls = _calls(endpoint, address, requests, seed)
    began_cpu_s = time.process_time()
    origin_s = asyncio.run(_send(calls, address, requests.arrival_s.tolist(), timeout_s))
    client_cpu_s = time.process_time() - began_cpu_s
    streams, failures = [], []
    for call, prompt_tokens, tokens in zip(
        calls, requests.input_tokens.tolist(), requests.output_tokens.tolist(), strict=True
    ):
        try:
            token_s = call.token_times()
        except ValueError as error:
            failures.append(str(error))
            continue
        if len(token_s) != tokens:
            failures.append(f"{len(token_s)} of {tokens} tokens came")
            continue
        shifted = tuple(token - origin_s for token in token_s)
        streams.append(Stream(sent_s=call.sent_s - origin_s, prompt_tokens=prompt_tokens, token_s=shifted))
    late_s = [
        call.sent_s - origin_s - arrival_s
        for call, arrival_s in zip(calls, requests.arrival_s.tolist(), strict=True)
        if call.sent_s
    ]
    return LoadResult(
        streams=tuple(streams),
        failures=tuple(failures),
        late_p99_s=float(np.quantile(late_s, 0.99)) if late_s else 0.0,
        client_cpu_s=client_cpu_s,
    )


def _calls(endpoint: Endpoint, address: tuple[str, int, str], requests: Requests, seed: int) -> list[_Call]:
    rng = np.random.default_rng(seed)
    host, port, path = address
    calls = []
    for prompt_tokens, tokens in zip(requests.input_tokens.tolist(), requests.output_tokens.tolist(), strict=True):
        body = msgspec.json.encode(
            {
                "model": endpoint.model,
                "prompt": rng.integers(endpoint.first_token, endpoint.last_token + 1, prompt_tokens).tolist(),
                "max_tokens": tokens,
                "ignore_eos": True,
                "temperature": 0.0,
                "stream": True,
                "stream_options": {"include_usage": True, "continuous_usage_stats": True},
                "cache_prompt": False,
            }
        )
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            f"Accept: text/event-stream\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        calls.append(_Call(head.encode() + body))
    return calls


async def _send(calls: list[_Call], address: tuple[str, int, str], arrival_s: list[float], timeout_s: float) -> float:
    """Send all; the loop's time at which the load began."""
    loop = asyncio.get_running_loop()
    origin_s = loop.time() + 0.05
    tasks: set[asyncio.Task[None]] = set()

    def begin(call: _Call) -> None:
        tasks.add(loop.create_task(call.run(address)))

    timers = [loop.call_at(origin_s + at_s, begin, call) for call, at_s in zip(calls, arrival_s, strict=True)]
    ended = asyncio.gather(*(call.ended.wait() for call in calls))
    try:
        await asyncio.wait_for(ended, timeout_s)
    except TimeoutError:
        pass
    finally:
        for timer in timers:
            timer.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for call in calls:
            call.close()
    return origin_s


class _Call(asyncio.Protocol):
    """One request on a connection of its own: what was read, and when."""

    def __init__(self, message: bytes) -> None:
        self.sent_s = 0.0
        self.ended = asyncio.Event()
        self._message = message
        self._reads: list[tuple[float, bytes]] = []
        self._bytes = 0
        self._fault = ""
        self._transport: asyncio.Transport | None = None
        self._socket: Any = None

    async def run(self, address: tuple[str, int, str]) -> None:
        host, port, _ = address
        loop = asyncio.get_running_loop()
        self.sent_s = loop.time()
        try:
            await loop.create_connection(lambda: self, host, port)
        except OSError as error:
            self._fault = f"cannot connect ({error.strerror})"
            self.ended.set()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._socket = transport.get_extra_info("socket")
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.write(self._message)

    def data_received(self, data: bytes) -> None:
        self._reads.append((time.monotonic(), data))
        if QUICK_ACK is not None:
            # it wears off
            self._socket.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)
        self._bytes += len(data)
        if self._bytes > ANSWER_BYTES_MAX:
            self._fault = f"the answer is longer than {ANSWER_BYTES_MAX >> 20} MiB"
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._fault = "the connection broke"
        self.ended.set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def token_times(self) -> list[float]:
        """When each token had been read. Raises ValueError with the reason if there is no answer in full."""
        if self._fault:
            raise ValueError(self._fault)
        if not self._reads:
            raise ValueError("no answer in time")
        answer = b"".join(data for _, data in self._reads)
        ends = np.cumsum([len(data) for _, data in self._reads])
        head, _, _ = answer.partition(b"\r\n\r\n")
        status = head.split(b" ", 2)[1:2]
        if status != [b"200"]:
            raise ValueError(f"HTTP status {(status or [b'?'])[0].decode(errors='replace')[:3]}")
        token_s: list[float] = []
        for position, event in _events(answer, len(head) + 4):
            count = _tokens_by(event, len(token_s))
            at_s = self._reads[int(np.searchsorted(ends, position))][0]
            token_s.extend([at_s] * (count - len(token_s)))
        return token_s


def _events(answer: bytes, position: int) -> list[tuple[int, Any]]:
    """The events of a body that begins at `position`: where each one ends, and its JSON.

    Chunk sizes of the transfer encoding stand on lines of their own; a server writes an event with one chunk, so lines
    that begin with `data:` are whole.
    """
    events = []
    for line in answer[position:].split(b"\n"):
        position += len(line) + 1
        if not line.startswith(b"data:"):
            continue
        text = line[5:].strip()
        if text == b"[DONE]":
            break
        try:
            events.append((position, msgspec.json.decode(text)))
        except msgspec.DecodeError:
            raise ValueError("an event is not JSON") from None
    return events


def _tokens_by(event: Any, before: int) -> int:
    """How many tokens there are with this event, `before` having been there: the running usage where the engine gives
    it, else one for every event with text."""
    if not isinstance(event, dict) or "error" in event:
        raise ValueError("the engine answered with an error")
    usage = event.get("usage")
    if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
        return max(before, min(int(usage["completion_tokens"]), before + 1_000_000))
    choices = event.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict) and choices[0].get("text"):
        return before + 1
    return before
