"""What is claimed of ours, and whether a run has reached it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from autopoiesis.bench.gateway.cells import PLAIN_1, PLAIN_256, STREAM_200, Memory, Sample
from autopoiesis.bench.gateway.targets import OURS, VLLM_ROUTER

RATE = 5_500.0
CPU_US = 180.0
STREAM_RATIO = 1.15
ADDED_MS = 0.5
P99_RATIO = 1.0
PSS_MIB = 80.0


@dataclass(frozen=True, slots=True)
class Claim:
    """One row; `values` are of the rounds, none where it could not be measured."""

    text: str
    unit: str
    limit: float
    values: tuple[float, ...]
    at_least: bool = False
    """Whether the limit is the least that it may be; otherwise the most."""
    of: Callable[[Sequence[float]], float] = median
    """What counts of the values."""
    note: str = ""

    @property
    def measured(self) -> float | None:
        return self.of(self.values) if self.values else None

    @property
    def reached(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def of_cells(samples: Sequence[Sample], memory: Memory | None) -> list[Claim]:
    """What is claimed of loads side by side."""
    ours = [sample for sample in samples if sample.target == OURS.name]
    plain = [sample for sample in ours if sample.cell == PLAIN_256.name]
    single = [sample for sample in ours if sample.cell == PLAIN_1.name]
    rows = [
        Claim("256 connections: requests per second", "1/s", RATE, tuple(s.rate for s in plain), at_least=True),
        Claim("256 connections: CPU for each request", "µs", CPU_US, cpu_of(plain)),
        Claim(
            f"a request and 200 streamed tokens: CPU ÷ that of {VLLM_ROUTER.name}", "", STREAM_RATIO,
            ratios(samples, STREAM_200.name, OURS.name, VLLM_ROUTER.name, lambda s: s.cpu_us),
        ),
        Claim("one connection: added latency, p50", "ms", ADDED_MS, added_p50(single)),
        Claim(
            f"one connection: added latency, p99 ÷ that of {VLLM_ROUTER.name}", "", P99_RATIO,
            ratios(samples, PLAIN_1.name, OURS.name, VLLM_ROUTER.name, added_p99),
        ),
        Claim("memory after the loads, PSS", "MiB", PSS_MIB, () if memory is None else (memory.pss,)),
        nothing("requests not answered whole, all loads", [s.report.failed for s in ours]),
    ]  # fmt: skip
    return rows


def nothing(text: str, counts: Sequence[float], note: str = "") -> Claim:
    """That something never happens."""
    return Claim(text, "", 0.0, tuple(counts), of=max, note=note)


def ratios(
    samples: Sequence[Sample], cell: str, one: str, other: str, value: Callable[[Sample], float | None]
) -> tuple[float, ...]:
    """One gateway's value by the other's, round by round."""
    by = {(s.target, s.round): value(s) for s in samples if s.cell == cell}
    pairs = [(by.get((one, number)), by.get((other, number))) for number in sorted({number for _, number in by})]
    return tuple(mine / theirs for mine, theirs in pairs if mine is not None and theirs)


def cpu_of(samples: Sequence[Sample]) -> tuple[float, ...]:
    return tuple(sample.cpu_us for sample in samples if sample.cpu_us is not None)


def added_p50(samples: Sequence[Sample]) -> tuple[float, ...]:
    return tuple(sample.report.added.p50 for sample in samples if sample.report.added is not None)


def added_p99(sample: Sample) -> float | None:
    return None if sample.report.added is None else sample.report.added.p99
