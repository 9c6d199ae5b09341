"""The fluid model: what a plan would give under a steady load, in a fraction of a millisecond.

It means the same as the request-level simulation (continuous batching, chunked prefill, KV capacity, disaggregation)
but knows only rates and length statistics, so it prunes plans and never judges them. `FluidEstimator` is what policies
ask; `estimate_plan` takes the load as given. The arithmetic is in `fluid_replica` and `fluid_plan`. Sessions are
taken to return to the replica that has their prefix.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from autopoiesis.cost import CostModel, Starts, StepTimes, kv_transfer_s
from autopoiesis.errors import PlanError
from autopoiesis.plan import (
    Node,
    Phase,
    Placed,
    Replica,
    Role,
    ServingPlan,
    assign_gpus,
    estimate_transition,
    free_gpus,
    packable,
    serving_count,
)
from autopoiesis.policy.interface import Estimate, Move, Observation, PoolView, Transition
from autopoiesis.simulate.fluid_plan import evaluate
from autopoiesis.simulate.fluid_replica import (
    CLASS_COLUMNS,
    CLASS_MODEL,
    COUNT,
    DECODE,
    GROUP_COLUMNS,
    MIXED,
    PREFILL,
    TPOT_SLO,
    TTFT_SLO,
    Array,
    Flags,
)
from autopoiesis.workload import SLO, ClassWindow, Window

DEFAULT_OUTPUT_TOKENS = (200.0, 450.0)
"""Mean and 90th percentile of outputs as long as no request of the class has finished."""
SMOOTHED_WINDOWS = 3
ABSENT_SHARE = 0.25
"""Part of a class's mean rate over all windows shown that is expected of it whatever the last ones say."""
LONGEST_DRAIN_S = 30.0
ROLES = {Role.MIXED: MIXED, Role.PREFILL: PREFILL, Role.DECODE: DECODE}
TRANSFER_TOKENS = 1024
"""Prompt length at which the seconds of a KV transfer are spread over its tokens."""
UNLIMITED = 1e6
"""Replicas of the other phase where one phase is looked at alone."""
REFERENCE_BATCH, REFERENCE_CONTEXT = 32, 1024
"""The decode step by which the gateway compares the speeds of replicas."""

INFEASIBLE = Estimate(False, 0.0, 0.0, math.inf, math.inf, math.inf, math.inf)
IMPOSSIBLE = Transition(math.inf, math.inf, 0.0)


@dataclass(frozen=True, slots=True)
class ClassLoad:
    """A steady load of one request class. Lengths are tokens."""

    request_class: str
    model: str
    rate_rps: float
    input_mean: float
    input_p90: float
    output_mean: float
    output_p90: float
    prefix_mean: float = 0.0
    """Prompt tokens of the mean request that its replica has cached."""
    queued: float = 0.0
    """Requests that wait already, to be served within one window."""


def class_loads(observation: Observation) -> tuple[ClassLoad, ...]:
    """What the windows let expect of each class.

    Rate: the larger of the last window's, the mean of the last three, and a quarter of the mean of all that are
    shown, so that neither a burst nor an absent class is forgotten at once. Lengths: those of the last window that
    has any, `DEFAULT_OUTPUT_TOKENS` if no request has finished. A class of which no arrival is shown is left out.
    """
    if observation.window is None:
        return ()
    windows = (*observation.recent, observation.window)
    by_class: dict[str, list[tuple[Window, ClassWindow]]] = {}
    for window in reversed(windows):
        for entry in window.classes:
            by_class.setdefault(entry.request_class, []).append((window, entry))
    smoothed = {id(window) for window in windows[-SMOOTHED_WINDOWS:]}
    loads = []
    for name, entries in sorted(by_class.items()):
        arrived = next((entry for _, entry in entries if entry.arrivals and entry.input_mean > 0), None)
        if arrived is None:
            continue
        finished = next((entry for _, entry in entries if entry.output_mean > 0), None)
        current = next((entry for window, entry in entries if window is observation.window), None)
        late = sum(entry.rate_rps for window, entry in entries if id(window) in smoothed)
        rates = (
            current.rate_rps if current else 0.0,
            late / min(SMOOTHED_WINDOWS, len(windows)),
            ABSENT_SHARE * sum(entry.rate_rps for _, entry in entries) / len(windows),
        )
        output = (finished.output_mean, finished.output_p90) if finished else DEFAULT_OUTPUT_TOKENS
        loads.append(
            ClassLoad(
                request_class=name,
                model=name.rpartition("/")[0],
                rate_rps=max(rates),
                input_mean=arrived.input_mean,
                input_p90=arrived.input_p90,
                output_mean=output[0],
                output_p90=output[1],
                prefix_mean=arrived.prefix_mean,
                queued=current.queued if current else 0,
            )
        )
    return tuple(loads)


