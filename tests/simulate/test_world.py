"""The simulated world: what commands do to a fleet that serves, and what happens to it by itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from run_scenes import (
    COST,
    ELASTIC,
    FIXED,
    MODEL,
    SPOT,
    A,
    H,
    InProcess,
    always,
    every,
    plain,
    plan_of,
    run_of,
    scenario_of,
)
from world_scenes import elastic, events_until, in_flight, phases, requests_of, world_of

from autopoiesis.cluster import Cluster
from autopoiesis.loop.messages import (
    Apply,
    CancelTransition,
    CapacityChanged,
    CapacityNotice,
    Repair,
    ReplicaLost,
    RequestCapacity,
    TransitionDone,
    TransitionFailed,
    TransitionProgress,
)
from autopoiesis.plan import ClassShares, Role, ServingPlan
from autopoiesis.policy.interface import Decision, Move, Observation
from autopoiesis.simulate.fleet_shares import fleet_shares
from autopoiesis.simulate.scenario import NOTHING_HIDDEN, Hidden, Scenario, draw_hidden
from autopoiesis.simulate.supply import SpotLoss
from autopoiesis.simulate.telemetry import SCRAPE_INTERVAL_S, SCRAPE_LAG_S
from autopoiesis.simulate.world import SimulatedWorld
from autopoiesis.workload import Requests

START_S = COST.start_s(MODEL)
HB = replace(H, max_sequences=64)
LONG = every(0.5, 400, 500, 1500)
"""Some ten seconds each, so that there is always something in flight."""


# --- starting and stopping -----------------------------------------------------------------------------------------


def test_the_first_plan_serves_from_the_beginning() -> None:
    world = world_of(plain(FIXED, LONG), plan_of(H, H, H))
    assert phases(world) == {"serving": 3}
    assert world.take_measurements() == ([], [])
    events_until(world, 1.0)
    assert sum(in_flight(world)) == 3


def test_a_loading_replica_gets_no_request_until_it_serves() -> None:
    world = world_of(plain(FIXED, LONG), plan_of(H))
    world.carry_out(Apply(1, plan_of(H, H), Move()))
    events_until(world, START_S - 0.1)
    assert phases(world) == {"serving": 1, "loading": 1}
    assert in_flight(world)[1] == 0
    ((at_s, done),) = events_until(world, START_S + 5)
    assert at_s == pytest.approx(START_S)
    assert done == TransitionDone(1, 1, 0)
    assert in_flight(world)[1] > 0


def test_a_start_takes_the_worlds_time_and_is_measured_for_calibration() -> None:
    hidden = replace(NOTHING_HIDDEN, start_slow=1.25)
    world = world_of(scenario_of(FIXED, LONG, hidden), plan_of(H))
    world.carry_out(Apply(1, plan_of(H, H, H), Move()))
    ((at_s, _),) = (e for e in events_until(world, 200.0) if isinstance(e[1], TransitionDone))
    assert at_s == pytest.approx(1.25 * START_S)
    works, starts = world.take_measurements()
    assert [measured for measured, _ in starts] == pytest.approx([1.25 * START_S] * 2)
    assert [expected for _, expected in starts] == pytest.approx([START_S] * 2)
    assert works
    assert world.take_measurements() == ([], [])


def test_start_times_scatter_around_their_mean() -> None:
    seconds = []
    for seed in range(60):
        hidden = replace(NOTHING_HIDDEN, start_deviation=0.25, seed=seed)
        world = world_of(scenario_of(FIXED, every(1.0, 300), hidden), plan_of(H))
        world.carry_out(Apply(1, plan_of(H, H, H, H), Move()))
        events_until(world, 200.0)
        # beside one another on a drive, too, each takes what is expected of it times its own deviation
        seconds += [measured / expected for measured, expected in world.take_measurements()[1]]
    assert np.mean(seconds) == pytest.approx(1.0, rel=0.06)
    assert np.std(np.log(seconds)) == pytest.approx(0.25, rel=0.2)


def test_a_drained_replica_loses_nothing_and_recomputes_nothing() -> None:
    world = world_of(plain(FIXED, LONG), plan_of(H, H))
    events_until(world, 20.0)
    world.carry_out(Apply(1, plan_of(H), Move(drain_cap_s=60.0)))
    before = in_flight(world)[1]
    assert before > 0
    events_until(world, 21.0)
    assert phases(world) == {"serving": 1, "draining": 1}
    assert in_flight(world)[1] <= before
    ((at_s, done),) = events_until(world, 80.0)
    assert done == TransitionDone(1, 0, 1)
    assert at_s < 45.0
    assert world.fleet.continued == 0
    events_until(world, 1000.0)
    assert (requests_of(world)["status"] == 1).all()


@pytest.mark.parametrize("migrate", [False, True])
def test_at_the_drain_cap_what_is_unfinished_is_continued_elsewhere(migrate: bool) -> None:
    world = world_of(plain(FIXED, LONG), plan_of(H, H))
    events_until(world, 20.0)
    rows = np.flatnonzero((requests_of(world)["slot"] == 1) & (requests_of(world)["done"] < 0))
    world.carry_out(Apply(1, plan_of(H), Move(drain_cap_s=2.0, migrate=migrate)))
    ((at_s, _),) = events_until(world, 30.0)
    assert at_s == pytest.approx(22.0)
    assert 0 < world.fleet.continued <= len(rows)
    events_until(world, 2000.0)
    requests = requests_of(world)
    assert (requests["status"] == 1).all()
    # nobody's first token comes twice, and it had come before the move for those that were decoding
    assert (requests["first"][rows] <= 22.5e12).all()


def test_migrating_is_quicker_than_recomputing_for_long_prompts() -> None:
    """The paused requests end earlier when their cache moves with them."""

    def mean_e2e(migrate: bool) -> float:
        world = world_of(plain(FIXED, every(1.0, 30, 20_000, 1000)), plan_of(H, H))
        events_until(world, 20.0)
        world.carry_out(Apply(1, plan_of(H), Move(drain_cap_s=0.0, migrate=migrate)))
        events_until(world, 2000.0)
        requests = requests_of(world)
        return float((requests["done"] - requests["arrival"]).mean())

    assert mean_e2e(True) < mean_e2e(False)


def test_a_drain_that_is_undone_does_not_end_at_its_old_cap() -> None:
    world = world_of(plain(FIXED, LONG), plan_of(H, H))
    events_until(world, 20.0)
    world.carry_out(Apply(1, plan_of(H), Move(drain_cap_s=3.0)))
    events_until(world, 21.0)
    world.carry_out(CancelTransition(1))
    world.carry_out(Apply(2, plan_of(H, H), Move()))
    assert [event for _, event in events_until(world, 22.0)] == [TransitionDone(2, 0, 0)]
    assert phases(world) == {"serving": 2}
    world.carry_out(Apply(3, plan_of(H), Move(drain_cap_s=30.0)))
    assert events_until(world, 24.0) == []
    assert phases(world) == {"serving": 1, "draining": 1}
    assert world.fleet.continued == 0


def test_a_transition_given_up_stops_what_still_loads() -> None:
    world = world_of(plain(FIXED, LONG), plan_of(H))
    world.carry_out(Apply(1, plan_of(H, H), Move()))
    events_until(world, 10.0)
    world.carry_out(CancelTransition(1))
    world.carry_out(Apply(2, plan_of(H), Move()))
    assert [event for _, event in events_until(world, 100.0)] == [TransitionDone(2, 0, 1)]
    assert phases(world) == {"serving": 1}
    assert world.take_measurements()[1] == []


def test_progress_is_told_while_replicas_come_up() -> None:
    world = world_of(scenario_of(FIXED, LONG, replace(NOTHING_HIDDEN, start_deviation=0.3)), plan_of(H))
    world.carry_out(Apply(1, plan_of(H, H, H, H), Move()))
    assert [event for _, event in events_until(world, 150.0)] == [
        TransitionProgress(1, 1, 3),
        TransitionProgress(1, 2, 3),
        TransitionDone(1, 3, 0),
    ]


def test_a_rolling_change_of_shape_keeps_serving() -> None:
    world = world_of(plain(FIXED, LONG), plan_of(H, H, H, H))
    target = plan_of(HB, HB, HB, HB)
    world.carry_out(Apply(1, target, Move(drain_cap_s=1.0, capacity_kept=0.5)))
    least, done = 4, False
    for step in range(1, 2000):
        done |= any(isinstance(event, TransitionDone) for _, event in events_until(world, step * 0.1))
        least = min(least, phases(world)["serving"])
    assert done
    assert least == 2
    assert world.fleet.running_plan().same_replicas(target)


def test_a_plan_that_does_not_pack_fails_after_a_moment_and_changes_nothing() -> None:
    world = world_of(plain(FIXED, LONG), plan_of(H))
    world.carry_out(Repair(1, plan_of(H, H, H, H, H)))
    ((at_s, failed),) = events_until(world, 10.0)
    assert isinstance(failed, TransitionFailed)
    assert (failed.ticket, failed.plan) == (1, plan_of(H))
    assert at_s > 0
    assert phases(world) == {"serving": 1}


def test_a_repair_that_always_fails_does_not_stop_time() -> None:
    world = world_of(plain(FIXED, LONG), plan_of(H))
    failures = 0
    world.carry_out(Repair(1, plan_of(*[H] * 5)))
    while world.now_s < 20.0:
        for event in world.advance(20.0):
            failures += isinstance(event, TransitionFailed)
            world.carry_out(Repair(failures + 1, plan_of(*[H] * 5)))
    assert 0 < failures <= 20


# --- shares --------------------------------------------------------------------------------------------------------

CLASS = f"{MODEL}/<512"


def test_a_class_follows_the_shares_of_the_plan() -> None:
    plan = ServingPlan((H, H, H), (ClassShares(CLASS, (0.0, 0.75, 0.25)),))
    world = world_of(plain(FIXED, every(0.01, 400, 100, 20)), plan)
    events_until(world, 3.0)
    slots = Counter(requests_of(world)["slot"][:300].tolist())
    assert slots[0] == 0
    assert slots[1] / 300 == pytest.approx(0.75, abs=0.08)


def test_between_two_plans_a_class_uses_everything_that_serves() -> None:
    """With fractions of 1 for replicas that leave, those that have come up would stand idle."""
    old = ServingPlan((H, H, H, H), (ClassShares(CLASS, (0.25,) * 4),))
    new = ServingPlan((HB,) * 4, (ClassShares(CLASS, (0.25,) * 4),))
    world = world_of(plain(FIXED, every(0.05, 4000, 100, 20)), old)
    world.carry_out(Apply(1, new, Move(drain_cap_s=1.0, capacity_kept=0.5)))
    events_until(world, START_S + 10)
    assert phases(world)["serving"] >= 2
    fresh = [
        id
        for id, placed in world.fleet.replicas.items()
        if placed.replica == HB and world.fleet.phases[id] == "serving"
    ]
    assert fresh
    assert all(world.simulation.state.replicas[world.fleet._slots[id]]["generated_tokens"] > 0 for id in fresh)
    events_until(world, 190.0)
    assert world.fleet.running_plan().same_replicas(new)
    assert (world.simulation.state.shares[0].max(), world.simulation.state.shares[1].max()) == (0.25, -1.0)


def test_a_new_replica_on_an_old_ones_slot_has_not_its_share() -> None:
    old = ServingPlan((H, H), (ClassShares(CLASS, (1.0, 0.0)),))
    world = world_of(plain(FIXED, every(0.5, 400, 100, 20)), old)
    world.carry_out(Apply(1, plan_of(HB, H), Move(capacity_kept=0.0, drain_cap_s=0.0)))
    events_until(world, 100.0)
    assert world.simulation.state.shares.max() == -1.0


def test_shares_hold_while_every_replica_they_name_serves() -> None:
    old = ServingPlan((H, HB), (ClassShares("a", (1.0, 0.0)), ClassShares("b", (0.5, 0.5))))
    new = ServingPlan((H, H), (ClassShares("b", (0.2, 0.8)),))
    plan, slots = fleet_shares({7: H}, old, new)
    assert (plan, slots) == (ServingPlan((H,), (ClassShares("a", (1.0,)),)), {0: 7})
    plan, _ = fleet_shares({7: H, 3: H}, old, new)
    assert plan.shares_of("b") == (0.2, 0.8)
    plan, _ = fleet_shares({7: HB, 3: H}, old, new)
    assert plan.shares_of("b") == (0.5, 0.5)
    assert fleet_shares({}, old, new) == (ServingPlan(()), {})


# --- capacity ------------------------------------------------------------------------------------------------------


def test_nodes_come_after_a_delay_and_idle_ones_go_back() -> None:
    world = world_of(plain(ELASTIC, LONG), plan_of(A, A))
    world.carry_out(RequestCapacity("a100", 6))
    events = events_until(world, 120.0)
    assert [event for _, event in events] == [CapacityChanged("a100", 4), CapacityChanged("a100", 6)]
    assert all(at_s > 5.0 for at_s, _ in events)
    world.carry_out(Apply(1, plan_of(A, A, A), Move()))
    events_until(world, 180.0)
    world.carry_out(RequestCapacity("a100", 2))
    # one of the two surplus nodes runs the third replica: only the idle one goes back
    assert [event for _, event in events_until(world, 181.0)] == [CapacityChanged("a100", 4)]
    world.carry_out(Apply(2, plan_of(A, A), Move(drain_cap_s=0.0)))
    assert CapacityChanged("a100", 2) in [event for _, event in events_until(world, 181.5)]
    assert world.supply.pools["a100"].gpus == 2


def test_a_request_that_is_withdrawn_is_not_granted() -> None:
    world = world_of(plain(ELASTIC, LONG), plan_of(A, A))
    world.carry_out(RequestCapacity("a100", 12))
    events_until(world, 1.0)
    world.carry_out(RequestCapacity("a100", 2))
    assert events_until(world, 150.0) == []


WIDE = replace(A, tensor_parallel=2, pipeline_parallel=2)
"""Over two nodes of two."""


def waiting_for_one_node(scenario: Scenario) -> SimulatedWorld:
    """A replica over both nodes is about to start; node 1 is idle already, on node 0 the old replica still drains."""
    old = replace(A, tensor_parallel=2)
    plan = ServingPlan((old, old), (ClassShares(f"{MODEL}/<2048", (1.0, 0.0)),))
    world = world_of(scenario, plan, elastic(4, scenario.cluster))
    events_until(world, 5.0)
    world.carry_out(RequestCapacity("a100", 2))
    world.carry_out(Apply(1, plan_of(WIDE), Move(drain_cap_s=20.0, capacity_kept=0.0)))
    events_until(world, 6.0)
    assert [placed.gpus[0][0] for placed in world.fleet.replicas.values()] == ["a100/0"]
    assert phases(world) == {"draining": 1}
    return world


def test_a_node_where_a_replica_is_about_to_start_is_not_given_back() -> None:
    world = waiting_for_one_node(plain(ELASTIC, every(0.5, 400, 600, 1500)))
    assert world.supply.pools["a100"].gpus == 4
    assert [event for _, event in events_until(world, 120.0)] == [TransitionDone(1, 1, 2)]
    assert world.fleet.running_plan() == plan_of(WIDE)


def test_the_loss_of_a_node_where_a_replica_is_about_to_start_is_told() -> None:
    loss = SpotLoss("a100", at_s=10.0, nodes=1, notice_s=0.0, recovery_s=0.0)
    world = waiting_for_one_node(plain(SPOT, every(0.5, 400, 600, 1500), losses=(loss,)))
    assert [event for _, event in events_until(world, 10.1)] == [CapacityChanged("a100", 2), ReplicaLost(plan_of())]
    world.carry_out(CancelTransition(1))
    world.carry_out(Repair(2, plan_of(A, A)))
    assert [event for _, event in events_until(world, 120.0)][-1] == TransitionDone(2, 2, 0)
    assert phases(world) == {"serving": 2}


LOSS = SpotLoss("a100", at_s=60.0, nodes=1, notice_s=40.0, recovery_s=30.0)


def test_a_spot_loss_is_announced_spared_and_survived() -> None:
    world = world_of(plain(SPOT, LONG, losses=(LOSS,)), plan_of(A, A, A, A), elastic(4, SPOT))
    ((at_s, notice),) = events_until(world, 29.0)
    assert (at_s, notice) == (20.0, CapacityNotice("a100", 2, 60.0))
    before = in_flight(world)
    assert all(count > 0 for count in before)
    events_until(world, 59.9)
    # thirty seconds before the loss the doomed stop getting requests, and these last about twenty
    assert in_flight(world)[2:] == [0, 0]
    assert phases(world) == {"serving": 4}
    (changed, lost) = (event for _, event in events_until(world, 60.1))
    assert changed == CapacityChanged("a100", 2)
    assert lost == ReplicaLost(plan_of(A, A))
    assert phases(world) == {"serving": 2}
    events = events_until(world, 199.0)
    assert [event for _, event in events] == [CapacityChanged("a100", 4)]
    assert events[0][0] > 60.0 + 30.0


def test_the_last_replica_of_a_model_serves_until_its_node_is_gone_and_its_requests_go_on() -> None:
    everything = replace(LOSS, nodes=3)
    bare = Cluster("bare", (replace(SPOT.pools[0], minimum=0),), SPOT.gpus)
    world = world_of(plain(bare, LONG, losses=(everything,)), plan_of(A, A, A), elastic(4, bare))
    events_until(world, 59.9)
    assert all(count > 0 for count in in_flight(world))
    events_until(world, 60.5)
    assert world.statuses() == []
    continued = world.fleet.continued
    assert continued > 0
    events_until(world, 140.0)
    world.carry_out(Repair(1, plan_of(A, A)))
    events_until(world, 3000.0)
    assert (requests_of(world)["status"] == 1).all()


def test_a_doomed_replica_takes_requests_again_if_nobody_else_can() -> None:
    world = world_of(plain(SPOT, LONG, losses=(LOSS,)), plan_of(A, A, A, A), elastic(4, SPOT))
    events_until(world, 45.0)
    doomed = [id for id in world.fleet.replicas if id >= 2]
    assert world.fleet._spared == set(doomed)
    for id in (0, 1):
        world.fleet.stop(id, Move())
    world._settled = False
    events_until(world, 46.0)
    assert world.fleet._spared == set()
    events_until(world, 50.0)
    assert sum(in_flight(world)[2:]) > 0


def test_only_a_decode_replica_stands_in_for_a_decode_replica() -> None:
    roles = plan_of(replace(A, role=Role.PREFILL), replace(A, role=Role.PREFILL), replace(A, role=Role.DECODE))
    world = world_of(plain(SPOT, LONG, losses=(LOSS,)), roles, elastic(4, SPOT))
    events_until(world, 45.0)
    doomed = world.fleet._doomed
    assert [world.fleet.replicas[id].replica.role for id in sorted(doomed)] == [Role.DECODE]
    assert world.fleet._spared == set()


def test_a_plan_that_needs_less_moves_off_the_nodes_about_to_be_lost() -> None:
    announced = replace(LOSS, at_s=100.0, notice_s=90.0)
    pair = replace(A, tensor_parallel=2)
    world = world_of(plain(SPOT, LONG, losses=(announced,)), plan_of(A, A, pair), elastic(4, SPOT))
    events_until(world, 15.0)
    # the single replicas could be kept, but they sit on the node that is about to be lost
    assert {node for id in (0, 1) for node, _ in world.fleet.replicas[id].gpus} == {"a100/1"}
    world.carry_out(Apply(1, plan_of(A, A), Move(drain_cap_s=10.0)))
    events = [event for _, event in events_until(world, 101.0)]
    assert TransitionDone(1, 2, 3) in events
    assert not any(isinstance(event, ReplicaLost) for event in events)
    assert phases(world) == {"serving": 2}


def test_two_announced_losses_take_different_nodes() -> None:
    second = replace(LOSS, at_s=70.0)
    world = world_of(plain(SPOT, LONG, losses=(LOSS, second)), plan_of(A, A), elastic(8, SPOT))
    events = [event for _, event in events_until(world, 71.0)]
    assert events == [
        CapacityNotice("a100", 6, 60.0),
        CapacityNotice("a100", 4, 70.0),
        CapacityChanged("a100", 6),
        CapacityChanged("a100", 4),
    ]


def test_a_node_given_back_and_granted_again_is_not_taken_for_the_lost_one() -> None:
    quick = Cluster("quick", (replace(SPOT.pools[0], start_s_p50=1.0, start_s_p90=1.0),), SPOT.gpus)
    world = world_of(plain(quick, LONG, losses=(LOSS,)), plan_of(A, A), elastic(4, quick))
    events_until(world, 25.0)
    world.carry_out(RequestCapacity("a100", 2))
    events_until(world, 26.0)
    world.carry_out(RequestCapacity("a100", 4))
    events_until(world, 30.0)
    world.carry_out(Apply(1, plan_of(A, A, A), Move()))
    ((at_s, done),) = events_until(world, 150.0)
    assert at_s == pytest.approx(30.0 + START_S)
    assert done == TransitionDone(1, 1, 0)


def test_orders_on_their_way_wait_for_the_recovery() -> None:
    slow = Cluster("slow", (replace(SPOT.pools[0], start_s_p50=50.0, start_s_p90=50.0),), SPOT.gpus)
    world = world_of(plain(slow, LONG, losses=(LOSS,)), plan_of(A, A), elastic(4, slow))
    events_until(world, 55.0)
    world.carry_out(RequestCapacity("a100", 6))
    grants = [at_s for at_s, event in events_until(world, 199.0) if event != CapacityChanged("a100", 2)]
    assert grants == [pytest.approx(60.0 + 30.0 + 50.0)] * 2


def test_a_loss_while_replicas_move_is_repaired_by_the_loop() -> None:
    scenario = plain(SPOT, every(0.5, 800, 500, 300), losses=(LOSS,), window_s=20.0)

    def grow(observation: Observation) -> Decision:
        return Decision(plan_of(A, A, A, A), {"a100": 4})

    for at_s in (25.0, 40.0, 55.0, 62.0, 70.0):
        changed = replace(scenario, hidden=replace(scenario.hidden, losses=(replace(LOSS, at_s=at_s, notice_s=0.0),)))
        ran = run_of(changed, InProcess(always, grow, plan_s=0.5), plan_of(A, A), capacity=elastic(4, SPOT))
        assert ran.run.loop.counts["repairs"] >= 1
        assert ran.run.world.fleet.running_plan().same_replicas(plan_of(A, A, A, A))
        assert ran.outcome.books is not None
        assert ran.outcome.books.completed == 800


# --- telemetry -----------------------------------------------------------------------------------------------------


def test_gauges_are_as_old_as_their_scrape() -> None:
    world = world_of(plain(FIXED, LONG), plan_of(H))
    for now_s in (3.0, 5.4, 5.6, 9.9, 10.4, 10.6):
        events_until(world, now_s)
        age = world.statuses()[0][7]
        scrape = SCRAPE_INTERVAL_S * ((now_s - SCRAPE_LAG_S) // SCRAPE_INTERVAL_S)
        assert age == pytest.approx(now_s - scrape)
    assert world.statuses()[0][4] > 0
    assert world.simulation.state.telemetry[0, 3] == pytest.approx(10.0)


def test_a_missing_sample_leaves_the_older_one() -> None:
    hidden = replace(NOTHING_HIDDEN, telemetry_missing=0.5)
    world = world_of(scenario_of(FIXED, LONG, hidden), plan_of(H, H, H, H))
    ages = []
    for step in range(1, 30):
        events_until(world, 5.0 * step + 1.0)
        ages += [status[7] for status in world.statuses()]
    assert min(ages) == pytest.approx(1.0)
    assert max(ages) > 5.0
    assert np.mean(np.array(ages) > 1.5) == pytest.approx(0.5, abs=0.15)


def test_no_work_is_lost_with_a_missing_sample() -> None:
    def measured(missing: float) -> int:
        hidden = replace(NOTHING_HIDDEN, telemetry_missing=missing)
        world = world_of(scenario_of(FIXED, every(1.0, 100), hidden), plan_of(H))
        events_until(world, 300.0)
        return sum(work.steps for work in world.take_measurements()[0])

    assert measured(0.5) == measured(0.0) > 0


def test_in_flight_counts_are_exact_at_every_instant() -> None:
    world = world_of(plain(FIXED, LONG), plan_of(H, H))
    for now_s in (1.2, 3.3, 17.7):
        events_until(world, now_s)
        requests = requests_of(world)
        there = (requests["arrival"] <= now_s * 1e12) & (requests["done"] < 0)
        assert sum(in_flight(world)) == there.sum()


# --- hidden --------------------------------------------------------------------------------------------------------


def busy(cluster: Cluster, seed: int, requests: Requests) -> Scenario:
    return scenario_of(cluster, requests, draw_hidden(cluster, seed), window_s=60.0)


@pytest.mark.parametrize("seed", range(6))
def test_the_belief_finds_the_hidden_factor_within_ten_minutes(seed: int) -> None:
    scenario = busy(FIXED, seed, every(0.05, 13_000, 600, 150))
    ran = run_of(scenario, InProcess(), plan_of(H, H, H, H))
    assert ran.outcome.ended_s == pytest.approx(650, abs=30)
    believed, true = ran.run.belief.cost.slow["h100"], scenario.hidden.slow["h100"]
    assert believed == pytest.approx(true, rel=0.03)


def test_the_belief_finds_the_start_factor_from_the_starts_it_sees() -> None:
    factors = []
    for seed in range(6):
        there_and_back = iter([plan_of(H, H, H, H) if i % 2 else plan_of(H) for i in range(1, 100)])
        policy = InProcess(always, lambda observation, plans=there_and_back: Decision(next(plans)))  # type: ignore[misc]
        scenario = busy(FIXED, seed, every(1.0, 3000))
        ran = run_of(scenario, policy, plan_of(H))
        factors.append(ran.run.belief.cost.start_slow / scenario.hidden.start_slow)
    assert np.mean(factors) == pytest.approx(1.0, abs=0.05)
    assert all(abs(factor - 1) < 0.15 for factor in factors)


def test_a_replay_runs_in_the_world_of_the_belief() -> None:
    believed = replace(COST, slow={"h100": 1.3}, start_slow=0.8)
    scenario = replace(plain(FIXED, LONG), cost=believed)
    assert scenario.truth.slow == {"h100": 1.3}
    assert scenario.truth.start_slow == 0.8
    ran = run_of(replace(scenario, requests=every(0.05, 8000, 600, 150)), InProcess(), plan_of(H, H))
    assert ran.run.belief.cost.slow["h100"] == pytest.approx(1.3, rel=0.01)


def test_speeds_are_those_of_the_data_sheet_and_not_of_the_world() -> None:
    mixed = Cluster("mixed", (FIXED.pools[0], ELASTIC.pools[0]), FIXED.gpus)

    def speeds(**slow: float) -> list[float]:
        world = world_of(scenario_of(mixed, LONG, replace(NOTHING_HIDDEN, slow=slow)), plan_of(H, A))
        events_until(world, 1.0)
        return [float(speed) for speed in world.simulation.state.replicas["speed"][:2]]

    assert speeds() == speeds(h100=1.2, a100=0.8)
    assert speeds()[1] < 1.0


def test_stragglers_are_the_same_gpus_whoever_runs_there() -> None:
    hidden = Hidden(straggler_share=0.5, straggler_slow=0.5, seed=3)
    world = world_of(scenario_of(FIXED, LONG, hidden), plan_of(H, H, H, H))
    weights = world.simulation.state.replicas["weights"][:4].tolist()
    assert len(set(weights)) > 1
    world.carry_out(Apply(1, plan_of(HB, HB, HB, HB), Move(drain_cap_s=0.0, capacity_kept=0.0)))
    events_until(world, 150.0)
    again = {placed.gpus: id for id, placed in world.fleet.replicas.items()}
    state = world.simulation.state.replicas["weights"]
    assert [int(state[world.fleet._slots[again[gpus]]]) for gpus in sorted(again)] == weights
