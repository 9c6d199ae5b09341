"""Plans that are worth a look in hindsight: good for the whole load, for its peak, or for a stretch of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from autopoiesis.control.phases import disaggregated
from autopoiesis.control.plans import candidate_plans, load_window, planning_state
from autopoiesis.control.prepare import starting_capacity
from autopoiesis.errors import PlanError, ScenarioError
from autopoiesis.plan import Capacity, Replica, Role, ServingPlan, check_plan
from autopoiesis.policy.interface import ServingState
from autopoiesis.policy.tools import greedy, local_search, milp, reach, score
from autopoiesis.simulate.scenario import Scenario
from autopoiesis.workload import Window

STRETCHES = 8
"""Contiguous parts of the load, of equally many windows, for each of which plans are looked for."""
KEPT = 24
"""Plans kept of each search, the fluid model's best first."""
POOL = 400
"""Best plans for the mean and for the busiest window that are ranked anew for each stretch."""
MARGINS = (1.0, 1.5)
"""Multiples of a stretch's load for which a plan is solved and packed."""
STEPS = 3
"""Of hill climbing from the best plan of a stretch."""
SIZES = (0.25, 0.5, 0.75)
"""Parts of an elastic cluster's maximum that are searched besides the whole."""
VARIED = 2
"""Best plans of each search that are tried with other engine options as well."""
BATCHED_TOKENS = (2048, 4096, 16384)
"""Token budgets of a step besides the default: smaller ones pace decoding, larger ones hurry prompts."""


def candidates(scenario: Scenario, extra: Sequence[ServingPlan] = (), apart: bool = True) -> list[ServingPlan]:
    """Plans that could stand in the scenario, `extra` ones (such as policies visited) first; none twice, whatever the
    order of its replicas. Those of `extra` keep theirs, on which placement and so chance depend.

    The others are the best for the mean window and for the busiest (`control.plans.candidate_plans`, with the true
    coefficients), and for every stretch the best of these and of what is solved, packed and climbed to for it; some
    with other engine options as well. On elastic clusters parts of the cluster are searched too.
    """
    found: dict[ServingPlan, ServingPlan] = {}
    for plan in extra:
        found.setdefault(plan.sorted(), plan)
    (whole, busiest), stretches = _windows(scenario)
    for part in _sizes(scenario):
        try:
            ranked = [
                candidate_plans(part, scenario.truth, [one], scenario.objective, apart) for one in (whole, busiest)
            ]
        except ScenarioError:
            # the whole cluster holds every model, a part of it need not
            continue
        pool = list(dict.fromkeys(plan for plans in ranked for plan in plans[: POOL // 2]))
        for window in stretches:
            state = planning_state(part, scenario.truth, window, scenario.objective)
            ranked.append(_for_stretch(state, pool, apart))
        for plans in ranked:
            varied = [variant for plan in plans[:VARIED] for variant in _variants(plan)]
            for plan in (*plans[:KEPT], *varied):
                found.setdefault(plan.sorted(), plan.sorted())
    return [plan for plan in found.values() if _stands(scenario, plan)]


def _for_stretch(state: ServingState, pool: Sequence[ServingPlan], apart: bool) -> list[ServingPlan]:
    """Plans for a stretch's load, best first."""
    made = [make(state, wanted=reach(state), margin=margin) for make in (milp, greedy) for margin in MARGINS]
    divided = disaggregated(state, pool) if apart else ()
    worth = {plan: score(state, plan) for plan in (*pool, *made, *divided)}
    ranked = sorted(worth, key=lambda plan: (worth[plan], str(plan)))
    climbed = local_search(state, ranked[0], STEPS)
    return list(dict.fromkeys([climbed, *(plan for plan in ranked if math.isfinite(worth[plan]))]))


def shapes_of(plan: ServingPlan) -> ServingPlan:
    """The plan with default engine options and without shares: equal for plans that differ in nothing else."""
    bare = [Replica(r.model, r.gpu, r.tensor_parallel, r.pipeline_parallel, r.role) for r in plan.replicas]
    return ServingPlan(tuple(sorted(bare)))


def _windows(scenario: Scenario) -> tuple[tuple[Window, Window], list[Window]]:
    """All the load as one window, the busiest window, and each stretch that has any load."""
    requests, width = scenario.requests, scenario.window_s
    count = max(round(scenario.duration_s / width), 1)
    arrivals = np.bincount((requests.arrival_s // width).astype(np.int64), minlength=count)
    peak = int(np.argmax(arrivals))

    def between(first: int, end: int) -> Window:
        return load_window(scenario, requests, first * width, end * width)

    edges = sorted({round(count * k / STRETCHES) for k in range(STRETCHES + 1)})
    stretches = [between(a, b) for a, b in itertools.pairwise(edges) if arrivals[a:b].any()]
    return (between(0, count), between(peak, peak + 1)), stretches


def _sizes(scenario: Scenario) -> Iterator[Scenario]:
    """The scenario on its whole cluster and, where capacity is bought, on parts of it."""
    yield scenario
    cluster = scenario.cluster
    for part in SIZES if cluster.elastic else ():
        pools = []
        for pool in cluster.pools:
            nodes = math.ceil(part * pool.maximum / pool.gpus_per_node)
            pools.append(replace(pool, maximum=max(nodes * pool.gpus_per_node, pool.minimum)))
        yield replace(scenario, cluster=replace(cluster, pools=tuple(pools)))


def _variants(plan: ServingPlan) -> Iterator[ServingPlan]:
    """The same replicas with other engine options, one model at a time."""
    for model in sorted({replica.model for replica in plan.replicas}):
        for tokens in BATCHED_TOKENS:

            def varied(replica: Replica, model: str = model, tokens: int = tokens) -> Replica:
                mine = replica.model == model and replica.role is not Role.DECODE
                return replica.with_options(batched_tokens=tokens) if mine else replica

            yield ServingPlan(tuple(varied(replica) for replica in plan.replicas), plan.shares)


def _stands(scenario: Scenario, plan: ServingPlan) -> bool:
    """Whether the plan is valid, on the whole cluster and on the nodes that it pays for."""
    for capacity in (Capacity.at_maximum(scenario.cluster), starting_capacity(scenario, plan)):
        try:
            check_plan(plan, capacity, scenario.envelope, scenario.models, scenario.shapes, running=plan)
        except PlanError:
            return False
    return True
