"""What each of many plans gives in each window, by the fluid model with the world's true coefficients.

Windows are taken apart: each begins with nothing in flight, and what it leaves is served after it by the same plan. So
a table of plans by windows can be put together in any order, which is what a bound without switching costs is. Beside
it stands what each plan gives that serves from the first window on, with the backlog that it carries along.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autopoiesis.control.plans import price_per_hour
from autopoiesis.control.screening import NEVER_SERVED_S, demand_in, windows_of
from autopoiesis.errors import ScenarioError
from autopoiesis.plan import ServingPlan
from autopoiesis.simulate.fluid import Coefficients, evaluate_plan
from autopoiesis.simulate.fluid_horizon import Course, Demand, follow, known_loads, window_loads
from autopoiesis.simulate.scenario import Scenario
from autopoiesis.workload import Window

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Values:
    """W windows by N plans. Sums, so that any choice of plans by window adds up."""

    scenario: Scenario
    plans: tuple[ServingPlan, ...]
    count: Array
    """(W,) requests."""
    good: Array
    """(W, N) requests answered within SLO."""
    delay_s: Array
    """(W, N) sum of seconds beyond the unloaded time; 600 s for what is never served."""
    lasting_good: Array
    """(W, N) the same for a plan that serves from the first window on."""
    lasting_delay_s: Array
    """(W, N)"""
    dollars: Array
    """(W, N) price of the GPUs that the plan needs, for as long as the window."""
    headroom: Array
    """(W, N) multiple of the window's load that the plan serves, by steady flows."""

    def kept(self, columns: Sequence[int]) -> Values:
        """Of some plans only."""
        return replace(
            self,
            plans=tuple(self.plans[n] for n in columns),
            good=self.good[:, columns],
            delay_s=self.delay_s[:, columns],
            lasting_good=self.lasting_good[:, columns],
            lasting_delay_s=self.lasting_delay_s[:, columns],
            dollars=self.dollars[:, columns],
            headroom=self.headroom[:, columns],
        )

    def carrying(self) -> Values:
        """The table in which a plan that a window's load is too much for has its backlog from before as well.

        A steady overload is harmless for a minute and ruinous for an hour. Where there is room, a plan is taken to
        have come without backlog, as the one has that a search wants to switch to.
        """
        short = self.headroom < 1.0
        good = np.where(short, np.minimum(self.good, self.lasting_good), self.good)
        delay_s = np.where(short, np.maximum(self.delay_s, self.lasting_delay_s), self.delay_s)
        return replace(self, good=good, delay_s=delay_s)

    @cached_property
    def column(self) -> dict[ServingPlan, int]:
        return {plan: n for n, plan in enumerate(self.plans)}

    def objective(self, good: float, delay_s: float, dollars: float) -> float:
        """The scenario's objective of sums over all windows, smaller is better, as `simulate.outcome.score`."""
        count = max(float(self.count.sum()), 1e-9)
        match self.scenario.objective:
            case "cost_per_good":
                return dollars / good if good > 0 else math.inf
            case "goodput":
                return 1.0 - good / count
            case _:
                return delay_s / count

    def fixed(self) -> Array:
        """(N,) the objective of each plan kept for all windows."""
        sums = [part.sum(axis=0) for part in (self.lasting_good, self.lasting_delay_s, self.dollars)]
        return np.array([self.objective(*(float(part[n]) for part in sums)) for n in range(len(self.plans))])

    def of(self, choice: Sequence[int] | NDArray[np.int64]) -> float:
        """The objective of one plan for each window, switching left out."""
        rows = np.arange(len(self.count))
        good, delay_s, dollars = (part[rows, choice].sum() for part in (self.good, self.delay_s, self.dollars))
        return self.objective(float(good), float(delay_s), float(dollars))

    def price_of_good(self, value: float) -> float:
        """What a good request is worth in dollars where the objective is at `value`; 0 where money does not count."""
        return value if self.scenario.objective == "cost_per_good" and math.isfinite(value) else 0.0

    def linear(self, good: Array, delay_s: Array, dollars: Array, price_of_good: float) -> Array:
        """What is minimised for a given worth of a good request in dollars (Dinkelbach's parametric problem)."""
        match self.scenario.objective:
            case "cost_per_good":
                return dollars - price_of_good * good
            case "goodput":
                return -good
            case _:
                return delay_s


