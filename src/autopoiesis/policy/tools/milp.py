"""An exact planner: how many replicas of each shape, as a mixed-integer program over HiGHS.

With r[s] the multiple of its model's load that one replica of shape s serves, n[s] the replicas and N[p] the nodes of
pool p, the constraints are

    Σ_{s of model m} r[s] n[s] ≥ t             every model m with load
    Σ_{s of model m} n[s] ≥ minimum(m)         every model m
    Σ_{s on kind k, tp[s] ≥ g} gpus[s] n[s] ≤ Σ_{p of kind k} ⌊node[p] / g⌋ · g · N[p]    every kind k, degree g

and the envelope's caps. Where degrees divide one another, as powers of two do, the last line says exactly that the
replicas pack on the nodes. With several kinds of GPU the first line gives way to the flows of `tools.flow`, so that
each class can go where it is served best. Shapes rather than replicas, and nodes rather than GPUs, keep it small:
tens of integers, some milliseconds for 64 GPUs.

Pools whose size is a choice are sized first: the cheapest nodes with t = margin. On the nodes thus paid for, t is
then as large as can be.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autopoiesis.plan import Replica, ServingPlan
from autopoiesis.policy.interface import ServingState
from autopoiesis.policy.tools.capacity import (
    capacity_for,
    elastic_pools,
    fits,
    granted,
    minimum_replicas,
    pool_gpus,
    target,
)
from autopoiesis.policy.tools.flow import add_flows
from autopoiesis.policy.tools.greedy import finished, grown, packed
from autopoiesis.policy.tools.load import demand, expected
from autopoiesis.policy.tools.shapes import capacity, multiples, rates
from autopoiesis.policy.tools.solver import INFINITY, Program, maximise

IDLE = 1e-4
"""Fraction of the multiple given up to leave all GPUs free: only so much that GPUs without use stay free for the
model with the least room."""


def milp(
    state: ServingState,
    wanted: Mapping[str, int] | None = None,
    margin: float = 1.0,
    node_limit: int = 2000,
    iteration_limit: int = 20_000,
    keep: float = 0.001,
    paid: Mapping[str, int] | None = None,
) -> ServingPlan:
    """The plan that serves the largest common multiple of the expected load.

    It uses no more than `wanted` (GPUs by pool; None: what is there now). Elastic pools are bounded further: to the
    cheapest nodes on which `margin` times the load can be served, or `paid` if that is more. `keep` is the fraction
    of the multiple (and of the price of nodes) given up for changing nothing, in proportion to the GPUs that would
    change: what breaks ties and stops churn. Beyond that fraction the plan never has less headroom than that of
    `greedy` on the same nodes, which is also the answer where the limits come before any solution.

    One evaluation per shape and those of `assign`; with several kinds of GPU one per shape and class besides.
    """
    state = expected(state)
    kinds = {pool.gpu for pool in state.pools}
    rate_of = {shape: rate for shape, rate in rates(state).items() if shape.gpu in kinds}
    caps = {shape: capacity(state, shape) for shape in rate_of} if len(kinds) > 1 else {}
    limits = pool_gpus(state, wanted)
    least = dict(limits)
    for pool in elastic_pools(state):
        least[pool.name] = min(limits[pool.name], max(pool.minimum, (paid or {}).get(pool.name, 0)))
    question = _Question(state, rate_of, caps, keep, node_limit, iteration_limit)
    if least != limits:
        limits = question.cheapest_nodes(least, limits, margin)
    first = packed(state, rate_of, limits, margin, limits)
    there = granted(state, limits)
    found = question.best_replicas(limits, first)
    best = finished(state, found, limits)
    headroom = there.estimate(best).headroom
    if sorted(found) != sorted(first):
        greedy = finished(state, first, limits)
        other = there.estimate(greedy).headroom
        # The belief knows more than the program does, but a hair's breadth is no reason to leave what `keep` kept.
        if headroom < (1 - keep) * other:
            best, headroom = greedy, other
    present = target(state)
    # Nor is it one to divide the load over the same replicas anew.
    if best.same_replicas(present) and there.estimate(present).headroom >= (1 - keep) * headroom:
        return present
    return best


@dataclass(frozen=True, slots=True)
class _Question:
    state: ServingState
    rate_of: Mapping[Replica, float]
    """What one of each shape serves, in multiples of its model's load."""
    caps: Mapping[Replica, Mapping[str, float]]
    """What one of each shape serves of one class alone, in requests/s; empty where every class goes by the mix."""
    keep: float
    node_limit: int
    iteration_limit: int

    @property
    def loaded(self) -> list[str]:
        """Models with load of which some shape serves something."""
        return sorted({shape.model for shape, rate in self.rate_of.items() if 0 < rate < math.inf})

    def cheapest_nodes(self, least: Mapping[str, int], most: Mapping[str, int], margin: float) -> dict[str, int]:
        """GPUs by pool, between `least` and `most`, that serve `margin` at the lowest price; `most` if none do."""
        program = Program()
        counts = self._counts(program, most)
        nodes = {}
        for pool in self.state.pools:
            per_node, price = pool.gpus_per_node, pool.price_per_hour * pool.gpus_per_node
            low, high = least[pool.name] // per_node, most[pool.name] // per_node
            nodes[pool.name] = program.column(-price, low, high, integer=True)
            held = program.column(self.keep * price, 0, pool.requested // per_node)
            program.row(-INFINITY, 0.0, {held: 1.0, nodes[pool.name]: -1.0})
        self._constraints(program, counts, nodes, None, margin)
        first = grown(self.state, [], self.rate_of, most, margin)
        start = None
        if self._multiple(first) >= margin:
            needed = dict(most) | capacity_for(self.state, ServingPlan(tuple(first)), most)
            start = self._start(counts, first) | {
                nodes[pool.name]: max(needed[pool.name], least[pool.name]) // pool.gpus_per_node
                for pool in self.state.pools
            }
        values = maximise(program, self.state.estimator, start, self.node_limit, self.iteration_limit)
        if values is None:
            return dict(most)
        return {pool.name: round(values[nodes[pool.name]]) * pool.gpus_per_node for pool in self.state.pools}

    def best_replicas(self, limits: Mapping[str, int], first: Sequence[Replica]) -> Sequence[Replica]:
        """The replicas with the largest common multiple on these GPUs, at least that of `first`.

        Those in place are preferred; what remains free goes to the model with the least room.
        """
        reached = self._multiple(first) if self.loaded else 0.0
        program = Program()
        total = max(sum(limits.values()), 1)
        counts = self._counts(program, limits, -IDLE * max(reached, 1e-6) / total)
        # as much less than greedy's as may be given up: a bound at greedy's own would leave nothing to keep
        multiple = program.column(1.0, reached * (1 - max(self.keep, 1e-9)), INFINITY if self.loaded else 0.0)
        for shape, present in Counter(target(self.state).replicas).items():
            if shape in counts:
                worth = self.keep * max(reached, 1e-6) * shape.gpus / total
                kept = program.column(worth, 0, present)
                program.row(-INFINITY, 0.0, {kept: 1.0, counts[shape]: -1.0})
        nodes = {}
        for pool in self.state.pools:
            there = limits[pool.name] // pool.gpus_per_node
            nodes[pool.name] = program.column(0.0, there, there)
        self._constraints(program, counts, nodes, multiple, 0.0)
        start = self._start(counts, first) | {multiple: reached}
        values = maximise(program, self.state.estimator, start, self.node_limit, self.iteration_limit)
        if values is None:
            return first
        replicas = [shape for shape, column in counts.items() for _ in range(round(values[column]))]
        if not fits(self.state, replicas, limits):
            return first
        return grown(self.state, replicas, self.rate_of, limits, math.inf)

    def _multiple(self, replicas: Sequence[Replica]) -> float:
        """The common multiple that the replicas serve; infinite without load."""
        return min(multiples(replicas, self.rate_of, self.loaded).values(), default=math.inf)

    def _counts(
        self, program: Program, limits: Mapping[str, int], objective_per_gpu: float = 0.0
    ) -> dict[Replica, int]:
        """One integer column per shape: its number of replicas."""
        most = {
            shape: sum(limits[pool.name] for pool in self.state.pools if pool.gpu == shape.gpu) // shape.gpus
            for shape in self.rate_of
        }
        return {
            shape: program.column(objective_per_gpu * shape.gpus, 0, most[shape], integer=True)
            for shape in sorted(self.rate_of)
        }

    def _start(self, counts: Mapping[Replica, int], replicas: Sequence[Replica]) -> dict[int, float]:
        present = Counter(replicas)
        return {column: float(present[shape]) for shape, column in counts.items()}

    def _constraints(
        self,
        program: Program,
        counts: Mapping[Replica, int],
        nodes: Mapping[str, int],
        multiple: int | None,
        goal: float,
    ) -> None:
        """The rows of the module's docstring; t is a column, or else the constant `goal`."""
        for model in self.loaded:
            own = {shape: column for shape, column in counts.items() if shape.model == model}
            if self.caps:
                add_flows(program, own, demand(self.state, model), self.rate_of, self.caps, multiple, goal)
            else:
                terms = {column: self.rate_of[shape] for shape, column in own.items()}
                program.row(goal, INFINITY, terms if multiple is None else terms | {multiple: -1.0})
        for model in self.state.models:
            terms = {column: 1.0 for shape, column in counts.items() if shape.model == model}
            program.row(minimum_replicas(self.state, model), INFINITY, terms)
        for kind, degree in sorted({(shape.gpu, shape.tensor_parallel) for shape in counts}):
            terms = {
                column: float(shape.gpus)
                for shape, column in counts.items()
                if shape.gpu == kind and shape.tensor_parallel >= degree
            }
            for pool in self.state.pools:
                if pool.gpu == kind:
                    terms[nodes[pool.name]] = -float(pool.gpus_per_node // degree * degree)
            program.row(-INFINITY, 0.0, terms)
        envelope = self.state.envelope
        if envelope.maximum_gpus is not None:
            terms = {column: float(shape.gpus) for shape, column in counts.items()}
            program.row(-INFINITY, envelope.maximum_gpus, terms)
        if envelope.maximum_cost_per_hour is not None:
            dearest = {pool.gpu: 0.0 for pool in self.state.pools}
            for pool in self.state.pools:
                dearest[pool.gpu] = max(dearest[pool.gpu], pool.price_per_hour)
            terms = {column: shape.gpus * dearest[shape.gpu] for shape, column in counts.items()}
            program.row(-INFINITY, envelope.maximum_cost_per_hour, terms)
