"""Paper mode: seconds until all batches are served, under both accountings side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from autopoiesis.bench.suite.results import PaperResult
from autopoiesis.bench.suite.statistics import HUMAN, Interval, Variant, interval

ACCOUNTINGS = ("overlapped", "additive")
"""*Overlapped*: the old plan serves while the planner runs, and what does not change while the rest moves. *Additive*:
nothing serves meanwhile."""


@dataclass(frozen=True)
class Batches:
    """One cell in paper mode."""

    group: str
    cell: str
    seeds: tuple[int, ...]
    expected: tuple[Variant, ...]
    times: Mapping[tuple[str, Variant], Mapping[int, PaperResult]]
    """By accounting and policy, then by seed."""

    def of(self, accounting: str, variant: Variant) -> Mapping[int, PaperResult]:
        return self.times.get((accounting, variant), {})

    @cached_property
    def missing(self) -> tuple[tuple[str, Variant, tuple[int, ...]], ...]:
        """What was not measured: accounting, policy and seeds."""
        found = [
            (accounting, variant, tuple(seed for seed in self.seeds if seed not in self.of(accounting, variant)))
            for variant in self.expected
            for accounting in ACCOUNTINGS
        ]
        return tuple(entry for entry in found if entry[2])

    def mean(self, accounting: str, variant: Variant, measure: Callable[[PaperResult], float]) -> Interval | None:
        """Over the seeds there are."""
        own = self.of(accounting, variant)
        return interval([measure(own[seed]) for seed in self.seeds if seed in own])

    def best_baseline(self, accounting: str) -> Variant | None:
        """The human policy with the least mean total; None while one of those that were measured here lacks a seed."""
        totals = {}
        for variant in self.expected:
            if variant.kind in HUMAN and (mean := self.mean(accounting, variant, lambda times: times.total_s)):
                if mean.n < len(self.seeds):
                    return None
                totals[variant] = mean.mean
        return min(totals, key=lambda variant: (totals[variant], variant), default=None)

    def change(self, accounting: str, variant: Variant) -> Interval | None:
        """Of the total against that of the best baseline, seed by seed; negative: it is faster."""
        best = self.best_baseline(accounting)
        if best is None:
            return None
        own, against = self.of(accounting, variant), self.of(accounting, best)
        return interval([own[seed].total_s / against[seed].total_s - 1 for seed in self.seeds if seed in own])


def batches(papers: Sequence[PaperResult]) -> list[Batches]:
    """By group and cell. Whoever was measured in one was to be measured in all, with the same seeds."""
    seeds = tuple(sorted({row.seed for row in papers}))
    expected = tuple(sorted({Variant(row.policy, row.kind) for row in papers}))
    found: dict[tuple[str, str], dict[tuple[str, Variant], dict[int, PaperResult]]] = {}
    for row in papers:
        times = found.setdefault((row.group, row.cell), {})
        times.setdefault((row.accounting, Variant(row.policy, row.kind)), {})[row.seed] = row
    return [Batches(*place, seeds, expected, found[place]) for place in sorted(found)]
