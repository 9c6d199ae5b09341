"""Requests sent at their times: in an open loop whatever the server does, or session by session in a closed one."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from ssl import SSLContext

from autopoiesis.bench.load.connection import Connection
from autopoiesis.bench.load.endpoint import Address
from autopoiesis.bench.load.exchange import CONNECT, CUT, TIMEOUT, Exchange
from autopoiesis.workload import Requests

IDLE_S = 2.0
"""A connection that has been idle longer is not used again: servers close them after five seconds, and a request that
meets the closing would look like a fault of the server."""
EARLY_S = 0.0005
"""Half the resolution of the event loop's timers: what is due within it is sent now."""
LEAD_S = 0.05
"""From the beginning to the origin of the arrivals."""


class Replay:
    """One load while it runs, and afterwards what came of it: an exchange for every request sent."""

    def __init__(
        self,
        address: Address,
        requests: Requests,
        message: Callable[[int], bytes],
        *,
        closed_loop: bool,
        timeout_s: float,
        concurrency_limit: int | None = None,
        keep_alive: bool = True,
    ) -> None:
        """In a `closed_loop` a later call of a session is due its `think_s` after the end of the call before, however
        that ended; otherwise at its `arrival_s`. What has not been answered `timeout_s` after it was sent has failed.
        No more than `concurrency_limit` requests are under way; what is due beyond them waits in order. Without
        `keep_alive` every request has a connection of its own."""
        self.exchanges: list[Exchange] = []
        """In order of sending."""
        self.ended: list[Exchange] = []
        """In order of their ends."""
        self.total = len(requests)
        self.origin_s = 0.0
        """The instant of `time.monotonic` from which arrivals count."""
        self._address = address
        self._context: SSLContext | None = address.context()
        self._message = message
        self._timeout_s = timeout_s
        self._keep_alive = keep_alive
        self._limit = concurrency_limit or self.total
        previous: list[int] = requests.previous.tolist()
        arrival_s: list[float] = requests.arrival_s.tolist()
        self._think_s: list[float] = requests.think_s.tolist()
        self._following = {before: row for row, before in enumerate(previous) if before >= 0} if closed_loop else {}
        later = set(self._following.values())
        self._arrivals = deque((arrival_s[row], row) for row in range(self.total) if row not in later)
        self._waiting: deque[int] = deque()
        self._idle: list[Connection] = []
        self._busy: dict[Exchange, Connection] = {}
        self._opening: dict[Exchange, asyncio.Task[None]] = {}
        self._thinking: set[asyncio.TimerHandle] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._over = asyncio.Event()

    @property
    def running(self) -> int:
        """Requests under way."""
        return len(self.exchanges) - len(self.ended)

    def under_way(self) -> Iterable[Exchange]:
        """The requests that are connected and being answered."""
        return self._busy

    async def run(self) -> None:
        """Send everything and wait until it has ended, or until `stop`."""
        self._loop = asyncio.get_running_loop()
        self.origin_s = time.monotonic() + LEAD_S
        self._pump()
        try:
            await self._over.wait()
        finally:
            self._cut()

    def stop(self) -> None:
        """Send nothing more and give up what is under way."""
        self._over.set()

    def _pump(self) -> None:
        """Send what is due, and come back for the next."""
        now_s = time.monotonic()
        while self._arrivals and self.origin_s + self._arrivals[0][0] <= now_s + EARLY_S:
            at_s, row = self._arrivals.popleft()
            self._due(row, self.origin_s + at_s)
        if self._arrivals:
            self._timer = self._loop.call_later(
                max(self.origin_s + self._arrivals[0][0] - time.monotonic(), 0.0), self._pump
            )

    def _due(self, row: int, due_s: float) -> None:
        if self.running >= self._limit:
            self._waiting.append(row)
        else:
            self._send(row, due_s)

    def _send(self, row: int, due_s: float) -> None:
        message = self._message(row)
        exchange = Exchange(row, due_s)
        exchange.sent_s = now_s = time.monotonic()
        exchange.timer = self._loop.call_later(self._timeout_s, self._expire, exchange)
        self.exchanges.append(exchange)
        while self._idle:
            connection = self._idle.pop()
            if connection.free and now_s - connection.idle_since_s < IDLE_S:
                self._busy[exchange] = connection
                connection.begin(exchange, message)
                return
            connection.close()
        self._opening[exchange] = self._loop.create_task(self._open(exchange, message))

    async def _open(self, exchange: Exchange, message: bytes) -> None:
        address = self._address
        try:
            _, connection = await self._loop.create_connection(
                lambda: Connection(self._answered), address.host, address.port, ssl=self._context
            )
        except OSError:
            self._end(exchange, CONNECT)
            return
        del self._opening[exchange]
        self._busy[exchange] = connection
        connection.begin(exchange, message)

    def _answered(self, connection: Connection, exchange: Exchange) -> None:
        del self._busy[exchange]
        if connection.free and self._keep_alive:
            self._idle.append(connection)
        else:
            connection.close()
        self._ended(exchange)

    def _expire(self, exchange: Exchange) -> None:
        self._end(exchange, TIMEOUT)

    def _end(self, exchange: Exchange, fault: str) -> None:
        """From our side."""
        exchange.fault = fault
        exchange.end_s = time.monotonic()
        self._abandon(exchange)
        self._ended(exchange)

    def _abandon(self, exchange: Exchange) -> None:
        if (connection := self._busy.pop(exchange, None)) is not None:
            connection.close()
        if (task := self._opening.pop(exchange, None)) is not None and task is not asyncio.current_task():
            task.cancel()

    def _ended(self, exchange: Exchange) -> None:
        if exchange.timer is not None:
            exchange.timer.cancel()
        self.ended.append(exchange)
        if self._waiting:
            self._send(self._waiting.popleft(), time.monotonic())
        following = self._following.get(exchange.row)
        if following is not None:
            self._think(following, exchange.end_s + self._think_s[following])
        if len(self.ended) == self.total:
            self._over.set()

    def _think(self, row: int, due_s: float) -> None:
        def thought() -> None:
            self._thinking.discard(timer)
            self._due(row, due_s)

        timer = self._loop.call_later(max(due_s - time.monotonic(), 0.0), thought)
        self._thinking.add(timer)

    def _cut(self) -> None:
        for timer in (self._timer, *self._thinking):
            if timer is not None:
                timer.cancel()
        for exchange in self.exchanges:
            if not exchange.end_s:
                exchange.fault = CUT
                exchange.end_s = time.monotonic()
                if exchange.timer is not None:
                    exchange.timer.cancel()
                self._abandon(exchange)
                self.ended.append(exchange)
        for connection in self._idle:
            connection.close()
