"""Who serves what: fractions of each request class over the replicas of a plan.

Unlike replicas are good at unlike classes. A replica of shape s may spend its time on the mix of its model, of which
it serves the multiple r[s], or on one class c, of which it serves cap[s, c] requests/s when it gets nothing else.
With y[s] and z[s, c] the replicas' worth of time spent on either and d[c] the demand, the best assignment is a
transportation problem (the idea of OServe and Mélange):

    maximise t  subject to  Σ_s (r[s] y[s] + cap[s, c] / d[c] · z[s, c]) ≥ t   every class c
                            y[s] + Σ_c z[s, c] ≤ replicas of s                 every shape s

Times do not add up quite so for classes that share a batch, which is why the answer must beat plain proportional
shares in the estimator's own eyes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from autopoiesis.plan import ClassShares, Replica, Role, ServingPlan
from autopoiesis.policy.interface import ServingState
from autopoiesis.policy.tools.capacity import granted
from autopoiesis.policy.tools.load import demand, expected
from autopoiesis.policy.tools.shapes import capacity, rate
from autopoiesis.policy.tools.solver import INFINITY, Program, maximise


def assign(
    state: ServingState, replicas: Sequence[Replica], wanted: Mapping[str, int] | None = None
) -> tuple[ClassShares, ...]:
    """Shares that maximise the common multiple of the expected load that is served.

    Fractions follow the order of `replicas`. A model whose replicas are all alike, that has no load, or that is split
    into prefill and decode gets none: left to itself, a plan divides a class by speed. Costs evaluations
    per shape and class only where shapes differ.
    """
    state = expected(state)
    replicas = tuple(replicas)
    proportional: list[ClassShares] = []
    planned: list[ClassShares] = []
    for model in state.models:
        own = [replica for replica in replicas if replica.model == model]
        load = demand(state, model)
        if len(set(own)) < 2 or not load or any(replica.role is not Role.MIXED for replica in own):
            continue
        rate_of = {shape: rate(state, shape) for shape in sorted(set(own))}
        flow = transport(state, Counter(own), load, rate_of)
        for label in load:
            by_rate = _shares(state, label, replicas, {s: rate_of[s] * n for s, n in Counter(own).items()})
            proportional.extend(by_rate)
            planned.extend(_shares(state, label, replicas, flow.get(label, {})) or by_rate)
    if not planned:
        return ()
    if wanted is not None:
        state = granted(state, wanted)
    options = (tuple(planned), tuple(proportional))
    return max(options, key=lambda shares: state.estimate(ServingPlan(replicas, shares)).headroom)


def transport(
    state: ServingState, count: Mapping[Replica, int], load: Mapping[str, float], rate_of: Mapping[Replica, float]
) -> dict[str, dict[Replica, float]]:
    """The multiple of each class of one model that each shape takes, all its replicas together; empty if unsolved."""
    program = Program()
    multiple = program.column(1.0, 0.0, INFINITY)
    counts = {shape: program.column(0.0, count[shape], count[shape]) for shape in sorted(count)}
    caps = {shape: capacity(state, shape) for shape in counts}
    flows = add_flows(program, counts, load, rate_of, caps, multiple, 0.0)
    values = maximise(program, state.estimator)
    if values is None or values[multiple] <= 0:
        return {}
    return {
        label: {shape: sum(worth * values[column] for column, worth in flows[shape, label].items()) for shape in counts}
        for label in load
    }


def add_flows(
    program: Program,
    counts: Mapping[Replica, int],
    load: Mapping[str, float],
    rate_of: Mapping[Replica, float],
    caps: Mapping[Replica, Mapping[str, float]],
    multiple: int | None,
    goal: float,
) -> dict[tuple[Replica, str], dict[int, float]]:
    """Adds the rows of the module's docstring for one model; t is a column, or else the constant `goal`.

    Answers by shape and class what the shape serves of it: coefficients by column.
    """
    flows: dict[tuple[Replica, str], dict[int, float]] = {}
    for shape, column in counts.items():
        mixed = program.column(0.0, 0.0, INFINITY)
        time = {mixed: 1.0, column: -1.0}
        for label, demanded in load.items():
            flows[shape, label] = {mixed: rate_of[shape]}
            worth = caps[shape].get(label, 0.0) / demanded
            if worth > 0 and len(load) > 1:
                alone = program.column(0.0, 0.0, INFINITY)
                flows[shape, label][alone] = worth
                time[alone] = 1.0
        program.row(-INFINITY, 0.0, time)
    for label in load:
        terms = {column: worth for shape in counts for column, worth in flows[shape, label].items()}
        program.row(goal, INFINITY, terms if multiple is None else terms | {multiple: -1.0})
    return flows


def _shares(
    state: ServingState, label: str, replicas: Iterable[Replica], weight: Mapping[Replica, float]
) -> list[ClassShares]:
    """One entry dividing a class by the shapes' weights, equally within a shape; none if that breaks its floor."""
    replicas = tuple(replicas)
    count = Counter(replicas)
    total = sum(weight.values())
    if total <= 0:
        return []
    fractions = tuple(weight.get(replica, 0.0) / count[replica] / total for replica in replicas)
    fractions = tuple(fraction if fraction > 1e-9 else 0.0 for fraction in fractions)
    scale = sum(fractions)
    if sum(fraction > 0 for fraction in fractions) < state.envelope.class_floor.get(label, 0):
        return []
    return [ClassShares(label, tuple(fraction / scale for fraction in fractions))]
