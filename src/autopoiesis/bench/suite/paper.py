"""Paper mode: seconds until all batches are served, under both accountings side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from autopoiesis.bench.suite.intervals import Interval, interval
from autopoiesis.bench.suite.results import PaperResult, Results
from autopoiesis.bench.suite.statistics import HUMAN, Variant

ACCOUNTINGS = ("overlapped", "additive")
"""*Overlapped*: the old plan serves while the planner runs, and what does not change while the rest moves. *Additive*:
nothing serves meanwhile."""


@dataclass(frozen=True)
class Batches:
    """One cell in paper mode."""

    group: str
    cell: str
    planned: frozenset[tuple[str, Variant, int]]
    """Accounting, policy and seed of all that was to be measured."""
    times: Mapping[tuple[str, Variant], Mapping[int, PaperResult]]
    """By accounting and policy, then by seed."""

    def of(self, accounting: str, variant: Variant) -> Mapping[int, PaperResult]:
        return self.times.get((accounting, variant), {})

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Those with which anybody was measured or to be measured."""
        return tuple(sorted({seed for *_, seed in self.planned} | {seed for of in self.times.values() for seed in of}))

    @cached_property
    def everybody(self) -> tuple[Variant, ...]:
        """Who was measured or to be measured."""
        return tuple(sorted({variant for _, variant, _ in self.planned} | {variant for _, variant in self.times}))

    @cached_property
    def missing(self) -> tuple[tuple[str, Variant, tuple[int, ...]], ...]:
        """What was to be measured and was not: accounting, policy and seeds."""
        lacking = sorted(entry for entry in self.planned if entry[2] not in self.of(*entry[:2]))
        return tuple(
            (*what, tuple(seed for *_, seed in entries)) for what, entries in groupby(lacking, key=lambda one: one[:2])
        )

    def mean(self, accounting: str, variant: Variant, measure: Callable[[PaperResult], float]) -> Interval | None:
        """Over the seeds there are."""
        own = self.of(accounting, variant)
        return interval([measure(own[seed]) for seed in self.seeds if seed in own])

    def best_baseline(self, accounting: str) -> Variant | None:
        """The human policy with the least mean total; None while one of them lacks a seed."""
        totals = {}
        for variant in self.everybody:
            if variant.kind in HUMAN:
                mean = self.mean(accounting, variant, lambda times: times.total_s)
                if mean is None or mean.n < len(self.seeds):
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


def batches(results: Results) -> list[Batches]:
    """By group and cell, planned or found."""
    planned: dict[tuple[str, str], set[tuple[str, Variant, int]]] = {}
    found: dict[tuple[str, str], dict[tuple[str, Variant], dict[int, PaperResult]]] = {}
    for group, cell, seed, policy, kind, accounting in results.meta.planned_papers:
        planned.setdefault((group, cell), set()).add((accounting, Variant(policy, kind), seed))
    for row in results.papers:
        times = found.setdefault((row.group, row.cell), {})
        times.setdefault((row.accounting, Variant(row.policy, row.kind)), {})[row.seed] = row
    places = sorted(planned.keys() | found.keys())
    return [Batches(*place, frozenset(planned.get(place, ())), found.get(place, {})) for place in places]
