"""What becomes of a decision: capacity requested and given back, plans overtaken by losses, the envelope's caps."""

from __future__ import annotations

import math

import pytest
from loop_scenes import CLUSTER, FULL, NEXT, START, A, H, Scene, new_loop, scene, with_replicas

from autopoiesis.errors import PlanError
from autopoiesis.loop import (
    Apply,
    CancelTransition,
    CapacityChanged,
    CapacityNotice,
    PlanReady,
    Repair,
    ReplicaLost,
    RequestCapacity,
    State,
    Tick,
    TransitionDone,
    TransitionFailed,
    TransitionProgress,
)
from autopoiesis.loop.decisions import bounded_requests
from autopoiesis.plan import Envelope, ServingPlan
from autopoiesis.policy import Decision
from autopoiesis.policy.interface import Move

WITH_CLOUD = with_replicas(START, A, A)


def on_the_cloud() -> Scene:
    """Still on two replicas of our own and two on the cloud, which was asked for them."""
    made = scene(State.IDLE, waiting=True)
    (apply,) = made.tell(CapacityChanged("cloud", 2))
    assert isinstance(apply, Apply)
    made.tell(TransitionDone(apply.ticket, 2, 0))
    assert made.loop.plan == WITH_CLOUD
    return made


def test_more_capacity_is_requested_at_once_and_less_when_the_transition_is_done() -> None:
    made = on_the_cloud()
    (apply,) = made.decide(Decision(START, capacity={"cloud": 0}))
    assert isinstance(apply, Apply)
    assert made.loop.requested["cloud"] == 2
    assert made.tell(TransitionDone(apply.ticket, 0, 2)) == [RequestCapacity("cloud", 0)]
    assert made.loop.requested["cloud"] == 0
    assert made.tell(CapacityChanged("cloud", 0)) == []


def test_capacity_that_nothing_uses_is_given_back_at_once() -> None:
    made = scene(State.IDLE)
    made.decide(Decision(START, capacity={"cloud": 4}))
    assert made.decide(Decision(START, capacity={"cloud": 2})) == [RequestCapacity("cloud", 2)]


def test_capacity_given_up_is_kept_while_a_repair_needs_it() -> None:
    made = on_the_cloud()
    made.start_planning()
    made.tell(CapacityChanged("own", 0))
    _, apply = made.tell(PlanReady(made.planning, Decision(START, capacity={"cloud": 0})))
    assert isinstance(apply, Apply)
    assert apply.plan == ServingPlan((A,))
    assert made.tell(TransitionDone(apply.ticket, 0, 1)) == []
    assert made.loop.requested["cloud"] == 2
    (back,) = made.tell(CapacityChanged("own", 4))
    assert isinstance(back, Apply)
    assert back.plan == START
    assert made.tell(TransitionDone(back.ticket, 2, 1)) == [RequestCapacity("cloud", 0)]


def test_a_later_decision_overrides_a_release_that_waits() -> None:
    made = on_the_cloud()
    made.decide(Decision(START, capacity={"cloud": 0}))
    _, again = made.decide(Decision(NEXT, capacity={"cloud": 2}))
    assert isinstance(again, Apply)
    assert made.tell(TransitionDone(again.ticket, 1, 2)) == []
    assert made.loop.requested["cloud"] == 2


def test_a_later_decision_that_leaves_a_pool_out_keeps_its_release() -> None:
    made = on_the_cloud()
    made.decide(Decision(START, capacity={"cloud": 0}))
    assert made.decide(Decision(WITH_CLOUD)) == []
    assert made.loop.counts["plans_rejected"] == 1
    _, again = made.decide(Decision(NEXT))
    assert isinstance(again, Apply)
    assert made.tell(TransitionDone(again.ticket, 1, 2)) == [RequestCapacity("cloud", 0)]


def test_a_failed_transition_keeps_the_capacity_that_still_serves() -> None:
    made = on_the_cloud()
    (apply,) = made.decide(Decision(START, capacity={"cloud": 0}))
    assert isinstance(apply, Apply)
    assert made.tell(TransitionFailed(apply.ticket, "a drain hung", WITH_CLOUD)) == []
    assert made.loop.requested["cloud"] == 2


def test_a_failed_transition_is_not_repaired_where_nothing_better_can_be_placed() -> None:
    made = scene(State.IDLE_MOVING)
    (cancel, repair) = made.tell(CapacityChanged("own", 0))
    assert cancel == CancelTransition(made.moving)
    assert isinstance(repair, Repair)
    assert made.tell(TransitionFailed(repair.ticket, "no GPU", ServingPlan(()))) == []
    assert made.loop.state is State.IDLE


def test_a_plan_that_lost_its_capacity_while_it_was_computed_is_repaired() -> None:
    made = scene(State.PLANNING)
    made.tell(CapacityChanged("own", 3))
    (apply,) = made.tell(PlanReady(made.planning, Decision(FULL)))
    assert isinstance(apply, Apply)
    assert apply.plan == NEXT
    assert made.loop.wanted == FULL
    assert made.loop.counts["plans_repaired"] == 1
    made.tell(TransitionDone(apply.ticket, 1, 0))
    (back,) = made.tell(CapacityChanged("own", 4))
    assert isinstance(back, Apply)
    assert back.plan == FULL


def test_a_plan_that_never_stood_is_refused_even_if_capacity_was_lost() -> None:
    made = scene(State.PLANNING)
    made.tell(CapacityChanged("own", 3))
    assert made.tell(PlanReady(made.planning, Decision(with_replicas(FULL, H)))) == []
    assert made.loop.counts["plans_rejected"] == 1
    assert made.loop.last_refusal is not None
    assert "needs 5 h100" in made.loop.last_refusal