def values_of(scenario: Scenario, plans: Sequence[ServingPlan], most: int | None = None, always: int = 0) -> Values:
    """The table of the plans, or of at most so many of them: the first `always`, the best over all windows, and in turn
    the best of each window, chosen by steady flows at a tenth of the work.

    Windows are the scenario's; raises ScenarioError unless they are of whole seconds, and for paper mode's objective.
    """
    if scenario.objective == "total_time":
        raise ScenarioError("objective total_time has no bounds: it is that of paper mode; choose another --objective")
    width = round(scenario.window_s)
    if width != scenario.window_s:
        raise ScenarioError(f"bounds need windows of whole seconds, not of {scenario.window_s} s; change --window")
    windows = windows_of(scenario, width)
    coefficients = Coefficients(scenario.truth)
    steady = _steady(scenario, coefficients, windows, plans)
    if most is not None and len(plans) > most:
        steady = steady.kept(_promising(steady, most, always))
    demand = demand_in(scenario, coefficients, windows)
    parts = [_part(demand, w) for w in range(len(windows))]
    count = np.array([part.arrivals.sum() for part in parts])
    good, delay_s, lasting_good, lasting_delay_s = (np.zeros_like(steady.good) for _ in range(4))
    for n, plan in enumerate(steady.plans):
        lasting_good[:, n], lasting_delay_s[:, n] = _judged(follow(coefficients, plan, demand), count)
        for w, part in enumerate(parts):
            good[w : w + 1, n], delay_s[w : w + 1, n] = _judged(follow(coefficients, plan, part), count[w : w + 1])
    return replace(
        steady,
        count=count,
        good=good,
        delay_s=delay_s,
        lasting_good=lasting_good,
        lasting_delay_s=lasting_delay_s,
    )


def _judged(course: Course, count: Array) -> tuple[Array, Array]:
    """Good requests of each window, and seconds of delay; what is never served counts 600 s each, to the last one."""
    if not course.feasible:
        return np.zeros_like(count), NEVER_SERVED_S * count
    # what a class waits without end for, a decode replica without memory say, is infinite there
    delay_s = np.minimum(course.delay_s, NEVER_SERVED_S * course.arrived).sum(axis=1)
    if math.isinf(course.ended_s):
        delay_s[-1] += NEVER_SERVED_S * float(course.waiting[-1].sum() + course.running[-1].sum())
    return course.good.sum(axis=1), delay_s


def _steady(
    scenario: Scenario, coefficients: Coefficients, windows: Sequence[Window], plans: Sequence[ServingPlan]
) -> Values:
    """The table as if each window's load were steady."""
    good, delay_s, headroom = (np.zeros((len(windows), len(plans))) for _ in range(3))
    count = np.zeros(len(windows))
    for w, window in enumerate(windows):
        loads = window_loads(window)
        rows = coefficients.class_rows(loads, scenario.slos, scenario.window_s, scenario.shapes)
        count[w] = sum(entry.arrivals for entry in window.classes)
        for n, plan in enumerate(plans) if loads else ():
            given = evaluate_plan(coefficients, plan, loads, rows, scenario.window_s, 0.0, window.dispersion)
            good[w, n] = given.goodput * count[w]
            delay_s[w, n] = min(given.delay_s, NEVER_SERVED_S) * count[w]
            headroom[w, n] = given.headroom
    prices = np.array([price_per_hour(scenario, plan) for plan in plans])
    dollars = np.tile(prices * scenario.window_s / 3600, (len(windows), 1))
    return Values(scenario, tuple(plans), count, good, delay_s, good, delay_s, dollars, headroom)


def _promising(steady: Values, most: int, always: int) -> list[int]:
    fixed = steady.fixed()
    worth = steady.linear(steady.good, steady.delay_s, steady.dollars, steady.price_of_good(float(fixed.min())))
    overall = np.argsort(fixed, kind="stable")[: most // 3].tolist()
    by_window = np.argsort(worth, axis=1, kind="stable").T.ravel().tolist()
    return list(dict.fromkeys([*range(always), *overall, *by_window]))[:most]


def _part(demand: Demand, window: int) -> Demand:
    """One window of a demand by itself."""
    steps = len(demand.arrivals) // len(demand.rows)
    return replace(
        demand,
        loads=(known_loads(demand),),
        rows=demand.rows[window : window + 1],
        arrivals=demand.arrivals[window * steps : (window + 1) * steps],
        dispersions=demand.dispersions[window : window + 1],
    )
