"""Fixed plans in the fluid model over a whole load: which of many are worth a replay in the event model.

An estimate of one window sees neither the backlog that the window before has left nor bursts shorter than itself. The
fluid model in time (`simulate.fluid_horizon`) is told every second's arrivals, which a replay knows, and takes
milliseconds a plan where the event model takes tens or hundreds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autopoiesis.control.plans import load_window, price_per_hour
from autopoiesis.plan import ServingPlan
from autopoiesis.simulate.fluid import Coefficients
from autopoiesis.simulate.fluid_horizon import Course, Demand, demand_of, follow, window_loads
from autopoiesis.simulate.scenario import Scenario
from autopoiesis.workload import Window, class_labels
from autopoiesis.workload.classes import BUCKETS, bucket_of

WINDOW_S = 60
"""Lengths of requests are told by windows of so many whole seconds, whatever the monitoring period."""
NEVER_SERVED_S = 600.0
"""What a request that is not completed counts as, as in `outcome.score`."""


def windows_of(scenario: Scenario, width_s: int = WINDOW_S) -> list[Window]:
    """The scenario's load in windows, every request known."""
    requests = scenario.requests
    last_s = float(requests.arrival_s[-1]) if len(requests) else 0.0
    count = math.floor(last_s / width_s) + 1
    return [load_window(scenario, requests, i * width_s, (i + 1) * width_s) for i in range(count)]


def demand_in(scenario: Scenario, coefficients: Coefficients, windows: Sequence[Window]) -> Demand:
    """What the fluid model is told of the scenario's load: all but the length of each request.

    Windows are those of `windows_of`: of equal length in whole seconds, from 0 to the end.
    """
    requests = scenario.requests
    width_s = round(windows[0].end_s - windows[0].start_s)
    seconds = width_s * len(windows)
    second = np.minimum(requests.arrival_s.astype(np.int64), seconds - 1)
    classes = requests.model * len(BUCKETS) + bucket_of(requests.input_tokens)
    arrivals = {
        label: np.bincount(second[classes == c], minlength=seconds).astype(np.float64)
        for c, label in enumerate(class_labels(scenario.models))
    }
    loads = [window_loads(window) for window in windows]
    # every arrival is shown, so nothing of their unevenness is left to chance
    certain = [0.0] * len(windows)
    return demand_of(coefficients, loads, scenario.slos, float(width_s), scenario.shapes, certain, arrivals)


def fluid_score(scenario: Scenario, plan: ServingPlan, course: Course, goes_on: bool = False) -> float:
    """The scenario's objective by the fluid model, smaller is better; infinite for a plan that cannot serve it.

    Money is counted until all is served, or, where the load `goes_on` after its end, for as long as it came.
    """
    if not course.feasible:
        return math.inf
    good = float(course.good.sum())
    count = max(float(course.arrived.sum()), 1e-9)
    match scenario.objective:
        case "cost_per_good":
            seconds = scenario.duration_s if goes_on else course.ended_s
            return price_per_hour(scenario, plan) / 3600 * seconds / good if good > 0 else math.inf
        case "goodput":
            return 1.0 - good / count
        case "delay":
            left = float(course.waiting[-1].sum() + course.running[-1].sum()) if math.isinf(course.ended_s) else 0.0
            return float(course.delay_s.sum()) / count + NEVER_SERVED_S * left / count
        case _:
            return course.ended_s


def most_promising(scenario: Scenario, coefficients: Coefficients, plans: Sequence[ServingPlan]) -> list[ServingPlan]:
    """The plans by the fluid model over the whole load, best first; equal ones as they stand."""
    demand = demand_in(scenario, coefficients, windows_of(scenario))
    worth = [fluid_score(scenario, plan, follow(coefficients, plan, demand), goes_on=True) for plan in plans]
    return [plans[i] for i in sorted(range(len(plans)), key=lambda i: (worth[i], i))]