def test_a_refused_plan_that_equals_the_present_one_still_hands_its_memory_on() -> None:
    made = on_the_cloud()
    made.decide(Decision(WITH_CLOUD, capacity={"cloud": 0}, memory={"seen": 1}))
    assert made.loop.counts["plans_rejected"] == 1
    assert made.loop.memory == {"seen": 1}


@pytest.mark.parametrize(
    ("move", "field"),
    [
        (Move(drain_cap_s=math.inf), "drain_cap_s"),
        (Move(drain_cap_s=-1.0), "drain_cap_s"),
        (Move(capacity_kept=math.nan), "capacity_kept"),
        (Move(capacity_kept=1.5), "capacity_kept"),
    ],
)
def test_a_move_that_cannot_be_carried_out_is_refused(move: Move, field: str) -> None:
    made = scene(State.IDLE)
    assert made.decide(Decision(NEXT, move=move)) == []
    assert field in (made.loop.last_refusal or "")


def test_the_move_of_a_decision_goes_with_its_plan_now_and_when_capacity_comes() -> None:
    made = scene(State.IDLE)
    move = Move(drain_cap_s=5.0, migrate=True)
    first = made.decide(Decision(with_replicas(NEXT, A), capacity={"cloud": 2}, move=move))
    assert [type(command) for command in first] == [RequestCapacity, Apply]
    second = made.tell(CapacityChanged("cloud", 2))
    assert [command.move for command in (*first, *second) if isinstance(command, Apply)] == [move, move]


def test_starts_of_policies_are_bounded_within_the_hour_and_repairs_are_not() -> None:
    made = scene(State.IDLE, loop=new_loop(envelope=Envelope(moves_per_hour=2)))

    def refused(decision: Decision) -> bool:
        before = made.loop.counts["plans_rejected"]
        made.decide(decision)
        return made.loop.counts["plans_rejected"] == before + 1

    (apply,) = made.decide(Decision(FULL))
    assert isinstance(apply, Apply)
    more = Decision(with_replicas(FULL, A), capacity={"cloud": 2})
    assert refused(more), "the starts under way count"
    made.tell(TransitionDone(apply.ticket, 2, 0))
    assert refused(more), "and so do those that were made"
    made.now_s = 1800.0
    (repair,) = made.tell(ReplicaLost(NEXT))
    assert isinstance(repair, Repair)
    made.tell(TransitionDone(repair.ticket, 1, 0))
    made.now_s = 3599.0
    assert refused(more)
    made.now_s = 3600.0
    assert not refused(Decision(with_replicas(FULL, A, A), capacity={"cloud": 2})), "a repair's starts do not"


def test_a_cancelled_transition_counts_the_starts_that_it_made() -> None:
    made = scene(State.IDLE, loop=new_loop(envelope=Envelope(moves_per_hour=3)))
    (apply,) = made.decide(Decision(FULL))
    assert isinstance(apply, Apply)
    made.tell(TransitionProgress(apply.ticket, 1, 2))
    _, back = made.decide(Decision(START))
    assert isinstance(back, Apply)
    made.tell(TransitionDone(back.ticket, 0, 1))
    assert made.decide(Decision(with_replicas(FULL, A), capacity={"cloud": 2})) == []
    assert "1 replicas were started" in (made.loop.last_refusal or "")


def test_notices_are_shown_until_their_time_has_passed() -> None:
    made = scene(State.IDLE)
    near, far = CapacityNotice("cloud", 0, 10.0), CapacityNotice("cloud", 2, 90.0)
    own = CapacityNotice("own", 3, 10.0)
    for notice in (near, far, own):
        made.tell(notice)
    made.now_s = 10.0
    made.tell(CapacityChanged("cloud", 0))
    assert made.loop.announced == [far, own]
    made.tell(Tick())
    assert made.loop.announced == [far]


def test_capacity_that_nobody_asked_for_counts_as_requested() -> None:
    made = scene(State.IDLE)
    made.tell(CapacityChanged("cloud", 4))
    assert made.loop.requested["cloud"] == 4
    (apply,) = made.decide(Decision(with_replicas(START, A, A, A)))
    assert isinstance(apply, Apply)


def test_a_part_of_a_node_is_no_capacity() -> None:
    made = scene(State.IDLE)
    made.tell(CapacityChanged("cloud", 3))
    assert made.loop.capacity.pool("cloud").gpus == 2


def test_a_beginning_that_does_not_stand_is_refused() -> None:
    with pytest.raises(PlanError, match="a100"):
        new_loop(plan=WITH_CLOUD)


NOTHING = {"own": 4, "cloud": 0}


@pytest.mark.parametrize(
    ("asked", "envelope", "gpus"),
    [
        ({}, Envelope(), 0),
        ({"cloud": 3}, Envelope(), 4),
        ({"cloud": 99}, Envelope(), 8),
        ({"cloud": -5}, Envelope(), 0),
        ({"own": 99}, Envelope(), 0),
        ({"cloud": 8}, Envelope(maximum_gpus=7), 2),
        ({"cloud": 8}, Envelope(maximum_cost_per_hour=12.0), 4),
        ({"cloud": 8}, Envelope(maximum_gpus=1), 0),
    ],
)
def test_requests_are_whole_nodes_within_pool_and_envelope(
    asked: dict[str, int], envelope: Envelope, gpus: int
) -> None:
    assert bounded_requests(CLUSTER, envelope, NOTHING, asked) == {"cloud": gpus}


def test_a_request_of_an_unknown_pool_is_refused_with_the_near_matches() -> None:
    with pytest.raises(PlanError, match="unknown pool 'clout'; did you mean cloud"):
        bounded_requests(CLUSTER, Envelope(), NOTHING, {"clout": 2})
