"""A connection of the load: it sends a request, reads the answer to its end, and sends the next one."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol, cast

from autopoiesis.bench.gateway.answer import Answer, Ending, Malformed


class Loop(Protocol):
    """The load that a connection is part of."""

    stream: bool
    tokens: int

    def take(self) -> tuple[int, bytes] | None:
        """The next request and its number; None if there are no more."""

    def ended(self, ending: Ending, answer: Answer, began_ns: int, now_ns: int, why: str) -> None: ...

    def left(self, client: Client, *, again: bool) -> None:
        """The connection has ended; `again`: another one shall take its place."""


class Client(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(self, load: Loop) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._began_ns = 0
        self._heard_ns = 0
        self._again = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            return
        self._heard_ns = now_ns = time.monotonic_ns()
        try:
            if not answer.feed(data, now_ns):
                return
        except Malformed as error:
            self._over(Ending.MALFORMED, now_ns, str(error), keep=False)
            return
        self._over(answer.ending, now_ns, answer.reason, keep=answer.keeps_open)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None:
            begun = "after the first token" if self._answer.begun else "before any token"
            self._over(Ending.CUT, time.monotonic_ns(), begun, keep=False)
        self._load.left(self, again=self._again)

    def check(self, patience_s: float) -> None:
        """Give up a request of which nothing is heard."""
        now_ns = time.monotonic_ns()
        if self._answer is not None and now_ns - self._heard_ns > patience_s * 1e9:
            self._over(Ending.HUNG, now_ns, f"nothing for {patience_s:g} s", keep=False)

    def _next(self) -> None:
        assert self._transport is not None
        if (request := self._load.take()) is None:
            self._again = False
            self._transport.close()
            return
        number, message = request
        self._answer = Answer(number, self._load.tokens, stream=self._load.stream)
        self._began_ns = self._heard_ns = time.monotonic_ns()
        self._transport.write(message)

    def _over(self, ending: Ending, now_ns: int, why: str, *, keep: bool) -> None:
        answer, self._answer = self._answer, None
        assert answer is not None
        self._load.ended(ending, answer, self._began_ns, now_ns, why)
        if keep:
            self._next()
        elif self._transport is not None:
            self._again = True
            self._transport.abort()
        else:
            self._again = True
