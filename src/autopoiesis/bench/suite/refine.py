"""Sequences of plans judged by the event model, a bounded number of times, each run teaching where to look next.

The fluid model proposes: it is quick, but knows neither the world's losses and stragglers nor what a rollout does
to the requests around it. So what a run showed of a plan in a window replaces the table's entry, what switches cost
beyond expectation makes further ones dearer, and the shortest path is sought again. In turn with that, the best
sequence so far is changed a little at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np

from autopoiesis.bench.suite.candidates import shapes_of
from autopoiesis.bench.suite.search import PathSearch
from autopoiesis.bench.suite.sequence import PlanSequence, Served, best_of, serve
from autopoiesis.bench.suite.switching import Indices, Switches
from autopoiesis.bench.suite.values import Values
from autopoiesis.control.prepare import Prepared
from autopoiesis.plan import ServingPlan

FIRST_LOOKS = ((0.5, 0.02), (1.0, 0.02), (1.0, 0.2), (2.0, 0.2), (4.0, 1.0))
"""Slowness and reluctance of the paths that are tried before anything is known of the world."""
REPLACEMENTS = 3
"""Other plans tried in place of one, the best for its windows first."""


class Refinement:
    """Searches for the best sequence with at most `runs` runs of the event model."""

    def __init__(self, prepared: Prepared, values: Values, runs: int) -> None:
        self.runs = 0
        self._prepared = prepared
        self._values = values.carrying()
        self._switches = Switches(prepared.scenario, values.plans)
        self._most = runs
        self._served: dict[PlanSequence, Served] = {}

    def learn(self, served: Iterable[Served]) -> None:
        """Take what was served elsewhere for known; only plans of the table teach about windows."""
        self._served.update((one.sequence, one) for one in served)

    def best(self) -> Served:
        """Search until the runs are used up or nothing near is left to try."""
        for slowness, reluctance in FIRST_LOOKS:
            self._try(PathSearch(self._values, self._switches, slowness, reluctance).best()[0])
        while self.runs < self._most and (path := self._next()) is not None:
            self._try(path)
        return best_of(self._served.values())

    def _next(self) -> Indices | None:
        """What is tried next: in turn the shortest path as learnt so far, a switch of the best sequence left out or
        moved, and another plan in it; of each kind what promises most by the fluid model."""
        search = self._learnt()
        best = self._path(best_of(self._served.values()))
        kinds = [[search.best()[0]], list(moved(best)), list(replaced(best, search.values))]
        turn = self.runs % len(kinds)
        for kind in (*kinds[turn:], *kinds[:turn]):
            new = [path for path in kind if self._sequence(path) not in self._served]
            if new:
                return min(new, key=search.of)
        return None

    def fluid(self, served: Served) -> float:
        """The objective of a sequence by the fluid model alone."""
        return PathSearch(self._values, self._switches).of(self._path(served))

    def _path(self, served: Served) -> Indices:
        return np.array([self._values.column[plan] for plan in served.sequence.by_window(len(self._values.count))])

    def _sequence(self, path: Indices) -> PlanSequence:
        return PlanSequence.of([self._values.plans[n] for n in path])

    def _try(self, path: Indices) -> None:
        sequence = self._sequence(path)
        if sequence not in self._served and self.runs < self._most:
            self._served[sequence] = serve(self._prepared, sequence)
            self.runs += 1

    def _learnt(self) -> PathSearch:
        """A search over the table as the runs have corrected it.

        Where several runs had a plan in force, the best counts: the others had backlog that need not be.
        """
        values = self._values
        shown = _Shown(values, values.price_of_good(best_of(self._served.values()).score))
        lost = switches = 0.0
        for served in self._served.values():
            path = self._path(served)
            moving = self._moving(path)
            shown.see(np.flatnonzero(~moving), path, served)
            w = np.flatnonzero(moving)
            shares = (values.good[w, path[w]] - served.good[w]) / np.maximum(values.count[w], 1.0)
            lost += float(shares.sum())
            switches += served.sequence.switches
        reluctance = max(lost / switches, 0.0) if switches else 0.0
        return PathSearch(shown.corrected(), self._switches, reluctance=reluctance)

    def _moving(self, path: Indices) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """(W,) in which windows a switch is under way or has just ended."""
        moving = np.zeros(len(path), dtype=np.bool_)
        took = self._switches.windows()
        for w in np.flatnonzero(np.diff(path)) + 1:
            moving[w : w + int(took[path[w - 1], path[w]]) + 1] = True
        return moving


class _Shown:
    """What runs showed of plans in windows, beside the table's expectation; the better of two showings stays."""

    def __init__(self, values: Values, price_of_good: float) -> None:
        self._values = values
        self._price = price_of_good
        self._sums = np.stack([values.good, values.delay_s, values.dollars])
        """(3, W, N): as shown, and as expected where nothing was."""
        self._worse = np.full_like(values.good, np.inf)
        """(W, N) what is minimised, of what was shown."""

    def see(self, windows: Indices, path: Indices, served: Served) -> None:
        sums = np.stack([served.good, served.delay_s, served.dollars])[:, windows]
        worse = self._values.linear(sums[0], sums[1], sums[2], self._price)
        better = worse < self._worse[windows, path[windows]]
        windows, plans = windows[better], path[windows[better]]
        self._worse[windows, plans] = worse[better]
        self._sums[:, windows, plans] = sums[:, better]

    def corrected(self) -> Values:
        """The table with what was shown; other plans differ from it as the luckiest that was shown in the window."""
        values = self._values
        expected = np.stack([values.good, values.delay_s, values.dollars])
        seen = np.isfinite(self._worse)
        surprise = self._worse - values.linear(expected[0], expected[1], expected[2], self._price)
        w, luckiest = np.arange(len(seen)), np.argmin(surprise, axis=1)
        more = np.where(seen.any(axis=1), (self._sums - expected)[:, w, luckiest], 0.0)
        good, delay_s, dollars = np.maximum(np.where(seen, self._sums, expected + more[:, :, None]), 0.0)
        return replace(values, good=np.minimum(good, values.count[:, None]), delay_s=delay_s, dollars=dollars)


def moved(path: Indices) -> Iterator[Indices]:
    """Paths with a switch less, or with one a window earlier or later."""
    for start, end in pairwise(_edges(path)):
        for other in (start - 1, end):
            if 0 <= other < len(path):
                yield _with(path, start, end, path[other])
        if start > 0:
            yield _with(path, start - 1, start, path[start])
            yield _with(path, start, start + 1, path[start - 1])


def replaced(path: Indices, values: Values) -> Iterator[Indices]:
    """Paths with another plan between two switches, the best for its windows that differ in more than options."""
    cost = values.linear(values.good, values.delay_s, values.dollars, values.price_of_good(values.of(path)))
    shapes = [shapes_of(plan) for plan in values.plans]
    for start, end in pairwise(_edges(path)):
        ranked = np.argsort(cost[start:end].sum(axis=0), kind="stable").tolist()
        first: dict[ServingPlan, int] = {}
        for n in ranked:
            if n != path[start]:
                first.setdefault(shapes[n], n)
        for n in list(first.values())[:REPLACEMENTS]:
            yield _with(path, start, end, n)


def _edges(path: Indices) -> list[int]:
    """Where plans begin, and the end."""
    return [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]


def _with(path: Indices, start: int, end: int, plan: int) -> Indices:
    changed = path.copy()
    changed[start:end] = plan
    return changed
