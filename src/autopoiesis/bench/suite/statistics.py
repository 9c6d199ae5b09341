"""What results say: who is how far from the best found, what there is to win, and how sure that is.

Everybody in a *comparison* (one cell under one objective) serves the same loads, seed by seed, so ratios are taken
within a seed and only then averaged: what a lucky or heavy load does to all cancels.

* In a cell: arithmetic mean of the ratios over the seeds with Student's 95 % interval. One seed has no interval.
* Over cells that share an objective: geometric mean over seeds and cells, each cell counting alike. Which policy has
  the least does not depend on what ratios are relative to, and no cell outweighs others because its ratios are large.
  Ratios of costs, of shares and of delays are not averaged with one another.
* *Best tuned baseline* of a cell, which is its best policy in hindsight: the human policy, tuned or at its defaults,
  with the least mean score over the seeds.
* *Headroom*: (best tuned baseline - best found) / best tuned baseline. Both are the best of many on the very loads that
  they are reported on. That flatters the baseline, by which headroom looks smaller, and the best found, by which it
  looks larger.
* A score may be so small that a ratio to it says nothing (`FLOORS`). It is then shown as it is and enters no mean.
* Missing is what the run was to measure and did not. Seeds in which the best found or a baseline of the comparison is
  missing do not count for headroom: an interrupted run must not look better than a whole one.
* Rows whose policy had failed calls count like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from autopoiesis.bench.suite.intervals import Interval, interval
from autopoiesis.bench.suite.results import Measured, Results

WORTH_WINNING = 0.03
"""Headroom up to which there is nothing to be won, and no share of it to be told."""
AS_GOOD = 0.01
"""Change of the score up to which two policies count as equally good."""
FLOORS = {"delay": 0.010, "goodput": 0.01}
"""Scores up to which ratios are not taken: 10 ms of mean delay is what nobody feels and a step of an engine takes; of
requests not good, one in a hundred is what the suite calls a load that is served."""
HUMAN = ("default", "tuned")
BEST_FOUND, BEST_FIXED, PER_WINDOW, EVOLVING = "best-found", "best-fixed", "per-window", "evolving"


@dataclass(frozen=True, slots=True, order=True)
class Variant:
    """A policy as it was run."""

    policy: str
    kind: str

    @property
    def label(self) -> str:
        return f"{self.policy}, tuned" if self.kind == "tuned" else self.policy


@dataclass(frozen=True)
class Comparison:
    """One cell under one objective: everybody on the same loads."""

    group: str
    cell: str
    objective: str
    planned: frozenset[tuple[Variant, int]]
    """Who was to be measured, and with which seeds."""
    runs: Mapping[Variant, Mapping[int, Measured]]

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Those with which anybody was measured or to be measured."""
        return tuple(sorted({seed for _, seed in self.planned} | {seed for of in self.runs.values() for seed in of}))

    @cached_property
    def everybody(self) -> tuple[Variant, ...]:
        """Who was measured or to be measured."""
        return tuple(sorted({of for of, _ in self.planned} | self.runs.keys()))

    @cached_property
    def missing(self) -> tuple[tuple[Variant, tuple[int, ...]], ...]:
        """Who was to be measured and was not, and with which seeds."""
        lacking = sorted((of, seed) for of, seed in self.planned if seed not in self._of(of))
        return tuple((of, tuple(seed for _, seed in seeds)) for of, seeds in groupby(lacking, key=lambda one: one[0]))

    @cached_property
    def found(self) -> Variant | None:
        """The best found."""
        return self.named(BEST_FOUND)

    @cached_property
    def baselines(self) -> tuple[Variant, ...]:
        """Human policies that were measured here or to be measured, tuned or not."""
        return tuple(of for of in self.everybody if of.kind in HUMAN)

    @cached_property
    def complete(self) -> tuple[int, ...]:
        """Seeds with which the best found and all baselines were measured."""
        needed = [*self.baselines, *([self.found] if self.found else [])]
        return tuple(seed for seed in self.seeds if all(seed in self._of(of) for of in needed))

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
        return interval(self.ratios(of))

    def ratios(self, of: Variant) -> list[float]:
        """Score over that of the best found, seed by seed; none where that says nothing."""
        if self.found is None or not self.ratios_mean_something:
            return []
        found, own = self.runs[self.found], self._of(of)
        return [own[seed].score / found[seed].score for seed in self.seeds if seed in own and seed in found]

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


Entry = tuple[str, str, str, int, Variant, Measured | None]
"""Group, cell, objective, seed, policy, and what it gave; None of what was only planned."""


def comparisons(results: Results) -> list[Comparison]:
    """By group, cell and objective, planned or found."""
    entries: list[Entry] = [
        (group, cell, objective, seed, Variant(policy, kind), None)
        for group, cell, objective, seed, policy, kind in results.meta.planned_rows
    ]
    for row in results.rows:
        entries.append((row.group, row.cell, row.objective, row.seed, Variant(row.policy, row.kind), row.measured))
    return compared(entries)


def compared(entries: Iterable[Entry]) -> list[Comparison]:
    """The comparisons that are made of what was planned and what was measured, by group, cell and objective."""
    planned: dict[tuple[str, str, str], set[tuple[Variant, int]]] = {}
    runs: dict[tuple[str, str, str], dict[Variant, dict[int, Measured]]] = {}
    for group, cell, objective, seed, of, measured in entries:
        place = group, cell, objective
        wanted, found = planned.setdefault(place, set()), runs.setdefault(place, {})
        if measured is None:
            wanted.add((of, seed))
        else:
            found.setdefault(of, {})[seed] = measured
    return [Comparison(*place, frozenset(planned[place]), runs[place]) for place in sorted(runs)]


def strongest(alike: Sequence[Comparison]) -> tuple[Variant, float] | None:
    """The human policy with the least mean relative score over cells that share an objective, and that mean.

    Only who was measured in every cell where ratios mean something takes part; None if nobody was.
    """
    everybody = sorted({of for comparison in alike for of in comparison.baselines})
    means = ((of, over_cells((comparison, of) for comparison in alike)) for of in everybody)
    return min(((of, mean) for of, mean in means if mean is not None), key=lambda entry: entry[1], default=None)


def over_cells(entries: Iterable[tuple[Comparison, Variant | None]]) -> float | None:
    """Geometric mean of relative scores over seeds and cells, each cell counting alike.

    None if a score is missing where ratios mean something, though the best found has that seed, or if there is none.
    """
    logarithms = []
    for comparison, of in entries:
        if comparison.found is None or not comparison.ratios_mean_something:
            continue
        ratios = [] if of is None else comparison.ratios(of)
        if len(ratios) < len(comparison.runs[comparison.found]):
            return None
        if min(ratios) <= 0:
            return 0.0
        logarithms.append(math.fsum(map(math.log, ratios)) / len(ratios))
    return math.exp(math.fsum(logarithms) / len(logarithms)) if logarithms else None


def by_objective(group: Sequence[Comparison]) -> Iterator[tuple[str, list[Comparison]]]:
    """The comparisons of a group that share an objective."""
    for name in sorted({comparison.objective for comparison in group}):
        yield name, [comparison for comparison in group if comparison.objective == name]


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
