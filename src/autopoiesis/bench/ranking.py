"""Do the fluid model and the event kernel put plans in the same order?

Both say the cost of a good request of each plan over the same load, backlog served to its end; Spearman's ρ compares
the two orders. Plans that the event kernel cannot tell apart say nothing about order: on a fixed cluster all that
answer practically everything in time cost the same, and so do those that answer practically nothing. Of such plans of
one price only the first drawn is kept. Only the event kernel decides who they are.

The fluid model is told when requests came, to the second, and the lengths of each class in each window, as a replay
of what was observed is. Beside it stands what policies ask in one call per window: steady flows, no backlog.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopoiesis.control.plans import price_per_hour, serve_fixed
from autopoiesis.control.screening import demand_in, fluid_score, windows_of
from autopoiesis.plan import ServingPlan
from autopoiesis.simulate.fluid import Coefficients, evaluate_plan
from autopoiesis.simulate.fluid_horizon import follow, window_loads
from autopoiesis.simulate.scenario import Scenario

ALL_GOOD, NONE_GOOD = 0.99, 0.01
"""Share of good requests from which on, and up to which, plans of one price count as equal."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One plan as each model sees it. Costs are US dollars per good request, infinite where none is good."""

    plan: ServingPlan
    price_per_hour: float
    event_good: float
    """Share of all requests."""
    event_cost: float
    fluid_good: float
    fluid_cost: float
    window_cost: float
    """By `Estimate`s of single windows."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Plans in the order in which they were drawn."""

    ranked: tuple[Ranked, ...]
    kept: tuple[Ranked, ...]
    """Without saturated ties."""

    @property
    def correlation(self) -> float:
        """Spearman's ρ of the fluid model and the event kernel over the plans kept."""
        return spearman([r.event_cost for r in self.kept], [r.fluid_cost for r in self.kept])

    @property
    def correlation_with_ties(self) -> float:
        """The same over all plans; plans that differ by less than anybody would notice count as they come."""
        return spearman([r.event_cost for r in self.ranked], [r.fluid_cost for r in self.ranked])

    @property
    def correlation_of_windows(self) -> float:
        """That of estimates of single windows, over the plans kept."""
        return spearman([r.event_cost for r in self.kept], [r.window_cost for r in self.kept])

    @property
    def error(self) -> float:
        """Mean difference of the two shares of good requests over all plans."""
        return float(np.mean([abs(r.event_good - r.fluid_good) for r in self.ranked]))


def rank_plans(
    scenario: Scenario, plans: Sequence[ServingPlan], each: Callable[[int], None] = lambda position: None
) -> Ranking:
    """Serve the scenario's load by every plan in every model. Windows must be whole seconds."""
    coefficients = Coefficients(scenario.cost)
    windows = windows_of(scenario, round(scenario.window_s))
    demand = demand_in(scenario, coefficients, windows)
    steady = []
    for window in windows:
        loads = window_loads(window)
        rows = coefficients.class_rows(loads, scenario.slos, scenario.window_s, scenario.shapes)
        steady.append((loads, rows, window.dispersion))
    ranked = []
    for position, plan in enumerate(plans):
        each(position)
        price = price_per_hour(scenario, plan)
        books = serve_fixed(scenario, plan, scenario.cost)
        assert books is not None
        course = follow(coefficients, plan, demand)
        good = float(course.good.sum())
        alone = 0.0
        for loads, rows, dispersion in steady:
            estimate = evaluate_plan(coefficients, plan, loads, rows, scenario.window_s, price, dispersion)
            alone += estimate.goodput * float(rows[:, 1].sum()) * scenario.window_s
        ranked.append(
            Ranked(
                plan=plan,
                price_per_hour=price,
                event_good=books.goodput,
                event_cost=math.inf if books.cost_per_good_usd is None else books.cost_per_good_usd,
                fluid_good=good / max(len(scenario.requests), 1),
                fluid_cost=fluid_score(scenario, plan, course),
                window_cost=price / 3600 * scenario.duration_s / alone if alone > 0 else math.inf,
            )
        )
    return Ranking(tuple(ranked), without_ties(ranked))


def without_ties(ranked: Sequence[Ranked]) -> tuple[Ranked, ...]:
    """Of saturated plans of one price the first only."""
    seen = set()
    kept = []
    for entry in ranked:
        saturated = entry.event_good >= ALL_GOOD or entry.event_good <= NONE_GOOD
        tie = (entry.price_per_hour, entry.event_good >= ALL_GOOD)
        if saturated and tie in seen:
            continue
        if saturated:
            seen.add(tie)
        kept.append(entry)
    return tuple(kept)


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Pearson's correlation of the ranks, equal values sharing the mean of theirs; NaN if one side is all equal."""
    a, b = (_ranks(np.asarray(values, dtype=np.float64)) for values in (one, other))
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else math.nan


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - 0.5 * (counts - 1))[where]
    return ranks
