"""DistServe and Splitwise, on requests/s by phase and shape that a reader can add up.

Of the only class, 20 requests/s, a replica on H100 serves as many a second as `PHASE` says; on an A100 half of that.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tool_states import LARGE, SMALL, LinearEstimator, pool, state

from autopoiesis.plan import Envelope, Replica, Role, ServingPlan
from autopoiesis.plan.validity import serving_count
from autopoiesis.policy import Decision, ServingState, tools
from autopoiesis.policy.interface import CapacityChange, Estimate, Observation, ReplicaStatus
from autopoiesis.policy.library import policy

LOAD = {"small/<512": 20.0}
BOTH = {"small/<512": 20.0, "large/<512": 3.0}
PHASE = {
    Role.PREFILL: {1: 12.0, 2: 30.0, 4: 40.0},
    Role.DECODE: {1: 7.0, 2: 10.0, 4: 16.0},
    Role.MIXED: {1: 3.0, 2: 6.0, 4: 12.0},
}
PHASES = (Role.PREFILL, Role.DECODE)
NAMES = ("distserve", "splitwise")


class PhaseEstimator(LinearEstimator):
    def throughput(self, observation: Observation, replica: Replica) -> dict[str, float]:
        assert observation.window is not None
        speed = PHASE[replica.role][replica.tensor_parallel] / (1 if replica.gpu == "h100" else 2)
        mine = [entry for entry in observation.window.classes if entry.request_class.startswith(replica.model)]
        total = sum(entry.rate_rps for entry in mine)
        return {entry.request_class: entry.rate_rps / total * speed for entry in mine if entry.rate_rps}

    def estimate(self, observation: Observation, plan: ServingPlan) -> Estimate:
        """The multiple of the load that the scarcer phase of the model worst off serves."""
        base = super().estimate(observation, plan)
        served: dict[tuple[str, Role], float] = {}
        for replica in plan.replicas:
            for phase in PHASES if replica.role is Role.MIXED else (replica.role,):
                rates = self.throughput(observation, replica)
                served[replica.model, phase] = served.get((replica.model, phase), 0.0) + sum(rates.values())
        assert observation.window is not None
        loads = {m: sum(e.rate_rps for e in observation.window.classes if e.request_class.startswith(m))
                 for m in observation.models}  # fmt: skip
        multiples = [served.get((m, phase), 0.0) / load for m, load in loads.items() if load for phase in PHASES]
        return replace(base, headroom=min(multiples, default=100.0))


@dataclass(frozen=True)
class Loaded:
    should_reschedule: Callable[[ServingState], bool]
    plan: Callable[[ServingState], Decision]


def loaded(name: str) -> Loaded:
    names: dict[str, Any] = {}
    exec(compile(policy(name).text, name, "exec"), names)
    return Loaded(names["should_reschedule"], names["plan"])


def prefill(degree: int = 1, gpu: str = "h100") -> Replica:
    return Replica(SMALL, gpu, degree, role=Role.PREFILL)


def decode(degree: int = 1, gpu: str = "h100") -> Replica:
    return Replica(SMALL, gpu, degree, role=Role.DECODE)


def seen(*history: dict[str, float], models: tuple[str, ...] = (SMALL,), **values: Any) -> ServingState:
    return state(*history, models=models, estimator=PhaseEstimator(), **values)


def next_point(now: ServingState, decision: Decision, rates: dict[str, float]) -> ServingState:
    """A window later, everything granted and carried out, memory as it comes back from the host."""
    gpus = {p.name: decision.capacity.get(p.name, p.requested) for p in now.pools}
    pools = tuple(replace(p, available=gpus[p.name], requested=gpus[p.name]) for p in now.pools)
    memory = now.memory if decision.memory is None else json.loads(json.dumps(decision.memory))
    return replace(seen(rates, models=now.models, pools=pools), plan=decision.plan, memory=memory)


# --- DistServe ------------------------------------------------------------------------------------------------------


def test_each_phase_has_the_shape_of_best_goodput_per_gpu() -> None:
    # prefill per GPU 12, 15, 10: pairs, of 1.5 times the load each; decode 7, 5, 4: singles, of 0.35.
    # One pair and four singles serve 1.4 on six GPUs. The seventh decodes (1.75), the eighth is too few for a pair.
    decision = loaded("distserve").plan(seen(LOAD))
    assert Counter(decision.plan.replicas) == {prefill(2): 1, prefill(): 1, decode(): 5}


def test_on_an_elastic_cluster_replicas_are_rate_over_goodput_rounded_up() -> None:
    # Half as fast: ⌈1.25 ÷ 0.75⌉ = 2 pairs and ⌈1.25 ÷ 0.175⌉ = 8 singles: 12 GPUs, three nodes.
    decision = loaded("distserve").plan(seen(LOAD, pools=(pool("a100", 8, 32),)))
    assert decision.capacity == {"a100": 12}
    assert Counter(decision.plan.replicas) == {prefill(2, "a100"): 2, decode(1, "a100"): 8}


def test_a_shift_of_rate_or_lengths_or_gpus_plans_anew_and_less_does_not() -> None:
    module = loaded("distserve")
    first = seen(LOAD)
    assert module.should_reschedule(first) is True
    memory = json.loads(json.dumps(module.plan(first).memory))

    def later(rate: float, **values: Any) -> ServingState:
        return replace(seen({"small/<512": rate}, **values), memory=memory)

    assert module.should_reschedule(later(25.0)) is False
    assert module.should_reschedule(later(27.0)) is True
    assert module.should_reschedule(later(13.0)) is True
    assert module.should_reschedule(later(20.0, pools=(pool("h100", 4),))) is True
    longer = later(20.0)
    assert longer.window is not None
    entries = tuple(replace(entry, output_mean=140.0) for entry in longer.window.classes)
    assert module.should_reschedule(replace(longer, window=replace(longer.window, classes=entries))) is True


@pytest.mark.parametrize(
    ("present", "moves"),
    [
        ((*[prefill()] * 3, *[decode()] * 5), False),
        ((*[prefill(2)] * 2, *[decode()] * 4), True),
        ((Replica(SMALL, "h100", 4),) * 2, True),
    ],
    ids=["as good", "a fifth less", "not apart yet"],
)
def test_phases_apart_are_not_moved_for_little(present: tuple[Replica, ...], moves: bool) -> None:
    # The best plan serves min(2.1, 1.75); the first of these min(1.8, 1.75), the second min(3, 1.4).
    now = seen(LOAD, plan=present)
    assert (not loaded("distserve").plan(now).plan.same_replicas(now.plan)) is moves


# --- Splitwise ------------------------------------------------------------------------------------------------------

POOLS = (*[prefill()] * 3, *[decode()] * 5)


def queued(plan: tuple[Replica, ...], prompts: int, tokens: int) -> ServingState:
    """All machines of a pool with so many requests waiting."""
    wait = {Role.PREFILL: prompts, Role.MIXED: prompts, Role.DECODE: tokens}
    statuses = tuple(ReplicaStatus(r, "serving", 0, 0, 0, wait[r.role], 0.1, 1.0) for r in sorted(plan))
    return replace(seen(LOAD, plan=plan), replicas=statuses)


def test_pools_are_of_one_shape_and_sized_by_what_it_serves_of_each_phase() -> None:
    # Both phases per GPU: singles 0.6 · 0.35 ÷ 0.95 = 0.22, pairs 1.5 · 0.5 ÷ 2 ÷ 2 = 0.19, fours 0.14.
    # Of eight singles three prefill (1.8 times the load) and five decode (1.75).
    assert Counter(loaded("splitwise").plan(seen(LOAD)).plan.replicas) == Counter(POOLS)


MIXED = Replica(SMALL, "h100")


@pytest.mark.parametrize(
    ("prompts", "tokens", "after"),
    [
        (0, 0, POOLS),
        (3, 0, POOLS),
        (9, 2, (*[prefill()] * 3, MIXED, *[decode()] * 4)),
        (2, 9, (*[prefill()] * 2, MIXED, *[decode()] * 5)),
    ],
    ids=["calm", "small imbalance", "prompts queue", "tokens queue"],
)
def test_the_longer_queue_borrows_a_machine(prompts: int, tokens: int, after: tuple[Replica, ...]) -> None:
    decision = loaded("splitwise").plan(queued(POOLS, prompts, tokens))
    assert Counter(decision.plan.replicas) == Counter(after)


def test_a_borrowed_machine_goes_back_to_the_pool_that_lacks_it() -> None:
    lent = (*[prefill()] * 3, MIXED, *[decode()] * 4)
    assert Counter(loaded("splitwise").plan(queued(lent, 0, 0)).plan.replicas) == Counter(POOLS)


def test_the_last_machine_of_a_pool_is_not_lent() -> None:
    few = (*[prefill()] * 7, decode())
    assert Counter(loaded("splitwise").plan(queued(few, 50, 0)).plan.replicas) == Counter(few)


# --- both -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_nobody_plans_before_the_first_window(name: str) -> None:
    assert loaded(name).should_reschedule(seen()) is False


@pytest.mark.parametrize("objective", ["cost_per_good", "goodput", "delay", "total_time"])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"pools": (pool("h100", 8), pool("a100", 8))},
        {"pools": (pool("h100", 4), pool("a100", 4, 32))},
        {"pools": (pool("h100", 4),)},
        {"announced": (CapacityChange(90.0, "h100", 4),)},
        {"envelope": Envelope(minimum_replicas=2)},
    ],
    ids=["fixed", "two kinds", "partly elastic", "no room for both phases", "loss announced", "two of each"],
)
@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_served_wherever_it_is(name: str, values: dict[str, Any], objective: str) -> None:
    for history in ((BOTH,), (BOTH, LOAD), (LOAD,), ({},)):
        now = seen(*history, models=(SMALL, LARGE), objective=objective, **values)
        decision = loaded(name).plan(now)
        assert tools.fits(now, decision.plan.replicas, tools.reach(now) | decision.capacity)
        for model in (SMALL, LARGE):
            assert serving_count(decision.plan.replicas_of(model)) >= tools.minimum_replicas(now, model)


@pytest.mark.parametrize("name", NAMES)
def test_capacity_follows_load_up_at_once_and_down_later(name: str) -> None:
    module = loaded(name)
    now = seen(LOAD, pools=(pool("a100", 8, 32),))
    asked = []
    for rate in (20.0, 35.0, *[10.0] * 8):
        load = {"small/<512": rate}
        now = replace(seen(load, pools=now.pools), plan=now.plan, memory=now.memory)
        decision = module.plan(now)
        asked.append(decision.capacity["a100"])
        assert tools.fits(now, decision.plan.replicas, decision.capacity)
        now = next_point(now, decision, load)
    assert asked[0] < asked[1]
    assert asked[2] == asked[1]
    assert asked[-1] < asked[0]


@pytest.mark.parametrize("name", NAMES)
def test_under_steady_load_the_plan_stays(name: str) -> None:
    module = loaded(name)
    now, plans = seen(BOTH, models=(SMALL, LARGE), pools=(pool("h100", 16),)), list[ServingPlan]()
    for _ in range(4):
        decision = module.plan(now)
        plans.append(decision.plan)
        now = next_point(now, decision, BOTH)
    assert all(plan.same_replicas(plans[0]) for plan in plans)
