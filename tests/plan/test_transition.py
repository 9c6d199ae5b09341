from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopoiesis.cluster import Hardware, Storage, catalog
from autopoiesis.cost import CostModel, Starts, StartTimes
from autopoiesis.errors import PlanError
from autopoiesis.plan import (
    Envelope,
    Node,
    Phase,
    Placed,
    Replica,
    ServingPlan,
    TransitionCost,
    estimate_transition,
    place,
)

NODE = (Node("h100/0", "h100", "h100", 4),)
SMALL, PAIR = Replica("llama-3.1-8b", "h100"), Replica("llama-3.1-8b", "h100", 2)
COST = CostModel(
    Hardware(catalog.gpus(), catalog.models()), start=StartTimes(storage={"h100": Storage(page_cache_bytes=0)})
)
START_S = COST.start_s("llama-3.1-8b")
READ_S = COST.weight_bytes("llama-3.1-8b") / 3.5e9


def run(*replicas: Replica) -> tuple[Placed, ...]:
    placement = place(ServingPlan(replicas), NODE, ())
    return tuple(
        Placed(i, r, gpus) for i, (r, gpus) in enumerate(zip(placement.to_start, placement.targets, strict=True))
    )


def estimate(
    running: tuple[Placed, ...],
    *replicas: Replica,
    phases: dict[int, Phase] | None = None,
    drain_s: float = 10.0,
    capacity_kept: float = 0.5,
    cost: CostModel = COST,
) -> TransitionCost:
    status: dict[int, Phase] = {placed.id: "serving" for placed in running}
    return estimate_transition(
        ServingPlan(replicas),
        NODE,
        running,
        status | (phases or {}),
        starts=Starts(cost),
        drain_s=drain_s,
        price=lambda gpu: 3.6,
        capacity_kept=capacity_kept,
        envelope=Envelope(),
    )


def test_a_transition_to_what_runs_is_free() -> None:
    assert estimate(run(SMALL, PAIR), PAIR, SMALL) == (0.0, 0.0, 1.0)


def test_with_spare_gpus_the_start_and_then_the_drain_take_their_time_and_nothing_is_given_up() -> None:
    cost = estimate(run(SMALL), PAIR)
    assert cost.seconds == pytest.approx(START_S + 10.0)
    assert cost.money_usd == pytest.approx(0.001 * (2 * START_S + 10.0))
    assert cost.capacity_kept == 1.0


def test_without_spare_gpus_the_drain_comes_first_and_costs_capacity() -> None:
    cost = estimate(run(*[SMALL] * 4), PAIR, SMALL, SMALL)
    assert cost.seconds == pytest.approx(START_S + 10.0)
    assert cost.money_usd == pytest.approx(0.001 * (2 * START_S + 2 * 10.0))
    assert cost.capacity_kept == 0.5


def test_a_fraction_to_keep_makes_a_transition_roll_and_so_take_longer() -> None:
    changed = Replica("llama-3.1-8b", "h100", batched_tokens=1024)
    at_once = estimate(run(*[SMALL] * 4), *[changed] * 4, capacity_kept=0.0)
    rolling = estimate(run(*[SMALL] * 4), *[changed] * 4, capacity_kept=0.75)
    assert at_once.seconds < rolling.seconds
    assert at_once.capacity_kept < rolling.capacity_kept == 0.75


def test_an_undone_drain_costs_nothing_and_a_load_under_way_is_waited_for() -> None:
    running = run(SMALL, SMALL)
    assert estimate(running, SMALL, SMALL, phases={1: "draining"}) == (0.0, 0.0, 1.0)
    assert estimate(running, SMALL, SMALL, phases={1: "loading"}).seconds == pytest.approx(START_S)


def test_starts_that_share_a_drive_take_longer_and_their_wait_is_paid() -> None:
    cost = estimate(run(SMALL), *[SMALL] * 4)
    assert cost.seconds == pytest.approx(START_S + 2 * READ_S)
    assert cost.money_usd == pytest.approx(0.001 * 3 * cost.seconds)


def test_a_node_that_runs_the_model_has_it_in_its_page_cache() -> None:
    cached = replace(COST, start=replace(COST.start, storage={}))
    host_s = COST.weight_bytes("llama-3.1-8b") / 20e9
    assert estimate(run(SMALL), SMALL, SMALL, cost=cached).seconds == pytest.approx(START_S - READ_S + host_s)
    assert estimate((), SMALL, cost=cached).seconds == pytest.approx(START_S)


def test_a_load_that_is_given_up_leaves_its_share_to_the_others() -> None:
    """The pair still loads when it is no longer wanted; nobody waits for its bytes."""
    running = run(PAIR, SMALL)
    assert estimate(running, SMALL, SMALL, phases={0: "loading"}).seconds == pytest.approx(START_S)


def test_a_plan_that_does_not_pack_has_no_transition() -> None:
    with pytest.raises(PlanError):
        estimate(run(SMALL), *[PAIR] * 3)


plans = st.sampled_from([(SMALL,) * n + (PAIR,) * m for n in range(5) for m in range(3) if n + 2 * m <= 4])


@settings(max_examples=100, deadline=None)
@given(before=plans, after=plans, drain_s=st.sampled_from([0.0, 1.0, 100.0]), kept=st.sampled_from([0.0, 0.5, 1.0]))
def test_every_transition_has_a_finite_cost_and_the_same_one_each_time(
    before: tuple[Replica, ...], after: tuple[Replica, ...], drain_s: float, kept: float
) -> None:
    cost = estimate(run(*before), *after, drain_s=drain_s, capacity_kept=kept)
    assert 0 <= cost.seconds < 1e5
    assert 0 <= cost.money_usd <= 0.001 * 4 * cost.seconds + 1e-9
    assert 0 <= cost.capacity_kept <= 1
    assert cost == estimate(run(*before), *after, drain_s=drain_s, capacity_kept=kept)
