"""What results say: who is how far from the best found, what there is to win, and how sure that is.

Everybody in a *comparison* (one cell under one objective) serves the same loads, seed by seed, so ratios are taken
within a seed and only then averaged: what a lucky or heavy load does to all cancels.

* Over seeds: arithmetic mean of the ratios with Student's 95 % interval. One seed has no interval.
* Over the cells of a group: geometric mean. Which policy has the least does not depend on what ratios are relative to.
* *Best tuned baseline*: the human policy, tuned or at its defaults, with the least mean score over the seeds.
* *Headroom*: (best tuned baseline - best found) / best tuned baseline. Both are the best of many on the very loads that
  they are reported on. That flatters the baseline, by which headroom looks smaller, and the best found, by which it
  looks larger.
* A score may be so small that a ratio to it says nothing (`FLOORS`). It is then shown as it is and enters no mean.
* Seeds in which the best found or a baseline of the comparison is missing do not count for headroom: an interrupted
  run must not look better than a whole one. `Comparison.missing` says what is not there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from autopoiesis.bench.suite.results import Measured, Results, RowResult, SweepResult

WORTH_WINNING = 0.03
"""Headroom up to which there is nothing to be won, and no share of it to be told."""
AS_GOOD = 0.01
"""Change of the score up to which two policies count as equally good."""
FLOORS = {"delay": 0.010, "goodput": 0.01}
"""Scores up to which ratios are not taken: 10 ms of mean delay is what nobody feels and a step of an engine takes; of
requests not good, one in a hundred is what the suite calls a load that is served."""
HUMAN = ("default", "tuned")
PER_WINDOW = "per-window"
T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Two-sided 95 % points of Student's t with 1 to 30 degrees of freedom; any table of the distribution has them."""


@dataclass(frozen=True, slots=True, order=True)
class Variant:
    """A policy as it was run."""

    policy: str
    kind: str

    @property
    def label(self) -> str:
        return f"{self.policy}, tuned" if self.kind == "tuned" else self.policy


BEST_FOUND, BEST_FIXED, EVOLVING = "best-found", "best-fixed", "evolving"


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `n` values and half the width of its 95 % interval; None where there is none."""

    mean: float
    half: float | None
    n: int

    @property
    def low(self) -> float:
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        return self.mean + (self.half or 0.0)


def interval(values: Sequence[float]) -> Interval | None:
    """The mean with Student's interval; None of nothing. Where a value is infinite the mean is, without an interval."""
    n = len(values)
    if not n:
        return None
    mean = math.fsum(values) / n if all(map(math.isfinite, values)) else max(values, key=abs)
    if n == 1 or not math.isfinite(mean):
        return Interval(mean, None, n)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Interval(mean, student_95(n - 1) * deviation / math.sqrt(n), n)


