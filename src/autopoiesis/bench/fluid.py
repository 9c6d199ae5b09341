"""`python -m autopoiesis.bench.fluid`: how long the fluid model and a replayed candidate take.

The worst that a window holds for the fluid model: 32 replicas of which no two are alike, three models, twelve classes,
every class with shares of its own. The candidate is a fixed plan of 32 GPUs over 10 000 requests in the event kernel.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console
from rich.table import Table

from autopoiesis.bench.rank_scenes import SMALL, chat, scenario_of
from autopoiesis.cluster import Hardware, catalog
from autopoiesis.control.plans import serve_fixed
from autopoiesis.cost import CostModel
from autopoiesis.plan import ClassShares, Replica, ServingPlan
from autopoiesis.simulate.fluid import ClassLoad, Coefficients, estimate_plan
from autopoiesis.simulate.fluid_horizon import demand_of, follow
from autopoiesis.workload import class_labels
from autopoiesis.workload.classes import default_slo

REPLICAS = 32
WINDOW_S = 60.0
CANDIDATE_REQUESTS = 10_000
CLASS_RPS = 5.0
CANDIDATE_RPS = 40.0
CANDIDATE_SECONDS = 300.0
REPEATS = 25


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement, the least of several after a first that is not counted."""

    what: str
    how: str
    milliseconds: float
    goal_ms: float


def least_ms(call: Callable[[], object]) -> float:
    """Milliseconds of a call, the least of `REPEATS` after one that warms up: what others take is not its own."""
    call()
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return 1000 * min(taken)


def unlike_replicas() -> tuple[tuple[str, ...], ServingPlan]:
    """Names of three models, and a plan of 32 replicas no two of which are alike, every class with its own shares."""
    models = ("first", "second", "third")
    replicas = tuple(
        Replica(models[i % len(models)], ("h100", "a100")[i % 2], max_sequences=128 + i) for i in range(REPLICAS)
    )
    rng = np.random.default_rng(0)
    shares = []
    for label in class_labels(models):
        drawn = rng.uniform(0.5, 1.5, REPLICAS) * [replica.model == label.rpartition("/")[0] for replica in replicas]
        shares.append(ClassShares(label, tuple((drawn / drawn.sum()).tolist())))
    return models, ServingPlan(replicas, tuple(shares))


def rows() -> list[Row]:
    """Everything measured, with its goal."""
    models, plan = unlike_replicas()
    # three models of one size: only their number counts here
    cost = CostModel(Hardware(catalog.gpus(), {name: replace(catalog.model(SMALL), name=name) for name in models}))
    slos = {name: default_slo(cost.hardware.models[name].active_parameters) for name in models}
    loads = [
        ClassLoad(label, label.rpartition("/")[0], CLASS_RPS, tokens, 1.5 * tokens, 200.0, 400.0)
        for i, label in enumerate(class_labels(models))
        for tokens in [(300.0, 1000.0, 4000.0, 12_000.0)[i % 4]]
    ]
    shapes = sorted(set(plan.replicas))
    coefficients = Coefficients(cost)
    hour = demand_of(coefficients, [loads] * 10, slos, WINDOW_S, shapes)
    rng = np.random.default_rng(1)
    seconds = {load.request_class: rng.poisson(load.rate_rps, round(10 * WINDOW_S)).astype(float) for load in loads}
    resolved = demand_of(coefficients, [loads] * 10, slos, WINDOW_S, shapes, [0.0] * 10, seconds)
    load = chat(CANDIDATE_SECONDS, 1, CANDIDATE_RPS).take(np.arange(CANDIDATE_REQUESTS))
    scenario = scenario_of(catalog.cluster("homogeneous-32"), {SMALL: load})
    candidate = ServingPlan((Replica(SMALL, "h100"),) * 32)
    what = f"{REPLICAS} unlike replicas, {len(loads)} classes"
    return [
        Row(
            "fluid model, a window by itself",
            what,
            least_ms(lambda: estimate_plan(cost, plan, loads, slos, WINDOW_S, 1.0, shapes=shapes)),
            5.0,
        ),
        Row(
            "fluid model in time, a window of ten",
            what,
            least_ms(lambda: follow(coefficients, plan, hour)) / 10,
            5.0,
        ),
        Row(
            "the same, arrivals by the second",
            what,
            least_ms(lambda: follow(coefficients, plan, resolved)) / 10,
            5.0,
        ),
        Row(
            "fixed plan in the event kernel",
            f"{len(scenario.requests)} requests on 32 GPUs",
            least_ms(lambda: serve_fixed(scenario, candidate, scenario.cost)),
            100.0,
        ),
    ]


def main() -> int:
    """Print the table; 1 if a goal is missed."""
    table = Table()
    for heading in ("what", "how", "ms", "goal"):
        table.add_column(heading, justify="left" if heading in ("what", "how") else "right")
    measured = rows()
    for row in measured:
        table.add_row(row.what, row.how, f"{row.milliseconds:.2f}", f"{row.goal_ms:g}")
    Console().print(table)
    return int(any(row.milliseconds > row.goal_ms for row in measured))


if __name__ == "__main__":
    raise SystemExit(main())
