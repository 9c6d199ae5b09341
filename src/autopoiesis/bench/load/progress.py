"""A load while it runs: counts so far, and rates and latencies of the last seconds."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass

import numpy as np

from autopoiesis.bench.load.exchange import Exchange
from autopoiesis.bench.load.replay import Replay
from autopoiesis.workload import nearest_rank

WINDOW_S = 10.0


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Seconds, by nearest rank; 0 where nothing was measured."""

    p50: float
    p90: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at a load."""

    elapsed_s: float
    total: int
    sent: int
    running: int
    done: int
    """Answered in full."""
    errors: dict[str, int]
    """By kind, since the beginning."""
    sent_per_s: float
    """This and all that follows: of the last seconds."""
    done_per_s: float
    tokens_per_s: float
    """As they come in."""
    ttft_s: Quantiles
    tpot_s: Quantiles


class Progress:
    """Looks at a replay now and then; what a look costs depends on what has ended since the last one."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._seen = 0
        self._tokens = 0
        self._done = 0
        self._errors: Counter[str] = Counter()
        self._recent: deque[Exchange] = deque()
        self._counts: deque[tuple[float, int, int, int]] = deque([(replay.origin_s, 0, 0, 0)])

    def look(self) -> Snapshot:
        replay = self._replay
        now_s = time.monotonic()
        for exchange in replay.ended[self._seen :]:
            self._tokens += len(exchange.answer.token_s)
            if exchange.fault:
                self._errors[exchange.fault] += 1
            else:
                self._done += 1
                self._recent.append(exchange)
        self._seen = len(replay.ended)
        while self._recent and self._recent[0].end_s < now_s - WINDOW_S:
            self._recent.popleft()
        tokens = self._tokens + sum(len(exchange.answer.token_s) for exchange in replay.under_way())
        self._counts.append((now_s, len(replay.exchanges), self._done, tokens))
        while len(self._counts) > 2 and self._counts[0][0] < now_s - WINDOW_S:
            self._counts.popleft()
        before_s, *before = self._counts[0]
        over_s = max(now_s - before_s, 1e-9)
        sent, done, came = (
            max(count - earlier, 0) / over_s for count, earlier in zip(self._counts[-1][1:], before, strict=True)
        )
        times = [(exchange.sent_s, exchange.answer.token_s) for exchange in self._recent if exchange.answer.token_s]
        return Snapshot(
            elapsed_s=max(now_s - replay.origin_s, 0.0),
            total=replay.total,
            sent=len(replay.exchanges),
            running=replay.running,
            done=self._done,
            errors=dict(self._errors.most_common()),
            sent_per_s=sent,
            done_per_s=done,
            tokens_per_s=came,
            ttft_s=_quantiles([token_s[0] - sent_s for sent_s, token_s in times]),
            tpot_s=_quantiles([(t[-1] - t[0]) / (len(t) - 1) for _, t in times if len(t) > 1]),
        )


def _quantiles(values: list[float]) -> Quantiles:
    held = np.array(values)
    return Quantiles(nearest_rank(held, 0.5), nearest_rank(held, 0.9))
