"""What holds for a control loop whatever it is told."""

from __future__ import annotations

from hypothesis import given, settings
from loop_scenes import CLUSTER, SHAPES, new_loop, tickets
from loop_stories import Story, envelopes, stories, tell

from autopoiesis.loop import (
    Apply,
    CancelPlan,
    CancelTransition,
    CapacityChanged,
    PlanFailed,
    PlanReady,
    Repair,
    RequestCapacity,
    StartPlan,
    TransitionDone,
    TransitionFailed,
)
from autopoiesis.loop.state import COUNTS
from autopoiesis.plan import Capacity, Envelope, ServingPlan, packable, repair, serving_count

MANY = settings(max_examples=200, deadline=None)


@MANY
@given(stories, envelopes)
def test_tickets_only_grow(story: Story, envelope: Envelope) -> None:
    given_out = [ticket for told in tell(story, new_loop(envelope=envelope)) for ticket in tickets([*told.commands])]
    assert given_out == list(range(1, len(given_out) + 1))


@MANY
@given(stories, envelopes)
def test_there_are_never_two_transitions_under_way(story: Story, envelope: Envelope) -> None:
    loop = new_loop(envelope=envelope)
    moving: int | None = None
    for told in tell(story, loop):
        if isinstance(told.event, TransitionDone | TransitionFailed) and told.event.ticket == moving:
            moving = None
        for command in told.commands:
            if isinstance(command, CancelTransition):
                assert command.ticket == moving
                moving = None
            elif isinstance(command, Apply | Repair):
                assert moving is None
                moving = command.ticket
        assert (moving is not None) == (loop.pending is not None)


@MANY
@given(stories, envelopes)
def test_there_is_never_more_than_one_planner_at_work(story: Story, envelope: Envelope) -> None:
    planning: int | None = None
    for told in tell(story, new_loop(envelope=envelope)):
        if isinstance(told.event, PlanReady | PlanFailed) and told.event.ticket == planning:
            planning = None
        for command in told.commands:
            if isinstance(command, CancelPlan):
                assert command.ticket == planning
                planning = None
            elif isinstance(command, StartPlan):
                assert planning is None
                planning = command.ticket


@MANY
@given(stories, envelopes)
def test_every_model_keeps_its_minimum_where_the_capacity_allows_it(story: Story, envelope: Envelope) -> None:
    loop = new_loop(envelope=envelope)

    def enough(plan: ServingPlan) -> bool:
        return serving_count(plan.replicas_of("m")) >= envelope.minimum_for("m")

    for _ in tell(story, loop):
        assert enough(loop.plan) or not enough(repair(loop.wanted, loop.capacity, envelope, ("m",), SHAPES))


@MANY
@given(stories, envelopes)
def test_whatever_is_applied_can_be_placed_on_what_is_there(story: Story, envelope: Envelope) -> None:
    loop = new_loop(envelope=envelope)
    for told in tell(story, loop):
        for command in told.commands:
            if isinstance(command, Apply | Repair):
                assert packable(command.plan.replicas, loop.capacity.nodes())
                assert command.plan == loop.plan == loop.pending


@MANY
@given(stories, envelopes)
def test_capacity_is_never_given_back_under_the_plan_in_force(story: Story, envelope: Envelope) -> None:
    loop = new_loop(envelope=envelope)
    requested = dict(loop.requested)
    for told in tell(story, loop):
        if isinstance(told.event, CapacityChanged) and told.event.pool in requested:
            requested[told.event.pool] = loop.requested[told.event.pool]
        for command in told.commands:
            if isinstance(command, RequestCapacity):
                pool = CLUSTER.pool(command.pool)
                assert pool.elastic
                assert pool.minimum <= command.gpus <= pool.maximum
                assert command.gpus % pool.gpus_per_node == 0
                assert command.gpus != requested[command.pool]
                if command.gpus < requested[command.pool]:
                    left: Capacity = loop.capacity.with_pool(
                        pool.name, min(command.gpus, loop.capacity.pool(pool.name).gpus)
                    )
                    assert loop.pending is None
                    assert packable(loop.plan.replicas, left.nodes())
                requested[command.pool] = command.gpus
        assert loop.requested == requested


@MANY
@given(stories, envelopes)
def test_the_counts_add_up(story: Story, envelope: Envelope) -> None:
    loop = new_loop(envelope=envelope)
    steps = list(tell(story, loop))
    counts = loop.counts
    assert set(counts) == set(COUNTS)
    assert counts["transitions"] == sum(isinstance(c, Apply) for told in steps for c in told.commands)
    assert counts["repairs"] == sum(isinstance(c, Repair) for told in steps for c in told.commands)
    assert counts["triggers"] == sum(isinstance(c, StartPlan) for told in steps for c in told.commands)
    assert counts["plans"] + counts["plan_failures"] <= counts["triggers"] <= counts["ticks"]
    assert counts["plans_rejected"] + counts["plans_repaired"] <= counts["plans"]
