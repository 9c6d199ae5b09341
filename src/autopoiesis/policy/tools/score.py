"""One number for a plan, by the run's objective."""

from __future__ import annotations

import math

from autopoiesis.plan import ServingPlan
from autopoiesis.policy.interface import ServingState

TIE = 1e-3
"""Weight of headroom where the objective itself does not decide, relative to it."""
USELESS = 1e9
"""Score, before headroom is counted, of a feasible plan that serves nothing."""


def score(state: ServingState, plan: ServingPlan) -> float:
    """How bad a plan is by the state's own estimate; lower is better, infinite is infeasible. One evaluation.

    By objective: `cost_per_good` dollars per good request, `goodput` the fraction of requests that are not good,
    `delay` the mean seconds beyond the unloaded time, `total_time` the time that a window's load takes relative to
    the window (1 ÷ headroom). Added to each is a thousandth of 1 ÷ (1 + headroom), for `cost_per_good` of that
    fraction of the cost, so that of plans equally good now the one with more room is better.
    """
    estimate = state.estimate(plan)
    if not estimate.feasible:
        return math.inf
    tie = TIE / (1 + estimate.headroom)
    match state.objective:
        case "goodput":
            return 1 - estimate.goodput + tie
        case "delay":
            return (estimate.delay_s if math.isfinite(estimate.delay_s) else USELESS) + tie
        case "total_time":
            return (1 / estimate.headroom if estimate.headroom > 0 else USELESS) + tie
        case _:
            cost = estimate.cost_per_good_usd
            return cost * (1 + tie) if math.isfinite(cost) else USELESS * (1 + tie)