def log_normal_sigma(mean: float, p90: float) -> float:
    """Of the log-normal with this mean and 90th percentile; 0 if they show no spread, at most 1: real lengths end."""
    if mean <= 0 or p90 <= mean:
        return 0.0
    z = 1.2815515655446004
    return min(z - math.sqrt(max(z * z - 2 * math.log(p90 / mean), 0.0)), 1.0)


def paid_per_hour(plan: ServingPlan, pools: Sequence[PoolView]) -> float:
    """US dollars per hour for all GPUs paid: each pool's minimum, and whole nodes beyond it, the cheapest first.

    Infinite if the plan needs more GPUs of a kind than the pools can have.
    """
    needed = Counter[str]()
    for replica in plan.replicas:
        needed[replica.gpu] += replica.gpus
    price = 0.0
    for pool in pools:
        price += pool.minimum * pool.price_per_hour
        needed[pool.gpu] -= pool.minimum
    for pool in sorted(pools, key=lambda pool: pool.price_per_hour):
        missing = max(needed[pool.gpu], 0)
        more = min(-(-missing // pool.gpus_per_node) * pool.gpus_per_node, pool.maximum - pool.minimum)
        price += more * pool.price_per_hour
        needed[pool.gpu] -= more
    return price if max(needed.values(), default=0) <= 0 else math.inf


class Coefficients:
    """Rows of the kernel's group array, kept per replica shape."""

    def __init__(self, cost: CostModel) -> None:
        self.cost = cost
        self._steps: dict[Replica, StepTimes] = {}
        self._rows: dict[Replica, tuple[float, ...]] = {}

    def steps(self, replica: Replica) -> StepTimes:
        if replica not in self._steps:
            self._steps[replica] = self.cost.steps(
                replica.model, replica.gpu, replica.tensor_parallel, replica.pipeline_parallel, replica.kv_dtype_bytes
            )
        return self._steps[replica]

    def row(self, replica: Replica) -> tuple[float, ...]:
        """All columns but the last two, model and count."""
        if replica not in self._rows:
            s = self.steps(replica)
            transfer = kv_transfer_s(s.kv_bytes_per_token * TRANSFER_TOKENS) / TRANSFER_TOKENS
            self._rows[replica] = (
                s.fixed_s, s.prefill_fixed_s, s.weights_s, s.token_s, s.communication_s, s.attention_s, s.context_s,
                s.sequence_s, s.kv_tokens, transfer, replica.batched_tokens, replica.max_sequences, ROLES[replica.role],
                s.stages, 1 / s.step_s(0, 0, REFERENCE_BATCH, REFERENCE_BATCH * REFERENCE_CONTEXT),
            )  # fmt: skip
        return self._rows[replica]

    def class_rows(
        self, loads: Sequence[ClassLoad], slos: Mapping[str, SLO], window_s: float, shapes: Iterable[Replica]
    ) -> Array:
        """The kernel's class array; the fastest of `shapes` says what a request takes unloaded."""
        models = {load.model: position for position, load in enumerate(loads)}
        shapes = [shape for shape in shapes if self.steps(shape).kv_tokens > 0]
        rows = np.zeros((len(loads), CLASS_COLUMNS))
        for row, load in zip(rows, loads, strict=True):
            slo = slos[load.model]
            steps = max(load.output_mean - 1, 0.0)
            unloaded = [
                self.steps(shape).unloaded_s(load.input_mean, load.output_mean, shape.batched_tokens)
                for shape in shapes
                if shape.model == load.model
            ]
            sigma = log_normal_sigma(load.input_mean, load.input_p90)
            row[:] = (
                models[load.model], load.rate_rps + load.queued / window_s, load.input_mean,
                sigma, min(load.prefix_mean, load.input_mean),
                steps, steps**2 * math.exp(log_normal_sigma(load.output_mean, load.output_p90) ** 2),
                slo.ttft_s, slo.ttft_s_per_input_token, slo.tpot_s, min(unloaded, default=0.0), math.exp(sigma**2),
            )  # fmt: skip
        return rows


def grouped(
    coefficients: Coefficients, plan: ServingPlan, classes: Sequence[str], models: Mapping[str, int]
) -> tuple[Array, Array, Flags] | None:
    """The kernel's group array, (c, g) shares and (c,) which classes have any; None if some weights do not fit.

    `models` are the numbers of models in the class array; replicas of others are left out.
    """
    if any(coefficients.row(replica)[8] <= 0 for replica in set(plan.replicas)):
        return None
    given = {entry.request_class: entry.fractions for entry in plan.shares}
    columns = [given.get(name) for name in classes]
    count = Counter[tuple[Replica, tuple[float, ...]]]()
    for position, replica in enumerate(plan.replicas):
        if replica.model in models:
            fractions = tuple(column[position] for column in columns if column is not None) if given else ()
            count[replica, fractions] += 1
    groups = np.empty((len(count), GROUP_COLUMNS))
    shares = np.zeros((len(classes), len(count)))
    shared = np.array([column is not None for column in columns], dtype=np.bool_)
    for g, ((replica, fractions), number) in enumerate(count.items()):
        groups[g] = (*coefficients.row(replica), models[replica.model], number)
        if fractions:
            shares[shared, g] = np.array(fractions) * number
    return groups, shares, shared


def evaluate_plan(
    coefficients: Coefficients,
    plan: ServingPlan,
    loads: Sequence[ClassLoad],
    class_rows: Array,
    window_s: float,
    price_per_hour: float,
    dispersion: float = 1.0,
) -> Estimate:
    """The estimate for loads whose `class_rows` are already made: what a search over many plans calls."""
    models = {load.model: position for position, load in enumerate(loads)}
    parts = grouped(coefficients, plan, [load.request_class for load in loads], models)
    if parts is None:
        return INFEASIBLE
    groups, shares, shared = parts
    feasible, headroom, goodput, delay, ttft, tpot = evaluate(
        groups, class_rows, shares, shared, float(window_s), float(dispersion)
    )
    if not feasible:
        return INFEASIBLE
    good = goodput * float(class_rows[:, 1].sum()) * window_s
    per_good = price_per_hour / 3600 * window_s / good if good > 0 else math.inf
    return Estimate(True, headroom, goodput, per_good, delay, ttft, tpot)


def estimate_plan(
    cost: CostModel,
    plan: ServingPlan,
    loads: Sequence[ClassLoad],
    slos: Mapping[str, SLO],
    window_s: float,
    price_per_hour: float,
    dispersion: float = 1.0,
    shapes: Sequence[Replica] = (),
) -> Estimate:
    """What a plan would give under explicit loads, at a price of all GPUs paid (US dollars per hour).

    `slos` by model; `dispersion` is the variance ÷ mean of all arrivals per second. Delay is counted from the fastest
    of `shapes`, by default of the plan's replicas. Infeasible if some load has no replica that could hold it.
    """
    coefficients = Coefficients(cost)
    rows = coefficients.class_rows(loads, slos, window_s, shapes or sorted(set(plan.replicas)))
    return evaluate_plan(coefficients, plan, loads, rows, window_s, price_per_hour, dispersion)


def pool_nodes(pool: PoolView, gpus: int) -> list[Node]:
    return [
        Node(f"{pool.name}/{index}", pool.name, pool.gpu, pool.gpus_per_node)
        for index in range(gpus // pool.gpus_per_node)
    ]


class FluidEstimator:
    """The `Estimator` of policies. It remembers the loads of the observation it was asked about last."""

    def __init__(self, belief: bytes) -> None:
        self._coefficients = Coefficients(CostModel.decode(belief))
        self._asked: tuple[Observation, tuple[ClassLoad, ...], Array, list[Node]] | None = None

    def estimate(self, observation: Observation, plan: ServingPlan) -> Estimate:
        """What the plan would give under the load that `class_loads` expects."""
        loads, rows, nodes = self._look(observation)
        price = paid_per_hour(plan, observation.pools)
        lacking = any(not serving_count(plan.replicas_of(model)) for model in observation.models)
        if lacking or math.isinf(price) or not packable(plan.replicas, nodes):
            return INFEASIBLE
        dispersion = observation.window.dispersion if observation.window else 1.0
        return evaluate_plan(self._coefficients, plan, loads, rows, observation.window_s, price, dispersion)

    def transition(self, observation: Observation, plan: ServingPlan) -> Transition:
        """What it takes to reach the plan; one that never fits takes for ever.

        An observation names no GPUs, so the running replicas are laid out first fit. Where the plan needs more nodes
        than there are, the cheapest pools grow, and their median start time comes first. Nodes beyond a pool's minimum
        are taken to have joined with nothing but what runs there now.
        """
        nodes = [node for pool in observation.pools for node in pool_nodes(pool, pool.available)]
        running, status = running_replicas(observation, nodes)
        starts = Starts(self._coefficients.cost)
        for pool in observation.pools:
            for node in pool_nodes(pool, pool.maximum)[pool.minimum // pool.gpus_per_node :]:
                starts.joined(node.id)
        wait_s = 0.0
        for pool in sorted(observation.pools, key=lambda pool: pool.price_per_hour):
            for node in pool_nodes(pool, pool.maximum)[pool.available // pool.gpus_per_node :]:
                if packable(plan.replicas, nodes):
                    break
                if any(replica.gpu == pool.gpu for replica in plan.replicas):
                    nodes.append(node)
                    wait_s = max(wait_s, pool.start_s_p50)
        prices = {pool.gpu: 0.0 for pool in observation.pools}
        for pool in observation.pools:
            prices[pool.gpu] = max(prices[pool.gpu], pool.price_per_hour)
        try:
            result = estimate_transition(
                plan,
                nodes,
                running,
                status,
                starts,
                drain_s=self._drain_s(observation),
                price=prices.__getitem__,
                capacity_kept=Move().capacity_kept,
                envelope=observation.envelope,
            )
        except PlanError:
            return IMPOSSIBLE
        return Transition(wait_s + result.seconds, result.money_usd, result.capacity_kept)

    def throughput(self, observation: Observation, replica: Replica) -> dict[str, float]:
        """Requests/s of each class that one such replica serves within SLO, given its model's mix and nothing else.

        Of a replica that serves one phase only, it is what this phase can take: by its own latency target, beside as
        many replicas of the other phase as it takes.
        """
        loads = [load for load in self._look(observation)[0] if load.model == replica.model]
        if not loads:
            return {}
        rows = self._coefficients.class_rows(loads, observation.slos, observation.window_s, observation.shapes)
        plan = ServingPlan((replica,))
        if replica.role is Role.PREFILL:
            plan = ServingPlan((replica, replace(replica, role=Role.DECODE)))
            rows[:, TPOT_SLO] = math.inf
        elif replica.role is Role.DECODE:
            plan = ServingPlan((replica, replace(replica, role=Role.PREFILL)))
            rows[:, TTFT_SLO] = math.inf
        parts = grouped(self._coefficients, plan, (), {replica.model: int(rows[0, CLASS_MODEL])})
        if parts is None:
            return {}
        groups = parts[0]
        groups[1:, COUNT] = UNLIMITED
        shares, shared = np.zeros((len(loads), len(groups))), np.zeros(len(loads), dtype=np.bool_)
        dispersion = observation.window.dispersion if observation.window else 1.0
        feasible, headroom, *_ = evaluate(groups, rows, shares, shared, float(observation.window_s), float(dispersion))
        if not feasible:
            return {}
        return {load.request_class: float(row[1]) * headroom for load, row in zip(loads, rows, strict=True)}

    def _look(self, observation: Observation) -> tuple[tuple[ClassLoad, ...], Array, list[Node]]:
        if self._asked is None or self._asked[0] is not observation:
            loads = class_loads(observation)
            rows = self._coefficients.class_rows(loads, observation.slos, observation.window_s, observation.shapes)
            nodes = [node for pool in observation.pools for node in pool_nodes(pool, pool.maximum)]
            self._asked = (observation, loads, rows, nodes)
        return self._asked[1:]

    def _drain_s(self, observation: Observation) -> float:
        """Mean time that a running request has left: half of its decoding."""
        loads, _, _ = self._look(observation)
        rate = remaining = 0.0
        for load in loads:
            entry = observation.window.of(load.request_class) if observation.window else None
            tpot = entry.tpot_p90_s if entry and entry.tpot_p90_s > 0 else observation.slos[load.model].tpot_s
            rate += load.rate_rps
            remaining += load.rate_rps * load.output_mean * tpot / 2
        return min(remaining / rate, LONGEST_DRAIN_S) if rate > 0 else 0.0


def running_replicas(observation: Observation, nodes: Sequence[Node]) -> tuple[list[Placed], dict[int, Phase]]:
    """The replicas of an observation laid out on nodes, largest groups first; what finds no room is left out."""
    order = sorted(range(len(observation.replicas)), key=lambda i: -observation.replicas[i].replica.tensor_parallel)
    free = free_gpus(nodes, ())
    placed = []
    for i in order:
        replica = observation.replicas[i].replica
        gpus = assign_gpus(replica, free)
        if gpus is not None:
            placed.append(Placed(i, replica, gpus))
            taken = set(gpus)
            for node in free:
                free[node] = [index for index in free[node] if (node.id, index) not in taken]
    placed.sort(key=lambda p: p.id)
    return placed, {p.id: cast(Phase, observation.replicas[p.id].phase) for p in placed}


def warm() -> None:
    """Compile the kernel, or load it from numba's cache: seconds or milliseconds, once per process."""
    empty = np.zeros((0, GROUP_COLUMNS)), np.zeros((0, CLASS_COLUMNS)), np.zeros((0, 0)), np.zeros(0, dtype=np.bool_)
    evaluate(*empty, 60.0, 1.0)