def student_95(freedom: int) -> float:
    """Two-sided 95 % point of Student's t; beyond the table by the first terms of its Cornish-Fisher expansion."""
    if freedom <= len(T_95):
        return T_95[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


@dataclass(frozen=True)
class Comparison:
    """One cell under one objective: everybody on the same loads."""

    group: str
    cell: str
    objective: str
    seeds: tuple[int, ...]
    """Those that everybody was to be measured with."""
    expected: tuple[Variant, ...]
    """Who was to be measured."""
    runs: Mapping[Variant, Mapping[int, Measured]]

    @cached_property
    def missing(self) -> tuple[tuple[Variant, tuple[int, ...]], ...]:
        """Who was not measured, and with which seeds."""
        lacking = ((of, tuple(seed for seed in self.seeds if seed not in self._of(of))) for of in self.expected)
        return tuple((of, seeds) for of, seeds in lacking if seeds)

    @cached_property
    def found(self) -> Variant | None:
        """The best found."""
        return self.named(BEST_FOUND)

    @cached_property
    def baselines(self) -> tuple[Variant, ...]:
        """Human policies that were measured here, tuned or not."""
        return tuple(sorted(of for of in self.runs if of.kind in HUMAN))

    @cached_property
    def complete(self) -> tuple[int, ...]:
        """Seeds with which the best found and all baselines that were measured here at all were measured."""
        needed = [*self.baselines, *([self.found] if self.found else [])]
        return tuple(seed for seed in self.seeds if all(seed in self.runs[of] for of in needed))

    @cached_property
    def best_baseline(self) -> Variant | None:
        """The best tuned baseline; of equals the first by name. None before a seed is complete."""
        if not self.complete:
            return None
        return min(self.baselines, key=self._standing, default=None)

    @cached_property
    def ratios_mean_something(self) -> bool:
        """Whether the best found is large enough, and finite, with all seeds, to say of others how far off they are."""
        return self.found is not None and self._large(self.runs[self.found].values())

    def named(self, policy: str) -> Variant | None:
        """Who bears the name; None if nobody was measured under it."""
        return next((of for of in sorted(self.runs) if of.policy == policy), None)

    def relative(self, of: Variant) -> Interval | None:
        """Score over that of the best found; None where that says nothing, or where there is nothing to compare."""
        if self.found is None or not self.ratios_mean_something:
            return None
        found, own = self.runs[self.found], self._of(of)
        return interval([own[seed].score / found[seed].score for seed in self.seeds if seed in own and seed in found])

    def saved(self, of: Variant | None) -> Interval | None:
        """What it is better by than the best tuned baseline, as a share of that one's score; negative: it is worse."""
        best = self.best_baseline
        if of is None or best is None:
            return None
        own, against = self._of(of), self.runs[best]
        if not self._large([against[seed] for seed in self.complete], finite=False):
            return None
        return interval([_saved(own[seed].score, against[seed].score) for seed in self.complete if seed in own])

    @cached_property
    def headroom(self) -> Interval | None:
        """(best tuned baseline - best found) / best tuned baseline."""
        return self.saved(self.found)

    @cached_property
    def closed(self) -> float | None:
        """Share of the headroom that the evolving system wins: of mean scores, since single seeds may leave nothing.

        None where headroom is not worth winning.
        """
        evolving, best = self.named(EVOLVING), self.best_baseline
        if self.headroom is None or self.headroom.mean <= WORTH_WINNING or not (evolving and best and self.found):
            return None
        seeds = [seed for seed in self.complete if seed in self.runs[evolving]]
        tuned, found, won = (self._mean(of, lambda m: m.score, seeds) for of in (best, self.found, evolving))
        if not seeds or not math.isfinite(tuned) or tuned <= found:
            return None
        return (tuned - won) / (tuned - found)

    @cached_property
    def beaten(self) -> tuple[Variant, ...]:
        """Who is better than the best found, which therefore is not the best there is; not the bound by windows, which
        nobody can reach."""
        relatives = [(of, self.relative(of)) for of in sorted(self.runs) if of.policy != PER_WINDOW]
        return tuple(of for of, relative in relatives if relative is not None and relative.mean < 1.0)

    def mean(self, of: Variant, measure: Callable[[Measured], float]) -> Interval | None:
        """Of a measure, over the seeds there are."""
        own = self._of(of)
        return interval([measure(own[seed]) for seed in self.seeds if seed in own])

    def _of(self, of: Variant) -> Mapping[int, Measured]:
        return self.runs.get(of, {})

    def _mean(self, of: Variant, measure: Callable[[Measured], float], seeds: Sequence[int]) -> float:
        found = interval([measure(self.runs[of][seed]) for seed in seeds])
        return math.nan if found is None else found.mean

    def _standing(self, of: Variant) -> tuple[int, float, Variant]:
        """Orders baselines; among those that fail with some seed, the one that fails least."""
        scores = [self.runs[of][seed].score for seed in self.complete]
        finite = [score for score in scores if math.isfinite(score)]
        return len(scores) - len(finite), math.fsum(finite) / max(len(finite), 1), of

    def _large(self, of: Iterable[Measured], finite: bool = True) -> bool:
        floor = FLOORS.get(self.objective, 0.0)
        return all(m.score > floor and (not finite or math.isfinite(m.score)) for m in of)


def _saved(score: float, baseline: float) -> float:
    """(baseline - score) / baseline, by its limit where the baseline is infinite: all is saved, or nothing."""
    if math.isinf(baseline):
        return 0.0 if math.isinf(score) else 1.0
    return (baseline - score) / baseline


def comparisons(results: Results) -> list[Comparison]:
    """By group, cell and objective, planned or found. Whoever was measured anywhere was to be measured everywhere."""
    return _compared(results.rows, results.meta.seeds, _variants(results.rows), results.meta.planned)


@dataclass(frozen=True)
class Setting:
    """A driver of a cell set to a value."""

    driver: str
    value: float
    comparison: Comparison


def settings(sweeps: Sequence[SweepResult]) -> list[Setting]:
    """By driver, group, cell, objective and value. Seeds and policies expected are those of the sweep's driver."""
    found = []
    for driver, swept in groupby(sorted(sweeps, key=lambda row: row.driver), key=lambda row: row.driver):
        rows = list(swept)
        seeds, expected = [row.seed for row in rows], _variants(rows)
        for value in sorted({row.value for row in rows}):
            at = [row for row in rows if row.value == value]
            found += [Setting(driver, value, of) for of in _compared(at, seeds, expected)]
    return sorted(found, key=lambda s: (s.driver, *_place(s.comparison), s.value))


def strongest(group: Sequence[Comparison]) -> tuple[Variant, float] | None:
    """The human policy with the least mean relative score over the cells of a group, and that mean.

    Only who was measured in every cell where ratios mean something takes part; None if nobody was.
    """
    means = [(mean, of) for of in sorted({of for c in group for of in c.baselines}) if (mean := over_cells(group, of))]
    return min(((of, mean) for mean, of in means), key=lambda entry: entry[1], default=None)


def over_cells(group: Sequence[Comparison], of: Variant) -> float | None:
    """Geometric mean of the relative scores; None if one is missing where ratios mean something, or there is none."""
    found = [comparison.relative(of) for comparison in group if comparison.ratios_mean_something]
    means = [entry.mean for entry in found if entry is not None]
    if not means or len(means) < len(found):
        return None
    return math.exp(math.fsum(map(math.log, means)) / len(means)) if min(means) > 0 else 0.0


def by_group(found: Sequence[Comparison]) -> list[tuple[str, list[Comparison]]]:
    """The comparisons of each group; controls, where nothing is to be won, come last."""
    ordered = sorted(found, key=_place)
    groups = [(name, list(of)) for name, of in groupby(ordered, key=lambda comparison: comparison.group)]
    return sorted(groups, key=lambda entry: is_control(entry[0]))


def is_control(group: str) -> bool:
    """Whether a group is there to see that nothing is lost."""
    return group.startswith("control")


def _place(comparison: Comparison) -> tuple[str, str, str]:
    return comparison.group, comparison.cell, comparison.objective


def _variants(rows: Iterable[RowResult | SweepResult]) -> tuple[Variant, ...]:
    return tuple(sorted({Variant(row.policy, row.kind) for row in rows}))


def _compared(
    rows: Sequence[RowResult] | Sequence[SweepResult],
    seeds: Iterable[int],
    expected: tuple[Variant, ...],
    planned: Iterable[tuple[str, str, str]] = (),
) -> list[Comparison]:
    found: dict[tuple[str, str, str], dict[Variant, dict[int, Measured]]] = {place: {} for place in planned}
    for row in rows:
        runs = found.setdefault((row.group, row.cell, row.objective), {})
        runs.setdefault(Variant(row.policy, row.kind), {})[row.seed] = row.measured
    everywhere = tuple(sorted({*seeds, *(row.seed for row in rows)}))
    return [Comparison(*place, everywhere, expected, found[place]) for place in sorted(found)]
