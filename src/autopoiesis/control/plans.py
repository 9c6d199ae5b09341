"""Fixed plans: finding good ones with the fluid model and judging them with the event model.

This is what a careful operator does once, before anything runs: enumerate tensor parallelism, replica counts and the
division of the GPUs among models, keep what looks best, and replay part of the trace against it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from autopoiesis.control.phases import disaggregated, first_of_each, is_apart
from autopoiesis.cost import CostModel
from autopoiesis.errors import ScenarioError
from autopoiesis.plan import Capacity, Replica, ServingPlan, packable
from autopoiesis.policy.host import Answer
from autopoiesis.policy.interface import Decision, Observation, PoolView, ServingState, serving_state
from autopoiesis.policy.meter import Charge
from autopoiesis.policy.source import PolicySource
from autopoiesis.policy.tools import assign, greedy, local_search, milp, reach, score
from autopoiesis.simulate import layout
from autopoiesis.simulate.fluid import FluidEstimator
from autopoiesis.simulate.outcome import Books, keep_books
from autopoiesis.simulate.run import Run
from autopoiesis.simulate.scenario import Mode, Scenario
from autopoiesis.simulate.simulation import Routing, Simulation
from autopoiesis.simulate.views import good_rows
from autopoiesis.workload import Requests, Window, class_labels
from autopoiesis.workload.classes import BUCKETS, bucket_of
from autopoiesis.workload.status import Status
from autopoiesis.workload.synopsis import Arrived, Backlog, Finished, summarise

MEASURABLE = 20.0
"""Headroom above which a load is scaled up before plans are compared by it."""
HEADROOM_PLANS, HEADROOM_APART = 24, 8
"""Most plans whose headroom is told, and how many more that run prefill and decode apart."""
ENUMERATED = 3000
"""Most plans enumerated; beyond that every k-th is looked at."""


def load_window(scenario: Scenario, requests: Requests, start_s: float, end_s: float) -> Window:
    """What requests with recorded arrivals in [start, end) would look like as one window, outputs included."""
    rows = np.flatnonzero((requests.arrival_s >= start_s) & (requests.arrival_s < end_s))
    classes = requests.model[rows] * len(BUCKETS) + bucket_of(requests.input_tokens[rows])
    n = len(rows)
    return summarise(
        0,
        start_s,
        end_s,
        class_labels(scenario.models),
        Arrived(classes, requests.arrival_s[rows], requests.input_tokens[rows], requests.prefix_tokens[rows]),
        Finished(
            classes,
            requests.output_tokens[rows],
            np.zeros(n),
            np.full(n, np.nan),
            np.full(n, int(Status.COMPLETED)),
            np.ones(n, dtype=np.bool_),
        ),
        Backlog(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_)),
    )


def planning_state(scenario: Scenario, cost: CostModel, window: Window, objective: str) -> ServingState:
    """A state in which nothing runs yet and every pool has all its GPUs."""
    observation = Observation(
        now_s=0.0,
        window_s=window.end_s - window.start_s,
        objective=objective,
        window=window,
        recent=(),
        models=scenario.models,
        slos=scenario.slos,
        pools=tuple(
            PoolView(
                p.name,
                p.gpu,
                p.gpus_per_node,
                p.maximum,
                p.maximum,
                p.minimum,
                p.maximum,
                p.price_per_hour,
                False,
                0,
                0,
            )
            for p in scenario.cluster.pools
        ),
        announced=(),
        shapes=scenario.shapes,
        plan=ServingPlan(()),
        replicas=(),
        moving=None,
        past_transitions=(),
        envelope=scenario.envelope,
        memory={},
    )
    return serving_state(observation, FluidEstimator(cost.encode()))


def divisions(scenario: Scenario) -> Iterator[ServingPlan]:
    """Plans of one shape per model on each GPU kind, by every division of the kind's GPUs in nodes or groups.

    With more than one kind, each kind is given whole to one model or halved between two.
    """
    kinds = sorted({pool.gpu for pool in scenario.cluster.pools})
    total = {kind: sum(pool.maximum for pool in scenario.cluster.pools if pool.gpu == kind) for kind in kinds}
    by: dict[tuple[str, str], list[Replica]] = {}
    for shape in scenario.shapes:
        by.setdefault((shape.gpu, shape.model), []).append(shape)
    if len(kinds) == 1:
        kind = kinds[0]
        options = [by.get((kind, model), []) for model in scenario.models]
        for shapes in itertools.product(*options):
            yield from _counts(shapes, total[kind], scenario)
        return
    per_kind: list[list[tuple[Replica, ...]]] = []
    for kind in kinds:
        fills: list[tuple[Replica, ...]] = []
        for model in scenario.models:
            for shape in by.get((kind, model), []):
                fills.append((shape,) * (total[kind] // shape.gpus))
        for one, other in itertools.combinations(scenario.models, 2):
            for a, b in itertools.product(by.get((kind, one), []), by.get((kind, other), [])):
                half = total[kind] // 2
                fills.append((a,) * (half // a.gpus) + (b,) * (half // b.gpus))
        per_kind.append(fills or [()])
    for parts in itertools.product(*per_kind):
        yield ServingPlan(tuple(sorted(itertools.chain(*parts))))


def _counts(shapes: tuple[Replica, ...], gpus: int, scenario: Scenario) -> Iterator[ServingPlan]:
    """Every number of replicas of these shapes, one per model; on a fixed cluster only those that leave no room."""
    fixed = not scenario.cluster.elastic
    ranges = [range(1, gpus // shape.gpus + 1) for shape in shapes]
    for counts in itertools.product(*ranges):
        used = sum(count * shape.gpus for count, shape in zip(counts, shapes, strict=True))
        if used > gpus or (fixed and gpus - used >= min(shape.gpus for shape in shapes)):
            continue
        yield ServingPlan(tuple(s for count, s in zip(counts, shapes, strict=True) for s in (s,) * count))


def candidate_plans(
    scenario: Scenario, cost: CostModel, windows: Iterable[Window], objective: str, apart: bool = False
) -> list[ServingPlan]:
    """Plans worth judging, the fluid model's best first: enumerated, packed greedily, solved and searched.

    All these serve both phases with the same replicas. With `apart`, plans on the GPUs of the best of them that run
    prefill and decode apart are among them, too.
    """
    found: dict[ServingPlan, list[float]] = {}
    states = [planning_state(scenario, cost, window, objective) for window in windows]
    nodes = Capacity.at_maximum(scenario.cluster).nodes()
    enumerated = [plan for plan in divisions(scenario) if packable(plan.replicas, nodes)]
    pool = enumerated[:: max(1, math.ceil(len(enumerated) / ENUMERATED))]
    for state in states:
        for margin in (1.0, 1.2, 1.5, 2.0):
            pool.append(milp(state, wanted=reach(state), margin=margin))
            pool.append(greedy(state, wanted=reach(state), margin=margin))
    for plan in pool:
        found.setdefault(plan, [score(state, plan) for state in states])
    ranked = sorted(found, key=lambda plan: (max(found[plan]), str(plan)))
    for state in states:
        better = local_search(state, ranked[0], 6)
        found.setdefault(better, [score(other, better) for other in states])
        if len({shape.gpu for shape in scenario.shapes}) > 1:
            shared = ServingPlan(better.replicas, assign(state, better.replicas))
            found.setdefault(shared, [score(other, shared) for other in states])
    for state in states if apart else ():
        for divided in disaggregated(state, ranked):
            if divided not in found and packable(divided.replicas, nodes):
                found[divided] = [score(other, divided) for other in states]
    ranked = sorted((p for p in found if math.isfinite(max(found[p]))), key=lambda p: (max(found[p]), str(p)))
    if not ranked:
        raise ScenarioError(
            f"no plan on cluster {scenario.cluster.name!r} can hold {' and '.join(scenario.models)}: "
            "use a larger cluster or a smaller model"
        )
    return ranked


def by_headroom(
    scenario: Scenario, cost: CostModel, window: Window, apart: bool = False
) -> list[tuple[float, ServingPlan]]:
    """Plans by the multiple of the window's load that they serve, best first; the whole cluster may be used.

    With `apart`, the best that run prefill and decode apart follow those that do not.
    """
    whole = replace(
        scenario,
        cluster=replace(
            scenario.cluster, pools=tuple(replace(p, minimum=p.maximum, spot=None) for p in scenario.cluster.pools)
        ),
    )
    scale = 1.0
    while True:
        state = planning_state(whole, cost, scaled(window, scale), "total_time")
        found = candidate_plans(whole, cost, [scaled(window, scale)], "total_time", apart)
        plans = first_of_each(found, HEADROOM_PLANS, HEADROOM_APART)
        ranked = sorted(
            ((state.estimate(plan).headroom, plan) for plan in plans), key=lambda e: (is_apart(e[1]), -e[0], str(e[1]))
        )
        best = ranked[0][0] or max(headroom for headroom, _ in ranked)
        if best < MEASURABLE:
            return [(headroom * scale, plan) for headroom, plan in ranked]
        # beyond its largest multiple the fluid model cannot tell plans apart
        scale *= best / 2


def scaled(window: Window, factor: float) -> Window:
    """The same mix at a multiple of the rate."""
    return replace(window, classes=tuple(replace(c, rate_rps=c.rate_rps * factor) for c in window.classes))


def serve_fixed(
    scenario: Scenario,
    plan: ServingPlan,
    cost: CostModel,
    give_up: Callable[[int], bool] = lambda bad: False,
    goes_on: bool = False,
) -> Books | None:
    """The books of a fixed plan on GPUs that are always there, without noise; None once `give_up(bad requests)`.

    Where the load `goes_on` after its end, being part of a longer one, money is counted for as long as it came, and not
    until the last request has its last token: that tail is long beside a quarter of an hour, and says nothing of what a
    plan costs all day.
    """
    simulation = Simulation(scenario.requests, scenario.models, scenario.slos, cost, seed=scenario.seed)
    slots = {i: simulation.start(replica, 1.0, 0.0, i) for i, replica in enumerate(plan.replicas)}
    simulation.set_shares(plan, slots)
    state = simulation.state
    state.scalars[layout.STOP_EMPTY] = 1
    step_s = max(scenario.duration_s / 12, scenario.window_s)
    seen = bad = 0
    while simulation.unfinished:
        simulation.advance(simulation.now_s + step_s)
        ended = int(simulation.state.scalars[layout.FINISHED])
        rows = simulation.state.finished[seen:ended].astype(np.int64)
        seen = ended
        bad += len(rows) - int(good_rows(simulation, rows).sum())
        if give_up(bad):
            return None
    hours = (scenario.duration_s if goes_on else simulation.now_s) / 3600
    gpus = sum(paid_gpus(scenario, plan).values())
    return keep_books(scenario, simulation, price_per_hour(scenario, plan) * hours, gpus * hours)


def paid_gpus(scenario: Scenario, plan: ServingPlan) -> dict[str, int]:
    """GPUs by pool that a plan needs: all of a fixed pool, whole nodes of an elastic one, the cheapest pools first."""
    needed = {kind: plan.gpus(kind) for kind in {pool.gpu for pool in scenario.cluster.pools}}
    paid = {}
    for pool in sorted(scenario.cluster.pools, key=lambda pool: (pool.elastic, pool.price_per_hour)):
        nodes = math.ceil(max(needed[pool.gpu], 0) / pool.gpus_per_node)
        paid[pool.name] = min(max(nodes * pool.gpus_per_node, pool.minimum), pool.maximum)
        needed[pool.gpu] -= paid[pool.name]
    return {pool.name: paid[pool.name] for pool in scenario.cluster.pools}


def price_per_hour(scenario: Scenario, plan: ServingPlan) -> float:
    """US dollars for the GPUs that the plan needs."""
    paid = paid_gpus(scenario, plan)
    return sum(paid[pool.name] * pool.price_per_hour for pool in scenario.cluster.pools)


class Standing:
    """The policy of an operator who only watches: it never asks for anything."""

    def __init__(self) -> None:
        self.source = PolicySource("standing", '"""Watch."""\ninterface = 1\n')
        self.routing = Routing()
        self.failures = 0
        self.last_failure: str | None = None

    def trigger(self, observation: Observation, belief: bytes) -> Answer[bool]:
        return Answer(False, None, Charge(), 0.0, 0.0)

    def plan(self, observation: Observation, belief: bytes) -> Answer[Decision]:
        return Answer(Decision(observation.plan), None, Charge(), 0.0, 0.0)

    def adopt(self, memory: dict[str, Any]) -> dict[str, Any]:
        return {}


def calibrated(scenario: Scenario, plan: ServingPlan, capacity: Capacity) -> CostModel:
    """What an operator believes who has served the scenario's requests under `plan` and read the telemetry."""
    quiet = replace(scenario, hidden=replace(scenario.hidden, losses=()))
    run = Run(quiet, Standing(), plan, capacity, Mode.OPERATOR)
    run.finish()
    return run.belief.cost
