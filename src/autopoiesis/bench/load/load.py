"""One load from beginning to end: send, collect, predict."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from autopoiesis.bench.load.endpoint import Endpoint, Kind
from autopoiesis.bench.load.exchange import Exchange
from autopoiesis.bench.load.messages import Asking, Messages
from autopoiesis.bench.load.outcomes import Figures, Outcomes, figures, outcomes
from autopoiesis.bench.load.prediction import Fleet, predict_load
from autopoiesis.bench.load.prompts import Measure, Prompts, Text, Units
from autopoiesis.bench.load.replay import Replay
from autopoiesis.cost.telemetry import TOKENS_MAX, Stream
from autopoiesis.errors import AutopoiesisError, ScenarioError
from autopoiesis.workload import SLO, Requests
from autopoiesis.workload.requests import single_requests

T = TypeVar("T")

PROBES = (16, 144)
"""Words of the prompts by which it is learnt how many tokens words make."""
PROBE_S = 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How a load is sent."""

    closed_loop: bool = True
    """Whether the later calls of a session follow the end of the call before, or arrive as recorded."""
    concurrency_limit: int | None = None
    timeout_s: float = 600.0
    """For a whole answer."""
    keep_alive: bool = True
    """Whether a connection carries one request after the other. A server with a thread for every connection, such as
    llama.cpp's, has none left for others while connections are idle."""
    seed: int = 0
    """Draws the prompts."""
    first_token: int = 1000
    """Prompts of completions are drawn from the token ids `first_token` …"""
    last_token: int = 9999
    """… to `last_token`, inclusive: ordinary entries of the vocabulary."""
    asking: Asking = field(default_factory=Asking)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a load."""

    requests: Requests
    """As planned."""
    came: Outcomes
    exchanges: tuple[Exchange, ...]
    """All that were sent, in order of sending."""
    origin_s: float
    """The instant of their clock from which `came` counts."""
    measure: Measure
    wall_s: float
    client_cpu_s: float
    """CPU time of this process while the load ran."""
    closed_loop: bool
    limited: bool

    @property
    def late_p99_s(self) -> float:
        """How much later than due a request was sent."""
        return float(np.quantile(self.came.late_s, 0.99)) if len(self.came.late_s) else 0.0

    @property
    def client_cpu_share(self) -> float:
        """Of one core."""
        return self.client_cpu_s / self.wall_s if self.wall_s else 0.0

    def streams(self) -> tuple[Stream, ...]:
        """The answers in full, for calibration; times from the origin of the load."""
        origin_s = self.origin_s
        prompt_tokens = dict(zip(self.came.rows.tolist(), self.came.served.input_tokens.tolist(), strict=True))
        return tuple(
            Stream(
                sent_s=exchange.sent_s - origin_s,
                prompt_tokens=prompt_tokens[exchange.row],
                token_s=tuple(at_s - origin_s for at_s in exchange.answer.token_s),
            )
            for exchange in self.exchanges
            if not exchange.fault and exchange.answer.token_s
        )

    def measured(self, slo: SLO) -> Figures:
        return figures(self.came.served, slo, self.came.served.completed)

    def predicted(self, slo: SLO, fleet: Fleet) -> Figures:
        """What the simulator says of the requests that were sent, latencies and rates of those that both answer."""
        served = predict_load(fleet, self.requests, self.came, closed_loop=self.closed_loop, limited=self.limited)
        return figures(served, slo, served.completed & self.came.served.completed)


def send(
    endpoint: Endpoint,
    requests: Requests,
    settings: Settings,
    attend: Callable[[Replay], Coroutine[Any, Any, None]] | None = None,
) -> Result:
    """Send the load and wait for all answers. `attend` runs beside it: it may look at the replay, and stop it.

    Raises ScenarioError for an endpoint or a load that is refused, and AutopoiesisError if the endpoint does not answer
    the short requests by which the length of chat prompts is learnt.
    """
    address = endpoint.address()
    if not len(requests) or not 1 <= requests.input_tokens.min() <= requests.input_tokens.max() <= TOKENS_MAX:
        raise ScenarioError(f"a load must have requests, with prompts of 1 to {TOKENS_MAX} tokens")
    chat = endpoint.kind is Kind.CHAT
    units = Units.words() if chat else Units.token_ids(settings.first_token, settings.last_token)
    text = Text(units, settings.seed)

    def replay(part: Requests, measure: Measure, closed_loop: bool, limit: int | None, timeout_s: float) -> Replay:
        messages = Messages(endpoint, address, Prompts(part, text, measure), part, settings.asking, settings.keep_alive)
        return Replay(
            address,
            part,
            messages.message,
            closed_loop=closed_loop,
            timeout_s=timeout_s,
            concurrency_limit=limit,
            keep_alive=settings.keep_alive,
        )

    measure = Measure()
    if chat:
        words = single_requests(np.zeros(2), np.array(PROBES), np.ones(2, dtype=np.int64))
        probes = replay(words, measure, False, 1, PROBE_S)
        run(probes.run())
        measure = learnt(outcomes(words, probes.exchanges, probes.origin_s))
    load = replay(requests, measure, settings.closed_loop, settings.concurrency_limit, settings.timeout_s)
    with _collected():
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        run(_attended(load, attend))
        wall_s, client_cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
    came = outcomes(requests, load.exchanges, load.origin_s)
    return Result(
        requests=requests,
        came=came,
        exchanges=tuple(load.exchanges),
        origin_s=load.origin_s,
        measure=measure,
        wall_s=wall_s,
        client_cpu_s=client_cpu_s,
        closed_loop=settings.closed_loop,
        limited=settings.concurrency_limit is not None,
    )


def learnt(came: Outcomes) -> Measure:
    """How many words make a token, from two prompts of `PROBES` words."""
    if len(came.rows) < len(PROBES) or any(came.faults):
        reason = next((fault for fault in came.faults if fault), "no answer")
        raise AutopoiesisError(f"the endpoint did not answer a short chat request ({reason}); check URL and --model")
    few, many = came.prompt_tokens.tolist()
    if not 0 < few < many:
        return Measure()  # an endpoint that does not count
    tokens_per_word = (many - few) / (PROBES[1] - PROBES[0])
    return Measure(1 / tokens_per_word, max(few - PROBES[0] * tokens_per_word, 0.0))


@contextmanager
def _collected() -> Iterator[None]:
    """What lives already is passed over by the garbage collector: walking through it would stop the client for some
    tens of milliseconds."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def _attended(load: Replay, attend: Callable[[Replay], Coroutine[Any, Any, None]] | None) -> None:
    beside = None if attend is None else asyncio.create_task(attend(load))
    try:
        await load.run()
    finally:
        if beside is not None:
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)


def run(main: Coroutine[Any, Any, T]) -> T:
    """On uvloop where there is one."""
    if sys.platform == "win32":
        return asyncio.run(main)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
