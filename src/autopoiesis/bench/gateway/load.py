"""The process of a load: `python -m autopoiesis.bench.gateway.load PLAN`, a plan and then a report as JSON.

It costs little, so that the core it shares with the engines has room for both: raw connections on uvloop, one typed
look at each answer and event. It sends to this machine only.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter

import msgspec

from autopoiesis.bench.gateway.answer import Answer, Ending
from autopoiesis.bench.gateway.client import Client
from autopoiesis.bench.gateway.load_plan import LoadPlan, Report, spread
from autopoiesis.bench.gateway.stub_engine import MODEL, run
from autopoiesis.bench.gateway.ticket import Ticket

HOST = "127.0.0.1"
CHECK_S = 0.25
"""Between two looks for requests that hang."""
PAUSE_S = 0.05
"""Before a gateway that could not be reached is tried again."""
WORDS = "lorem ipsum "


class Load:
    """A load under way."""

    def __init__(self, plan: LoadPlan) -> None:
        self.stream = plan.stream
        self.tokens = plan.tokens
        self._plan = plan
        self._before, self._after = _message(plan)
        self._sent = 0
        self._deadline_ns = 0
        self._open = plan.connections
        self._over = asyncio.Event()
        self._clients: set[Client] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._endings: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._total_ns: list[int] = []
        self._added_ns: list[int] = []
        self._token_ns: list[int] = []

    async def run(self) -> Report:
        """Send until the time or the requests are used up, and wait for the answers."""
        began_ns = time.monotonic_ns()
        self._deadline_ns = began_ns + round(self._plan.seconds * 1e9)
        # Streams begin one after the other, as independent clients' do, within the time between two tokens.
        apart_s = self._plan.each_ms / 1e3 / self._plan.connections
        for number in range(self._plan.connections):
            self._connect(number * apart_s)
        while not self._over.is_set():
            try:
                await asyncio.wait_for(self._over.wait(), CHECK_S)
            except TimeoutError:
                for client in tuple(self._clients):
                    client.check(self._plan.patience_s)
        return Report(
            seconds=(time.monotonic_ns() - began_ns) / 1e9,
            endings=dict(self._endings),
            reasons=dict(self._reasons.most_common(8)),
            tokens=len(self._token_ns),
            total=spread(self._total_ns),
            added=spread(self._added_ns),
            token=spread(self._token_ns),
        )

    def take(self) -> tuple[int, bytes] | None:
        if not self._has_more():
            return None
        self._sent += 1
        ticket = Ticket(self._sent, self._plan.first_ms, self._plan.each_ms)
        return self._sent, self._before + str(ticket).encode() + self._after

    def ended(self, ending: Ending, answer: Answer, began_ns: int, now_ns: int, why: str) -> None:
        self._endings[ending] += 1
        if ending is not Ending.WHOLE:
            self._reasons[f"{ending}: {why}"[:200]] += 1
            return
        assert answer.first is not None
        self._total_ns.append(now_ns - began_ns)
        engine_ns = answer.first.sent_ns - answer.first.arrived_ns
        self._added_ns.append(answer.first_ns - began_ns - engine_ns)
        self._token_ns += answer.delays_ns

    def left(self, client: Client, *, again: bool) -> None:
        self._clients.discard(client)
        if again and self._has_more():
            self._connect(0.0)
        else:
            self._closed()

    def _has_more(self) -> bool:
        return self._sent < self._plan.requests and time.monotonic_ns() < self._deadline_ns

    def _connect(self, delay_s: float) -> None:
        task = asyncio.create_task(self._join(delay_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        client = Client(self)
        while True:
            try:
                await asyncio.get_running_loop().create_connection(lambda: client, HOST, self._plan.port)
            except OSError:
                if self.take() is None:
                    self._closed()
                    return
                self._endings[Ending.UNREACHABLE] += 1
                await asyncio.sleep(PAUSE_S)
            else:
                self._clients.add(client)
                return

    def _closed(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._over.set()


def _message(plan: LoadPlan) -> tuple[bytes, bytes]:
    """A request before and after its ticket."""
    ticket = str(Ticket(0, plan.first_ms, plan.each_ms))
    text = WORDS * (plan.prompt_bytes // len(WORDS)) + ticket
    asked = {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": plan.tokens,
        "stream": plan.stream,
    }
    body = msgspec.json.encode(asked)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {HOST}:{plan.port}\r\nauthorization: Bearer {plan.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    before, _, after = (head.encode() + body).partition(ticket.encode())
    return before, after


async def main() -> None:
    plan = msgspec.json.decode(sys.argv[1], type=LoadPlan)
    sys.stdout.buffer.write(msgspec.json.encode(await Load(plan).run()))


if __name__ == "__main__":
    run(main())
