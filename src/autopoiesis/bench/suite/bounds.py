"""What could be won at best on a scenario, knowing the future and the world: bounds, never rows of policies.

From loose to tight: the best plan of every window as if switching were free, in the fluid model; the best sequence of
plans that was found, switching paid, in the event model; and the best plan that is never changed, in the event model.
The last two are what was found and not what is possible: no policy is known to do better than a search that knows
everything, but the search is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autopoiesis.bench.suite.candidates import candidates, shapes_of
from autopoiesis.bench.suite.refine import Refinement
from autopoiesis.bench.suite.sequence import PlanSequence, Served, best_of, serve
from autopoiesis.bench.suite.values import Values, values_of
from autopoiesis.control.phases import is_apart
from autopoiesis.control.plans import price_per_hour
from autopoiesis.control.prepare import Prepared
from autopoiesis.plan import ServingPlan
from autopoiesis.policy.library import policy
from autopoiesis.simulate.hosted import routing_of

TABULATED = 60
"""Plans that the fluid model follows through every window."""
FINALISTS = 8
"""Fixed plans that the event model judges, apart from those that everybody starts from."""
CHEAPER = 3
"""Fixed plans below the price of all these that are tried where late requests are turned away."""
RUNS = 40
"""Runs of the event model by which sequences are sought."""


@dataclass(frozen=True, slots=True)
class PerWindow:
    """The best plan for every window, switching free."""

    value: float
    """The objective in the fluid model."""
    plans: tuple[ServingPlan, ...]
    """(W,)"""


@dataclass(frozen=True, slots=True)
class Found:
    """The best that was found of its kind."""

    served: Served
    fluid: float
    """The objective of the same sequence in the fluid model."""
    runs: int
    """Runs of the event model that it took."""


@dataclass(frozen=True, slots=True)
class Bounds:
    per_window: PerWindow
    sequence: Found
    rejecting: Served
    """The best of some sequences where what would be late is turned away."""
    fixed: Found


def bounds_of(
    prepared: Prepared, extra: Sequence[ServingPlan] = (), runs: int = RUNS, colocated: bool = False
) -> Bounds:
    """All bounds of a scenario; `extra` plans, such as policies visited, are looked at as well.

    With `colocated`, no plan runs prefill and decode apart. Raises ScenarioError for an objective that is not one of
    operator mode.
    """
    first = [plan for plan in (prepared.plan, *extra) if not (colocated and is_apart(plan))]
    plans = candidates(prepared.scenario, first, apart=not colocated)
    values = values_of(prepared.scenario, plans, TABULATED, always=1)
    fixed, served = best_fixed(prepared, values)
    sequence = best_sequence(prepared, values, served, runs)
    return Bounds(per_window_optimum(values), sequence, rejecting(prepared, values, [sequence.served, *served]), fixed)


def rejecting(prepared: Prepared, values: Values, served: Sequence[Served]) -> Served:
    """The best where requests that would be late are turned away (`early-rejection` of the library): of the sequences
    served before, and of cheaper fixed plans, which need not keep up any more."""
    routing = routing_of(policy("early-rejection").text)
    scenario = prepared.scenario
    cheapest = min(price_per_hour(scenario, one.sequence.plans[0]) for one in served)
    ranked = [values.plans[n] for n in np.argsort(values.fixed(), kind="stable")]
    cheaper = [plan for plan in ranked if price_per_hour(scenario, plan) < cheapest][:CHEAPER]
    sequences = [*(one.sequence for one in served), *(PlanSequence.fixed(plan) for plan in cheaper)]
    return best_of([serve(prepared, sequence, routing) for sequence in dict.fromkeys(sequences)])


def per_window_optimum(values: Values) -> PerWindow:
    """The objective over all windows if each had its best plan from its beginning to its end.

    For cost per good request the plans are chosen for the ratio of the sums (Dinkelbach 1967), not each for its own.
    """
    worth = float(values.fixed().min())
    choice = np.zeros(len(values.count), dtype=np.int64)
    while True:
        cost = values.linear(values.good, values.delay_s, values.dollars, values.price_of_good(worth))
        found = np.argmin(cost, axis=1)
        found_worth = values.of(found)
        if not found_worth < worth:
            break
        choice, worth = found, found_worth
    return PerWindow(worth, tuple(values.plans[n] for n in choice))


def best_fixed(prepared: Prepared, values: Values, finalists: int = FINALISTS) -> tuple[Found, tuple[Served, ...]]:
    """The best plan of the table that is never changed, and all that were served to find it.

    The fluid model follows every plan through the whole load; the event model judges the first of them, engine options
    apart, and last the winner with other options. The first plan of the table, everybody's first, is always judged.
    """
    ranked = [values.plans[n] for n in np.argsort(values.fixed(), kind="stable")]
    alike: dict[ServingPlan, list[ServingPlan]] = {}
    for plan in ranked:
        alike.setdefault(shapes_of(plan), []).append(plan)
    several = [plans[0] for plans in alike.values()][: max(finalists // 2, 1)]
    served = [serve(prepared, PlanSequence.fixed(plan)) for plan in dict.fromkeys([values.plans[0], *several])]
    best = best_of(served).sequence.plans[0]
    others = [plan for plan in alike[shapes_of(best)] if plan != best][: finalists - len(several)]
    served += [serve(prepared, PlanSequence.fixed(plan)) for plan in others]
    winner = best_of(served)
    fluid = float(values.fixed()[values.column[winner.sequence.plans[0]]])
    return Found(winner, fluid, len(served)), tuple(served)


def best_sequence(prepared: Prepared, values: Values, served: Sequence[Served], runs: int = RUNS) -> Found:
    """The best sequence that `runs` runs of the event model find; never worse than any that was `served` before."""
    refinement = Refinement(prepared, values, runs)
    refinement.learn(served)
    best = refinement.best()
    return Found(best, refinement.fluid(best), refinement.runs)
