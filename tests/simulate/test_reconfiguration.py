"""Reconfiguration as it happens: nodes that come and go, weights that share what they come over, replicas that roll,
drain and die, and the requests in flight through all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from run_scenes import (
    COST,
    ELASTIC,
    FIXED,
    HARDWARE,
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

from autopoiesis.cluster import Cluster, Pool, Storage
from autopoiesis.cost import CostModel, Stage, StartTimes
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
)
from autopoiesis.plan import Envelope, Role, ServingPlan
from autopoiesis.policy.interface import Decision, Move, Observation
from autopoiesis.simulate import layout
from autopoiesis.simulate.fluid import FluidEstimator
from autopoiesis.simulate.scenario import NOTHING_HIDDEN, Scenario
from autopoiesis.simulate.supply import SpotLoss
from autopoiesis.simulate.world import SimulatedWorld
from autopoiesis.workload.status import Status

BYTES = COST.weight_bytes(MODEL)
START_S = COST.start_s(MODEL)
DRIVE_S, MEMORY_S, STORE_S = BYTES / 3.5e9, BYTES / 20e9, BYTES / 1e9
BESIDE_S = START_S - DRIVE_S
"""Everything of a start but its load."""
END_S = 2000.0
"""By then every request of these tests has ended, or has waited for a replica as long as one may."""
HB = replace(H, max_sequences=64)
LONG = every(0.5, 400, 500, 1500)
"""Some ten seconds each, so that there is always something in flight."""
EIGHT = Cluster("eight", (Pool("h100", "h100", 8, minimum=8, maximum=8, price_per_hour=2.0),), HARDWARE.gpus)
QUICK = Cluster("quick", (replace(ELASTIC.pools[0], start_s_p50=20.0, start_s_p90=20.0),), ELASTIC.gpus)
"""Nodes come 20 s after they are requested."""
AS_SHIPPED = CostModel(HARDWARE)
UNCACHED = CostModel(
    HARDWARE, start=StartTimes(storage={pool: Storage(page_cache_bytes=0) for pool in ("h100", "a100")})
)
"""Engines read past the page cache, so that what joined reads the object store and everybody else a drive."""


def loading(cluster: Cluster, cost: CostModel = AS_SHIPPED, **options: Any) -> Scenario:
    """A scenario in which weights come from where `cost` says."""
    return replace(plain(cluster, LONG, **options), cost=cost)


def ups(world: SimulatedWorld, until_s: float) -> dict[int, float]:
    """When each replica that loads now or later came up, by id."""
    came: dict[int, float] = {}
    serve = world.fleet.serve

    def serving(placed: Any) -> None:
        came[placed.id] = world.now_s
        serve(placed)

    world.fleet.serve = serving  # type: ignore[method-assign]
    events_until(world, until_s)
    world.fleet.serve = serve  # type: ignore[method-assign]
    return came


class Work:
    """What all replicas of a world have done in all their lives, those that are gone included."""

    def __init__(self, world: SimulatedWorld) -> None:
        self._simulation = world.simulation
        self._gone = {"generated_tokens": 0, "prompt_tokens": 0}
        stop = self._simulation.stop

        def stopping(slot: int, **options: Any) -> int:
            moved = stop(slot, **options)
            for name in self._gone:
                self._gone[name] += int(self._simulation.state.replicas[slot][name])
            return moved

        self._simulation.stop = stopping  # type: ignore[method-assign]

    def _total(self, name: str) -> int:
        slots = list(self._simulation.slots)
        return self._gone[name] + int(self._simulation.state.replicas[slots][name].sum())

    @property
    def generated(self) -> int:
        return self._total("generated_tokens")

    @property
    def prompted(self) -> int:
        """Tokens prefilled, those of recomputed sequences included."""
        return self._total("prompt_tokens")


def assert_all_answered_once(world: SimulatedWorld, work: Work) -> None:
    """Nobody is lost, and every output token was made by one step of one replica."""
    requests = requests_of(world)
    assert (requests["status"] == Status.COMPLETED).all()
    assert (requests["reason"] == layout.NOT_LOST).all()
    assert work.generated == requests["output"].sum()
    assert_books_are_closed(world)


def assert_books_are_closed(world: SimulatedWorld) -> None:
    """Every request has ended once, in order, as completed or as lost with a reason, and is in flight nowhere."""
    requests, state = requests_of(world), world.simulation.state
    assert (requests["done"] >= 0).all()
    assert sorted(state.finished.tolist()) == list(range(len(requests)))
    lost, completed = requests["status"] == Status.LOST, requests["status"] == Status.COMPLETED
    assert (lost | completed).all()
    assert ((requests["reason"] != layout.NOT_LOST) == lost).all()
    assert (requests["first"][completed] >= requests["arrival"][completed]).all()
    assert (requests["done"] >= requests["first"]).all()
    assert sum(in_flight(world)) == 0


# --- provisioning --------------------------------------------------------------------------------------------------


def test_a_node_is_provisioned_before_anything_starts_and_is_paid_from_then_on() -> None:
    world = world_of(plain(QUICK, LONG), plan_of(A, A))
    paid_usd = world.supply.books(0.0)[0]
    assert paid_usd == 0.0
    world.carry_out(RequestCapacity("a100", 4))
    assert events_until(world, 19.9) == []
    two_usd = world.supply.books(19.9)[0]
    assert two_usd == pytest.approx(2 * 19.9 / 3600)
    ((at_s, granted),) = events_until(world, 30.0)
    assert (at_s, granted) == (20.0, CapacityChanged("a100", 4))
    assert world.supply.books(30.0)[0] == pytest.approx((2 * 30.0 + 2 * 10.0) / 3600)


def test_a_replica_on_a_node_that_has_just_joined_waits_for_the_node_and_the_object_store() -> None:
    world = world_of(loading(QUICK), plan_of(A, A))
    world.carry_out(RequestCapacity("a100", 4))
    events_until(world, 20.0)
    world.carry_out(Apply(1, plan_of(A, A, A), Move()))
    assert ups(world, 100.0) == {2: pytest.approx(20.0 + BESIDE_S + STORE_S)}


# --- weights, by source and beside one another ---------------------------------------------------------------------


def test_a_lone_start_takes_the_seconds_of_the_data_sheet() -> None:
    world = world_of(loading(FIXED, UNCACHED), plan_of(H))
    world.carry_out(Apply(1, plan_of(H, H), Move()))
    assert ups(world, 100.0) == {1: pytest.approx(START_S)}


def test_starts_on_one_node_share_its_drive() -> None:
    world = world_of(loading(EIGHT, UNCACHED), plan_of(H))
    world.carry_out(Apply(1, plan_of(*[H] * 6), Move()))
    assert list(ups(world, 200.0).values()) == pytest.approx([BESIDE_S + 5 * DRIVE_S] * 5)


def test_a_node_that_has_loaded_the_model_before_reads_its_host_memory() -> None:
    world = world_of(loading(EIGHT), plan_of(H))
    world.carry_out(Apply(1, plan_of(*[H] * 6), Move()))
    assert list(ups(world, 200.0).values()) == pytest.approx([BESIDE_S + 5 * MEMORY_S] * 5)


def test_nodes_that_join_together_share_the_object_store() -> None:
    world = world_of(loading(QUICK), plan_of(A, A))
    world.carry_out(RequestCapacity("a100", 6))
    events_until(world, 20.0)
    world.carry_out(Apply(1, plan_of(A, A, replace(A, tensor_parallel=2), replace(A, tensor_parallel=2)), Move()))
    assert list(ups(world, 200.0).values()) == pytest.approx([20.0 + BESIDE_S + 2 * STORE_S] * 2)


def test_a_start_that_is_stopped_while_it_loads_leaves_its_share_to_the_others() -> None:
    world = world_of(loading(EIGHT, UNCACHED), plan_of(H))
    world.carry_out(Apply(1, plan_of(H, H, H), Move()))
    events_until(world, 14.0)
    world.carry_out(CancelTransition(1))
    world.carry_out(Apply(2, plan_of(H, H), Move()))
    # two seconds at half the drive: one second later than alone
    assert ups(world, 100.0) == {1: pytest.approx(START_S + 1.0)}


def test_a_node_that_is_lost_while_it_loads_leaves_its_share_to_the_others() -> None:
    loss = SpotLoss("a100", at_s=36.0, nodes=1, notice_s=0.0, recovery_s=1e6)
    spot = Cluster("spot", (replace(SPOT.pools[0], start_s_p50=20.0, start_s_p90=20.0),), SPOT.gpus)
    wide = replace(A, tensor_parallel=2)
    world = world_of(loading(spot, losses=(loss,)), plan_of(A, A))
    world.carry_out(RequestCapacity("a100", 6))
    events_until(world, 20.0)
    world.carry_out(Apply(1, plan_of(A, A, wide, wide), Move()))
    events_until(world, 36.0)
    assert phases(world) == {"serving": 2, "loading": 1}
    # loading began at 32 s: four seconds at half the object store
    assert list(ups(world, 200.0).values()) == [pytest.approx(20.0 + BESIDE_S + STORE_S + 2.0)]


@pytest.mark.parametrize("start_slow", [0.8, 1.0, 1.25])
def test_the_belief_tells_slow_starts_from_starts_that_share_a_drive(start_slow: float) -> None:
    """Seven loads on one drive take half a minute longer, and nobody concludes that starts are slow."""
    there_and_back = iter([plan_of(*[H] * 8) if i % 2 else plan_of(H) for i in range(1, 100)])
    hidden = replace(NOTHING_HIDDEN, start_slow=start_slow)
    scenario = replace(scenario_of(EIGHT, every(1.0, 3000), hidden, window_s=90.0), cost=UNCACHED)
    policy = InProcess(always, lambda observation: Decision(next(there_and_back)))
    ran = run_of(scenario, policy, plan_of(H))
    assert ran.run.belief.cost.start_slow == pytest.approx(start_slow, rel=0.02)


@pytest.mark.parametrize("cost", [UNCACHED, AS_SHIPPED], ids=["drive", "memory"])
@pytest.mark.parametrize("count", [2, 5, 8])
def test_a_policy_is_told_what_starts_beside_one_another_will_take(cost: CostModel, count: int) -> None:
    """With nothing hidden, the estimate of a transition is what it then takes."""
    told: list[float] = []

    def grow(observation: Observation) -> Decision:
        plan = plan_of(*[H] * count)
        told.append(FluidEstimator(cost.encode()).transition(observation, plan).seconds)
        return Decision(plan)

    ran = run_of(
        loading(EIGHT, cost), InProcess(lambda observation: len(observation.plan.replicas) == 1, grow), plan_of(H)
    )
    (past,) = ran.run.past
    assert told == [pytest.approx(past.seconds)]
    assert told[0] == pytest.approx(BESIDE_S + (count - 1) * (DRIVE_S if cost is UNCACHED else MEMORY_S))


def test_a_policy_is_told_that_a_new_node_fetches_from_the_object_store() -> None:
    told: list[float] = []

    def grow(observation: Observation) -> Decision:
        plan = plan_of(A, A, A, A)
        told.append(FluidEstimator(AS_SHIPPED.encode()).transition(observation, plan).seconds)
        return Decision(plan, {"a100": 4})

    policy = InProcess(lambda observation: len(observation.plan.replicas) == 2, grow, plan_s=0.1)
    ran = run_of(loading(QUICK), policy, plan_of(A, A))
    done = next(record.now_s for record in ran.log.records if isinstance(record.event, TransitionDone))
    # told at the first point, a tenth of a second before the nodes were requested
    assert 60.0 + 0.1 + told[0] == pytest.approx(done, abs=0.01)
    # once for both replicas of the node, the second of which then reads its memory
    assert told[0] == pytest.approx(20.0 + BESIDE_S + STORE_S + MEMORY_S)


# --- graph capture and warm-up -------------------------------------------------------------------------------------


def test_a_replica_captures_its_graphs_and_warms_up_before_it_gets_a_request() -> None:
    world = world_of(plain(FIXED, LONG), plan_of(H))
    world.carry_out(Apply(1, plan_of(H, H), Move()))
    stages = []
    for now_s in (0.1, 11.9, 12.1, 12.0 + DRIVE_S - 0.1, 12.0 + DRIVE_S + 0.1, START_S - 0.1):
        events_until(world, now_s)
        stages.append(world.fleet.stage(1))
        assert phases(world) == {"serving": 1, "loading": 1}
        assert in_flight(world)[1] == 0
    assert stages == [*[Stage.PROCESS] * 2, *[Stage.LOADING] * 2, *[Stage.WARMING] * 2]
    events_until(world, START_S + 2.0)
    assert in_flight(world)[1] > 0


@pytest.mark.parametrize("given_up_s", [5.0, 13.0, 25.0], ids=["process", "loading", "warming"])
def test_a_start_can_be_given_up_in_any_stage(given_up_s: float) -> None:
    world = world_of(plain(FIXED, LONG), plan_of(H))
    world.carry_out(Apply(1, plan_of(H, H), Move()))
    events_until(world, given_up_s)
    world.carry_out(CancelTransition(1))
    world.carry_out(Apply(2, plan_of(H), Move()))
    assert [event for _, event in events_until(world, 100.0)] == [TransitionDone(2, 0, 1)]
    assert phases(world) == {"serving": 1}
    assert world.take_measurements()[1] == []


# --- rolling under the envelope ------------------------------------------------------------------------------------


@pytest.mark.parametrize("minimum", [1, 2, 3])
def test_without_a_spare_gpu_a_transition_rolls_and_never_leaves_fewer_than_the_envelope(minimum: int) -> None:
    scenario = plain(FIXED, LONG, envelope=Envelope(minimum_replicas=minimum))
    world = world_of(scenario, plan_of(H, H, H, H))
    work = Work(world)
    world.carry_out(Apply(1, plan_of(HB, HB, HB, HB), Move(drain_cap_s=2.0, capacity_kept=0.0)))
    done, least = [], 4
    for step in range(1, 4000):
        done += [event for _, event in events_until(world, step * 0.1)]
        least = min(least, phases(world)["serving"])
    assert least == minimum
    assert done[-1] == TransitionDone(1, 4, 4)
    assert world.fleet.running_plan().same_replicas(plan_of(HB, HB, HB, HB))
    events_until(world, END_S)
    assert_all_answered_once(world, work)


# --- draining, migration, recomputation ----------------------------------------------------------------------------


def moved(migrate: bool, cap_s: float) -> tuple[SimulatedWorld, Work]:
    """One of two replicas leaves at 20 s; the world when everybody has been served, and what was done for it."""
    world = world_of(plain(FIXED, LONG), plan_of(H, H))
    work = Work(world)
    events_until(world, 20.0)
    world.carry_out(Apply(1, plan_of(H), Move(drain_cap_s=cap_s, migrate=migrate)))
    events_until(world, END_S)
    return world, work


def test_a_drain_that_may_take_its_time_moves_nobody() -> None:
    world, work = moved(migrate=False, cap_s=60.0)
    assert world.fleet.continued == 0
    assert work.prompted == requests_of(world)["input"].sum()
    assert_all_answered_once(world, work)


def test_a_migrated_request_keeps_its_tokens_and_its_cache() -> None:
    world, work = moved(migrate=True, cap_s=2.0)
    assert world.fleet.continued > 5
    # every prompt was prefilled once
    assert work.prompted == requests_of(world)["input"].sum()
    assert_all_answered_once(world, work)


def test_a_recomputed_request_keeps_its_tokens_and_reads_them_again_with_its_prompt() -> None:
    world, work = moved(migrate=False, cap_s=2.0)
    again = work.prompted - int(requests_of(world)["input"].sum())
    # prompt and answer so far are prefilled again; the answer so far is not made again
    assert again > 500 * world.fleet.continued > 0
    assert_all_answered_once(world, work)


def test_recomputing_takes_the_reader_no_token_back() -> None:
    """The first token of whoever was decoding had come before the move, and stays where it was."""
    for migrate in (False, True):
        world = world_of(plain(FIXED, LONG), plan_of(H, H))
        events_until(world, 20.0)
        requests = requests_of(world)
        decoding = np.flatnonzero((requests["slot"] == 1) & (requests["done"] < 0) & (requests["first"] >= 0))
        first = requests["first"][decoding].copy()
        assert len(decoding) > 5
        world.carry_out(Apply(1, plan_of(H), Move(drain_cap_s=0.0, migrate=migrate)))
        events_until(world, END_S)
        assert (requests_of(world)["first"][decoding] == first).all()


# --- spot notice and kill ------------------------------------------------------------------------------------------

LOSS = SpotLoss("a100", at_s=60.0, nodes=1, notice_s=40.0, recovery_s=1e6)


def test_a_noticed_loss_is_drained_away_from_before_it_kills() -> None:
    world = world_of(plain(SPOT, LONG, losses=(LOSS,)), plan_of(A, A, A, A), elastic(4, SPOT))
    work = Work(world)
    assert events_until(world, 30.0) == [(20.0, CapacityNotice("a100", 2, 60.0))]
    assert [event for _, event in events_until(world, 61.0)] == [CapacityChanged("a100", 2), ReplicaLost(plan_of(A, A))]
    assert world.fleet.continued == 0
    events_until(world, END_S)
    assert_all_answered_once(world, work)


def test_a_kill_without_notice_takes_the_caches_but_no_request_and_no_token() -> None:
    sudden = replace(LOSS, notice_s=0.0)
    world = world_of(plain(SPOT, LONG, losses=(sudden,)), plan_of(A, A, A, A), elastic(4, SPOT))
    work = Work(world)
    events_until(world, 61.0)
    assert world.fleet.continued > 5
    events_until(world, END_S)
    assert work.prompted > requests_of(world)["input"].sum()
    assert_all_answered_once(world, work)


def test_a_kill_that_leaves_nobody_loses_what_waits_too_long_and_says_why() -> None:
    bare = Cluster("bare", (replace(SPOT.pools[0], minimum=0),), SPOT.gpus)
    world = world_of(plain(bare, LONG, losses=(replace(LOSS, nodes=3),)), plan_of(A, A), elastic(2, bare))
    work = Work(world)
    events_until(world, END_S)
    requests = requests_of(world)
    lost = requests["status"] == Status.LOST
    assert 0 < lost.sum() < len(requests)
    assert (requests["reason"][lost] == layout.LOST_UNSERVED).all()
    assert ((requests["done"] - requests["arrival"])[lost] >= layout.UNSERVED_LIMIT).all()
    assert_books_are_closed(world)
    # what the lost ones had been given before is all that was made for nobody
    assert work.generated == requests["output"][~lost].sum() + requests["generated"][lost].sum()


# --- nodes that join late ------------------------------------------------------------------------------------------


def test_a_node_that_joins_late_gets_what_the_last_decision_wanted_for_it() -> None:
    """One node comes soon, one late: the plan is applied to what is there, and again when the rest has come."""
    scenario = replace(plain(ELASTIC, every(1.0, 400, 500, 300)), window_s=20.0)
    policy = InProcess(
        lambda observation: len(observation.plan.replicas) == 2 and not observation.moving,
        lambda observation: Decision(plan_of(*[A] * 6), {"a100": 6}),
        plan_s=0.1,
    )
    ran = run_of(scenario, policy, plan_of(A, A))
    grants = [record.now_s for record in ran.log.records if isinstance(record.event, CapacityChanged)]
    assert len(grants) == 2
    assert grants[0] < grants[1]
    applied = [(record.now_s, command) for record in ran.log.records for command in record.commands]
    targets = [(at_s, len(command.plan.replicas)) for at_s, command in applied if isinstance(command, Apply)]
    assert [(grants[0], 4), (grants[1], 6)] == targets[-2:]
    assert ran.run.world.fleet.running_plan().same_replicas(plan_of(*[A] * 6))
    assert ran.outcome.books is not None
    assert ran.outcome.books.completed == 400


# --- a decision during a transition --------------------------------------------------------------------------------


def test_a_decision_during_a_transition_goes_on_with_what_both_want_and_gives_up_the_rest() -> None:
    world = world_of(loading(EIGHT, UNCACHED), plan_of(H, H))
    work = Work(world)
    world.carry_out(Apply(1, plan_of(H, H, H, HB, HB), Move()))
    events_until(world, 14.0)
    assert phases(world) == {"serving": 2, "loading": 3}
    world.carry_out(CancelTransition(1))
    world.carry_out(Apply(2, plan_of(H, H, H, replace(H, tensor_parallel=2)), Move()))
    came = ups(world, 100.0)
    kept, fresh = sorted(came)
    # the one both want did not begin anew: its drive had two others on it for two seconds
    assert came[kept] == pytest.approx(START_S + 2.0 * (1 - 1 / 3))
    assert came[fresh] == pytest.approx(14.0 + START_S)
    assert world._transit is None
    events_until(world, END_S)
    assert_all_answered_once(world, work)


def test_a_decision_while_the_old_replica_drains_may_keep_it() -> None:
    world = world_of(plain(FIXED, LONG), plan_of(H, H))
    work = Work(world)
    events_until(world, 20.0)
    world.carry_out(Apply(1, plan_of(H), Move(drain_cap_s=30.0)))
    events_until(world, 22.0)
    assert phases(world) == {"serving": 1, "draining": 1}
    world.carry_out(CancelTransition(1))
    world.carry_out(Apply(2, plan_of(H, H), Move()))
    assert [event for _, event in events_until(world, 23.0)] == [TransitionDone(2, 0, 0)]
    events_until(world, END_S)
    assert world.fleet.continued == 0
    assert_all_answered_once(world, work)


def test_the_loop_applies_a_decision_that_comes_while_replicas_load() -> None:
    """Every 10 s another plan, though a start takes half a minute; the last one stands, and nobody was lost."""
    plans = iter([plan_of(H, H), plan_of(H, HB), plan_of(H, HB, HB), *[plan_of(HB, HB, HB)] * 100])
    scenario = replace(loading(FIXED, UNCACHED), window_s=10.0)
    ran = run_of(scenario, InProcess(always, lambda observation: Decision(next(plans)), plan_s=0.1), plan_of(H))
    assert len(ran.commands(CancelTransition)) >= 2
    assert ran.run.world.fleet.running_plan().same_replicas(plan_of(HB, HB, HB))
    assert ran.outcome.books is not None
    assert ran.outcome.books.completed == 400


# --- the law -------------------------------------------------------------------------------------------------------

B = replace(A, max_sequences=32)
PLANS = [
    plan_of(A),
    plan_of(A, A),
    plan_of(B, A, A),
    plan_of(B, B, A, A),
    plan_of(replace(A, tensor_parallel=2), B),
    plan_of(replace(A, role=Role.PREFILL), replace(A, role=Role.DECODE)),
]
moves = st.builds(
    Move,
    drain_cap_s=st.sampled_from([0.0, 1.0, 8.0, 60.0]),
    migrate=st.booleans(),
    capacity_kept=st.sampled_from([0.0, 0.5, 1.0]),
)
decisions = st.lists(st.tuples(st.floats(0.5, 40.0), st.sampled_from(PLANS), moves), min_size=1, max_size=6)
kills = st.lists(
    st.builds(
        SpotLoss,
        pool=st.just("a100"),
        at_s=st.floats(5.0, 150.0),
        nodes=st.integers(1, 2),
        notice_s=st.sampled_from([0.0, 10.0, 60.0]),
        recovery_s=st.just(10.0),
    ),
    max_size=2,
)


def carry_out_story(
    script: list[tuple[float, ServingPlan, Move]],
    losses: list[SpotLoss],
    look: Callable[[SimulatedWorld], None],
    exact: bool = False,
) -> tuple[SimulatedWorld, Work]:
    """Decisions, each so long after the one before, on four GPUs of which two may be lost; after a loss, and where a
    decision finds no room, what is left is repaired to one replica, as the loop would. The world at its end."""
    scenario = loading(SPOT, losses=tuple(losses))
    scenario = replace(scenario, requests=every(0.4, 150, 700, 300))
    world = world_of(scenario, plan_of(A, A), elastic(4, SPOT))
    world.simulation.state.scalars[layout.EXACT] = int(exact)
    world.carry_out(RequestCapacity("a100", 4))
    work = Work(world)
    ticket, moving = 0, 0

    def apply(command: Callable[[int], Apply | Repair]) -> None:
        nonlocal ticket, moving
        ticket += 1
        if moving:
            world.carry_out(CancelTransition(moving))
        moving = ticket
        world.carry_out(command(ticket))

    def serve(until_s: float) -> None:
        nonlocal moving
        while events := world.advance(until_s):
            look(world)
            for event in events:
                match event:
                    case TransitionDone(ticket=done) if done == moving:
                        moving = 0
                    case TransitionFailed(ticket=failed) if failed == moving:
                        # what a transition that was given up for this one has left may not be able to serve
                        moving = 0
                        apply(lambda ticket: Repair(ticket, plan_of(A)))
                    case ReplicaLost():
                        apply(lambda ticket: Repair(ticket, plan_of(A)))

    at_s = 0.0
    for after_s, plan, move in script:
        at_s += after_s
        serve(at_s)
        apply(lambda ticket, plan=plan, move=move: Apply(ticket, plan, move))  # type: ignore[misc]
    serve(END_S)
    return world, work


# seeds of a story have no smaller examples worth the time
@settings(max_examples=40, deadline=None, phases=(Phase.explicit, Phase.generate))
@example(
    # between the two halves of a disaggregated pair comes a decision that finds no room
    [(20.0, PLANS[-1], Move(drain_cap_s=8.0)), (33.0, PLANS[3], Move())],
    [SpotLoss("a100", at_s=5.0, nodes=1, notice_s=0.0, recovery_s=1e6)],
)
@given(decisions, kills)
def test_requests_in_flight_survive_or_are_lost_with_a_reason(
    script: list[tuple[float, ServingPlan, Move]], losses: list[SpotLoss]
) -> None:
    def look(world: SimulatedWorld) -> None:
        requests = requests_of(world)
        there = (requests["arrival"] <= world.simulation.state.scalars[layout.NOW]) & (requests["done"] < 0)
        # what is at a replica is at one that is there
        assert set(requests["slot"][there].tolist()) <= {-1, *world.simulation.slots}

    world, work = carry_out_story(script, losses, look)
    assert_books_are_closed(world)
    requests = requests_of(world)
    lost = requests["status"] == Status.LOST
    assert work.generated == requests["output"][~lost].sum() + requests["generated"][lost].sum()
    assert work.prompted >= requests["input"][~lost].sum()
    # somebody that can answer is there, or comes within the time that a request waits
    assert not lost.any()


@settings(max_examples=15, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(decisions, kills)
def test_a_story_told_twice_is_the_same(script: list[tuple[float, ServingPlan, Move]], losses: list[SpotLoss]) -> None:
    def told() -> tuple[bytes, list[str]]:
        seen: list[str] = []
        world, _ = carry_out_story(script, losses, lambda world: seen.append(f"{world.now_s!r} {phases(world)!r}"))
        requests = requests_of(world)
        return requests["done"].tobytes() + requests["first"].tobytes() + requests["slot"].tobytes(), seen

    assert told() == told()


@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(decisions, kills)
def test_steps_taken_one_by_one_tell_the_same_story(
    script: list[tuple[float, ServingPlan, Move]], losses: list[SpotLoss]
) -> None:
    def told(exact: bool) -> tuple[bytes, list[str]]:
        seen: list[str] = []
        world, _ = carry_out_story(
            script, losses, lambda world: seen.append(f"{world.now_s!r} {phases(world)!r}"), exact
        )
        # `finish` and `chunk` say how the last run was cut, everything else what happened
        names = [name for name in requests_of(world).dtype.names or () if name not in ("finish", "chunk", "left")]
        return b"".join(requests_of(world)[name].tobytes() for name in names), seen

    assert told(False) == told(True)
