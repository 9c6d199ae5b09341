"""The belief: a cost model that starts from the data sheet (or from another belief) and follows what telemetry shows.

Per GPU kind one factor on step times is learnt from decode-only steps, whose work (steps, sequences, contexts) and
duration an engine's counters give exactly; one factor on start times is learnt from the starts that were seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from autopoiesis.cost.model import CostModel
from autopoiesis.cost.step import StepTimes

PRIOR_BUSY_S = 20.0
"""Seconds of engine time that the data sheet counts for against measurements."""
FORGETTING = 0.9
"""Weight that old measurements of a GPU kind keep when a monitoring point brings new ones."""
PRIOR_STARTS = 1.0
"""Starts that the data sheet counts for."""
BOUNDS = (0.5, 2.0)
"""A factor outside these says that the telemetry, not the data sheet, is wrong."""


@dataclass(frozen=True, slots=True)
class DecodeWork:
    """What one replica's decode-only steps did since the last sample."""

    gpu: str
    times: StepTimes
    """As first believed (by the data sheet)."""
    steps: int
    sequences: int
    """Sum over the steps."""
    contexts: int
    """Sum over steps and sequences."""
    busy_s: float

    @property
    def expected_s(self) -> float:
        """Time of these steps by the data sheet. The weights bound a decode step as long as its batch is moderate."""
        if not self.steps:
            return 0.0
        mean = self.sequences / self.steps
        times = self.times
        step = times.fixed_s + max(times.weights_s, times.token_s * mean)
        return (
            self.steps * step
            + self.sequences * (times.communication_s + times.sequence_s)
            + self.contexts * times.context_s
        )


class Belief:
    """Calibrates `cost` as the run goes; `cost` is what policies and planners are given."""

    def __init__(self, cost: CostModel) -> None:
        self.cost = cost
        self._first = cost
        self._measured: dict[str, tuple[float, float]] = {}
        self._starts = (0.0, 0)

    def observe(self, work: Iterable[DecodeWork], starts: Iterable[tuple[float, float]] = ()) -> None:
        """Take in what happened since the last call: work as measured and as first expected, and starts as pairs
        (measured seconds, seconds first expected). GPU kinds without work keep what was known of them."""
        news: dict[str, tuple[float, float]] = {}
        for entry in work:
            measured, expected = news.get(entry.gpu, (0.0, 0.0))
            news[entry.gpu] = (measured + entry.busy_s, expected + entry.expected_s)
        for gpu, (busy_s, expected_s) in news.items():
            measured, expected = self._measured.get(gpu, (0.0, 0.0))
            self._measured[gpu] = (measured * FORGETTING + busy_s, expected * FORGETTING + expected_s)
        for measured, expected in starts:
            self._starts = (self._starts[0] + measured / expected, self._starts[1] + 1)
        first = self._first
        slow = dict(first.slow)
        for gpu, (measured, expected) in sorted(self._measured.items()):
            factor = _bounded((measured + PRIOR_BUSY_S) / (expected + PRIOR_BUSY_S))
            slow[gpu] = _rounded(first.slow.get(gpu, 1.0) * factor)
        start_slow = _bounded((self._starts[0] + PRIOR_STARTS) / (self._starts[1] + PRIOR_STARTS))
        self.cost = first.with_slow(slow, _rounded(first.start_slow * start_slow))


def _bounded(factor: float) -> float:
    return min(max(factor, BOUNDS[0]), BOUNDS[1])


def _rounded(factor: float) -> float:
    # so that the belief, and with it every cached estimate, does not change by a hair at every sample
    return round(factor, 3)
