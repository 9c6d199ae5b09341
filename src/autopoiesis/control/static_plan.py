"""The plan that everybody starts from: chosen as a careful operator would, once, before anything runs.

Three looks, each sharper and dearer than the one before: estimates of the mean and of the busiest window over thousands
of plans, the fluid model over the whole load for the best of these, and the event model for the finalists.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from autopoiesis.control.phases import first_of_each
from autopoiesis.control.plans import candidate_plans, load_window, planning_state, serve_fixed
from autopoiesis.control.screening import most_promising
from autopoiesis.cost import CostModel
from autopoiesis.plan import ServingPlan
from autopoiesis.simulate.fluid import Coefficients
from autopoiesis.simulate.outcome import score
from autopoiesis.simulate.scenario import Scenario

FINALISTS = 8
"""Plans that the event model judges: the best for the mean load, for the peak, for both, and over the whole load."""
SCREENED = 16
"""Of the best for the mean load, for the peak and for both, how many each the fluid model follows over the load."""
SCREENED_APART, FINALISTS_APART = 6, 2
"""How many more of each run prefill and decode apart."""
EQUALLY_GOOD = 0.005
"""Relative difference of the objective below which two fixed plans count as equal."""


def best_fixed_plan(scenario: Scenario, cost: CostModel, say: Callable[[str], None]) -> ServingPlan:
    """The plan with the best objective when the scenario's requests are replayed against it."""
    width = max(scenario.window_s, 60.0)
    edges = np.arange(0.0, max(scenario.duration_s - width / 2, width / 2), width)
    counts = [
        int(((scenario.requests.arrival_s >= a) & (scenario.requests.arrival_s < a + width)).sum()) for a in edges
    ]
    peak = float(edges[int(np.argmax(counts))])
    whole = load_window(scenario, scenario.requests, 0.0, max(scenario.duration_s, width))
    windows = [whole, load_window(scenario, scenario.requests, peak, peak + width)]
    groups = [
        first_of_each(candidate_plans(scenario, cost, group, scenario.objective, apart=True), SCREENED, SCREENED_APART)
        for group in (windows[:1], windows[1:], windows)
    ]
    screened = most_promising(
        scenario, Coefficients(cost), list(dict.fromkeys(plan for group in groups for plan in group))
    )
    leaders = dict.fromkeys([*(group[0] for group in groups), *screened])
    finalists = first_of_each(list(leaders), FINALISTS, FINALISTS_APART)
    state = planning_state(scenario, cost, whole, scenario.objective)
    judged = []
    for position, plan in enumerate(finalists):
        say(f"replaying fixed plan {position + 1} of {len(finalists)}")
        books = serve_fixed(scenario, plan, cost, goes_on=True)
        assert books is not None
        judged.append((score(scenario.objective, books, None), -state.estimate(plan).headroom, position, plan))
    least = min(worth for worth, _, _, _ in judged)
    # of plans equally good on so little load, a careful operator takes the one with most room
    return min(entry[1:] for entry in judged if entry[0] <= least * (1 + EQUALLY_GOOD))[-1]
