"""Serving states to plan for, and an estimator simple enough to check by hand.

A request costs `work` units: its bucket's, doubled on an A100 for long prompts. A replica does `SPEED` units per
second and GPU, a little less in large groups; whatever stays below that is within SLO.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from autopoiesis.plan import Envelope, Replica, ServingPlan
from autopoiesis.policy.interface import (
    Estimate,
    Observation,
    PoolView,
    ServingState,
    Transition,
)
from autopoiesis.policy.tools import fits
from autopoiesis.workload import SLO, ClassWindow, Window

SMALL, LARGE = "small", "large"
SPEED = {"h100": 8.0, "a100": 4.0}
GROUP = {1: 1.0, 2: 1.9, 4: 3.6, 8: 6.4}
WORK = {"<512": 1.0, "<2048": 2.0, "<8192": 4.0, "longer": 8.0}
MODEL_WORK = {SMALL: 1.0, LARGE: 4.0}


def work(request_class: str, gpu: str) -> float:
    model, bucket = request_class.rsplit("/", 1)
    long_on_a100 = gpu == "a100" and bucket in ("<8192", "longer")
    return MODEL_WORK[model] * WORK[bucket] * (2.0 if long_on_a100 else 1.0)


def speed(replica: Replica) -> float:
    return SPEED[replica.gpu] * GROUP[replica.tensor_parallel]


@dataclass(slots=True)
class LinearEstimator:
    """Counts what it is asked; a start takes `start_s`."""

    start_s: float = 30.0
    questions: int = 0
    solver_nodes: int = 0

    def charge_solver(self, nodes: int, iterations: int) -> None:
        self.solver_nodes += nodes

    def throughput(self, observation: Observation, replica: Replica) -> dict[str, float]:
        self.questions += 1
        load = _load(observation, replica.model)
        needed = sum(rate * work(label, replica.gpu) for label, rate in load.items())
        return {label: rate * speed(replica) / needed for label, rate in load.items()}

    def estimate(self, observation: Observation, plan: ServingPlan) -> Estimate:
        self.questions += 1
        assert isinstance(observation, ServingState)
        if not fits(observation, plan.replicas) or any(not plan.replicas_of(m) for m in observation.models):
            return Estimate(False, 0.0, 0.0, math.inf, math.inf, math.inf, math.inf)
        busiest = 1e-9
        for position, replica in enumerate(plan.replicas):
            own = plan.replicas_of(replica.model)
            by_speed = speed(replica) / sum(speed(other) for other in own)
            busy = 0.0
            for label, rate in _load(observation, replica.model).items():
                shares = plan.shares_of(label)
                share = by_speed if shares is None else shares[position]
                busy += share * rate * work(label, replica.gpu) / speed(replica)
            busiest = max(busiest, busy)
        headroom = 1 / busiest
        goodput = min(1.0, headroom)
        money = sum(p.available * p.price_per_hour for p in observation.pools) / 3600
        rate = sum(_load(observation).values())
        cost = money / (goodput * rate) if rate else math.inf
        return Estimate(True, headroom, goodput, cost, 1 / headroom, 1 / headroom, 0.02)

    def transition(self, observation: Observation, plan: ServingPlan) -> Transition:
        self.questions += 1
        moved = not plan.same_replicas(observation.plan)
        return Transition(self.start_s if moved else 0.0, 0.0, 0.5 if moved else 1.0)


def linear(belief: bytes) -> LinearEstimator:
    """For a policy host; nothing is believed."""
    return LinearEstimator()


def _load(observation: Observation, model: str | None = None) -> dict[str, float]:
    assert observation.window is not None
    return {
        entry.request_class: entry.rate_rps
        for entry in observation.window.classes
        if entry.rate_rps and model in (None, entry.request_class.rsplit("/", 1)[0])
    }


def entry(request_class: str, rate: float, **values: Any) -> ClassWindow:
    arrivals = round(rate * 60)
    plain = ClassWindow(
        request_class, arrivals, rate, 500.0, 900.0, 100.0, 200.0, 0.0, arrivals, arrivals, 0, 0, 0, 0, 0.5, 0.02
    )
    return replace(plain, **values)


def window(index: int, rates: dict[str, float]) -> Window:
    classes = tuple(entry(label, rate) for label, rate in sorted(rates.items()))
    return Window(index, index * 60.0, (index + 1) * 60.0, classes, 1.0)


def pool(gpu: str, available: int, maximum: int | None = None, **values: Any) -> PoolView:
    """A fixed pool unless a larger maximum is given; nodes of four."""
    most = available if maximum is None else maximum
    least = available if maximum is None else 4
    price = {"h100": 2.0, "a100": 1.0}[gpu]
    return replace(PoolView(gpu, gpu, 4, available, available, least, most, price, False, 60.0, 150.0), **values)


def tensor_parallel(model: str, gpu: str) -> tuple[int, ...]:
    return (1, 2, 4) if model == SMALL else (2, 4)


def shapes(models: tuple[str, ...], pools: tuple[PoolView, ...]) -> tuple[Replica, ...]:
    return tuple(
        sorted(
            Replica(model, gpu, degree)
            for model in models
            for gpu in {p.gpu for p in pools}
            for degree in tensor_parallel(model, gpu)
        )
    )


def state(
    *history: dict[str, float],
    pools: tuple[PoolView, ...] = (pool("h100", 8),),
    models: tuple[str, ...] = (SMALL, LARGE),
    plan: tuple[Replica, ...] | None = None,
    estimator: LinearEstimator | None = None,
    **values: Any,
) -> ServingState:
    """A state whose windows had these rates by class, oldest first; without any, the very first point."""
    windows = [window(index, rates) for index, rates in enumerate(history)]
    gpu = pools[0].gpu
    replicas = plan if plan is not None else (Replica(LARGE, gpu, 4), Replica(SMALL, gpu, 4))
    fields: dict[str, Any] = {
        "now_s": 60.0 * len(windows),
        "window_s": 60.0,
        "objective": "cost_per_good",
        "window": windows[-1] if windows else None,
        "recent": tuple(windows[:-1]),
        "models": models,
        "slos": {model: SLO() for model in models},
        "pools": pools,
        "announced": (),
        "shapes": shapes(models, pools),
        "plan": ServingPlan(tuple(sorted(r for r in replicas if r.model in models))),
        "replicas": (),
        "moving": None,
        "past_transitions": (),
        "envelope": Envelope(),
        "memory": {},
    }
    return ServingState(**(fields | values), estimator=estimator or LinearEstimator())
