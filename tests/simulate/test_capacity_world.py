"""Markets that are followed, and failures, as the loop and the requests of a simulated world meet them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from run_scenes import ELASTIC, FIXED, A, H, InProcess, always, chat, every, plain, plan_of, run_of, scenario_of

from autopoiesis.cluster import Cluster, Failures, SpotRegime
from autopoiesis.loop.messages import CapacityChanged, CapacityNotice, Event, ReplicaLost, RequestCapacity
from autopoiesis.plan import Capacity
from autopoiesis.policy.interface import Decision, Observation
from autopoiesis.simulate.scenario import NOTHING_HIDDEN, Mode, Scenario
from autopoiesis.simulate.supply import NodeFailure, SpotLoss, SpotReturn
from autopoiesis.simulate.world import SimulatedWorld

LONG = every(0.5, 400, 500, 1500)
"""Some ten seconds each, so that there is always something in flight."""
QUICK = Cluster("quick", (replace(ELASTIC.pools[0], start_s_p50=5.0, start_s_p90=5.0),), ELASTIC.gpus)

TAKEN = SpotLoss("a100", 60.0, 2, 40.0, 0.0, frozenset({1, 3}))
"""The nodes 1 and 3 …"""
GIVEN = SpotReturn("a100", 90.0, frozenset({1, 3}))
"""… come back half a minute later."""


def world_of(scenario: Scenario, gpus: int) -> SimulatedWorld:
    pool = scenario.cluster.pools[0].name
    replica = A if pool == "a100" else H
    capacity = Capacity.at_minimum(scenario.cluster).with_pool(pool, gpus)
    return SimulatedWorld(scenario, plan_of(*[replica] * gpus), capacity, Mode.OPERATOR)


def events_until(world: SimulatedWorld, until_s: float) -> list[tuple[float, Event]]:
    events: list[tuple[float, Event]] = []
    while new := world.advance(until_s):
        events += [(world.now_s, event) for event in new]
    return events


def test_a_withdrawn_node_is_announced_lost_and_replaced_by_one_that_is_offered() -> None:
    world = world_of(plain(QUICK, LONG, losses=(TAKEN,)), 4)
    events = events_until(world, 70.0)
    assert events == [
        (20.0, CapacityNotice("a100", 2, 60.0)),
        (60.0, CapacityChanged("a100", 2)),
        (60.0, ReplicaLost(plan_of(A, A))),
        (65.0, CapacityChanged("a100", 4)),
    ]
    assert sorted(world.supply.pools["a100"].up) == [0, 2]


def test_what_is_asked_for_beyond_what_is_offered_comes_when_it_is_offered_again() -> None:
    world = world_of(plain(QUICK, LONG, losses=(TAKEN, GIVEN)), 2)
    world.carry_out(RequestCapacity("a100", 12))
    changes = [(at_s, event.gpus) for at_s, event in events_until(world, 120.0) if isinstance(event, CapacityChanged)]
    assert changes[-3:] == [(60.0, 8), (95.0, 10), (95.0, 12)]


def test_policies_see_that_a_pool_is_spot_and_its_notices_and_nothing_more() -> None:
    spotty = Cluster("spotty", (replace(ELASTIC.pools[0], spot=SpotRegime("scarce", 30.0)),), ELASTIC.gpus)
    policy = InProcess(always, lambda observation: Decision(observation.plan, {"a100": 12}))
    scenario = scenario_of(spotty, chat(1, 900.0, 1.0))
    ran = run_of(scenario, policy, plan_of(A, A))
    assert policy.shown
    for shown in policy.shown:
        for secret in (b"regime", b"scarce", b"spot_history", b"failures"):
            assert secret not in shown.observation
    assert ran.outcome.books is not None
    assert ran.outcome.books.completed == len(scenario.requests)


def test_a_run_under_a_followed_market_is_repeated_to_the_byte() -> None:
    spotty = Cluster(
        "spotty",
        (replace(QUICK.pools[0], spot=SpotRegime("contended", 30.0), failures=Failures(2.0, 60.0)),),
        ELASTIC.gpus,
    )

    def grow(observation: Observation) -> Decision:
        return Decision(plan_of(A, A, A, A), {"a100": 12})

    one, other = (
        run_of(scenario_of(spotty, chat(2, 600.0, 2.0)), InProcess(always, grow, plan_s=0.5), plan_of(A, A))
        for _ in range(2)
    )
    assert list(one.log.lines()) == list(other.log.lines())
    assert one.events(CapacityChanged)


# --- failures ------------------------------------------------------------------------------------------------------

BREAKS = NodeFailure("h100", 30.0, 1, 100.0)


def test_a_failure_comes_without_notice_and_its_requests_go_on_elsewhere() -> None:
    world = world_of(plain(FIXED, LONG, losses=(BREAKS,)), 4)
    events = events_until(world, 129.0)
    assert events == [(30.0, CapacityChanged("h100", 2)), (30.0, ReplicaLost(plan_of(H, H)))]
    assert world.fleet.continued > 0
    assert events_until(world, 131.0) == [(130.0, CapacityChanged("h100", 4))]
    events_until(world, 3000.0)
    assert (world.simulation.state.requests["status"] == 1).all()


def test_a_failure_of_a_place_where_no_node_is_goes_unnoticed() -> None:
    nowhere = NodeFailure("a100", 30.0, 4, 100.0)
    world = world_of(plain(ELASTIC, LONG, losses=(nowhere,)), 4)
    assert events_until(world, 199.0) == []


def test_the_loop_repairs_what_a_failure_took_and_has_it_back_after_the_repair() -> None:
    scenario = plain(FIXED, every(0.5, 800, 500, 300), losses=(BREAKS,), window_s=20.0)
    ran = run_of(scenario, InProcess(), plan_of(H, H, H, H))
    assert len(ran.events(ReplicaLost)) == 1
    assert ran.run.world.fleet.running_plan().same_replicas(plan_of(H, H, H, H))
    assert ran.outcome.books is not None
    assert ran.outcome.books.completed == 800
    assert ran.outcome.books.lost == 0


def test_a_fixed_pool_is_paid_for_while_it_is_repaired() -> None:
    broken, whole = (
        run_of(plain(FIXED, every(0.5, 400, 500, 300), losses=losses), InProcess(), plan_of(H)).outcome
        for losses in ((replace(BREAKS, repair_s=1e6),), ())
    )
    assert broken.books is not None
    assert whole.books is not None
    assert broken.books.cost_usd == pytest.approx(whole.books.cost_usd, rel=0.02)


def test_failures_are_drawn_from_the_worlds_seed_where_the_pool_has_them() -> None:
    frail = Cluster("frail", (replace(FIXED.pools[0], failures=Failures(0.5, 30.0)),), FIXED.gpus)
    load = every(0.5, 800, 300, 100)

    def lost(cluster: Cluster, seed: int) -> list[float]:
        ran = run_of(
            scenario_of(cluster, load, replace(NOTHING_HIDDEN, losses=None, seed=seed)), InProcess(), plan_of(H, H)
        )
        return [record.now_s for record in ran.log.records if isinstance(record.event, CapacityChanged)]

    assert lost(FIXED, 1) == []
    assert lost(frail, 1)
    assert lost(frail, 1) != lost(frail, 2)
