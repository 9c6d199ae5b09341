"""Random stories: sequences of events that a driver might send, answers to what the loop asked among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hypothesis import strategies as st
from loop_scenes import CLOUD, OWN, UNKNOWN_SHAPE, A, H

from autopoiesis.loop import (
    Apply,
    AskTrigger,
    CapacityChanged,
    CapacityNotice,
    Command,
    ControlLoop,
    Event,
    PlanFailed,
    PlanReady,
    PolicySwapped,
    Repair,
    ReplicaLost,
    StartPlan,
    Tick,
    TransitionDone,
    TransitionFailed,
    TransitionProgress,
    TriggerAnswered,
)
from autopoiesis.plan import ClassShares, Envelope, ServingPlan
from autopoiesis.policy import Decision
from autopoiesis.policy.interface import Move

Story = list[tuple[float, tuple[Event, ...]]]
"""Seconds since the last step, and the events at that instant."""

LATEST = -1
"""Stands for the ticket last given to a question or transition of the event's kind."""

plans = st.one_of(
    st.builds(lambda h, a: ServingPlan((H,) * h + (A,) * a), st.integers(0, 5), st.integers(0, 9)),
    st.just(UNKNOWN_SHAPE),
    st.just(ServingPlan((H, A), (ClassShares("m/<512", (0.25, 0.75)),))),
    st.just(ServingPlan((H, A), (ClassShares("m/<512", (0.25, 0.25)),))),
)
memories = st.dictionaries(st.sampled_from("abc"), st.one_of(st.integers(), st.floats(allow_nan=False), st.text()))
decisions = st.builds(
    Decision,
    plan=plans,
    capacity=st.dictionaries(st.sampled_from(["cloud", "own", "moon"]), st.integers(-3, 12), max_size=2)
    | st.fixed_dictionaries({"cloud": st.integers(0, 8)}),
    move=st.builds(Move, drain_cap_s=st.sampled_from([0.0, 30.0, 1.0 / 3.0, float("inf"), -1.0])) | st.just(Move()),
    memory=st.none() | memories,
)
asked = st.sampled_from([LATEST, LATEST, LATEST, LATEST, 0, 3])
pools = st.sampled_from([("own", OWN), ("cloud", CLOUD)]).flatmap(
    lambda named: st.tuples(st.just(named[0]), st.integers(0, named[1].maximum + 1))
)
capacities: st.SearchStrategy[Event] = pools.map(lambda pool: CapacityChanged(*pool))
notices: st.SearchStrategy[Event] = st.tuples(pools, st.floats(0, 2000)).map(
    lambda noticed: CapacityNotice(*noticed[0], at_s=noticed[1])
)
events: st.SearchStrategy[Event] = st.one_of(
    st.just(Tick()),
    st.builds(TriggerAnswered, ticket=asked, reschedule=st.sampled_from([True, True, True, False, None])),
    st.builds(PlanReady, ticket=asked, decision=decisions),
    st.builds(PlanReady, ticket=asked, decision=decisions),
    st.builds(PlanFailed, ticket=asked, reason=st.sampled_from(["deadline", "raised ValueError"])),
    st.builds(TransitionProgress, ticket=asked, started=st.integers(0, 4), to_start=st.integers(0, 4)),
    st.builds(TransitionDone, ticket=asked, started=st.integers(0, 4), stopped=st.integers(0, 4)),
    st.builds(TransitionFailed, ticket=asked, reason=st.just("a start failed"), plan=plans),
    notices,
    capacities,
    capacities,
    st.just(CapacityChanged("moon", 4)),
    st.builds(ReplicaLost, plan=plans),
    st.builds(PolicySwapped, policy=st.just("b2"), memory=memories),
)
a_round = st.tuples(
    st.just(Tick()), st.just(TriggerAnswered(LATEST, True)), st.builds(PlanReady, st.just(LATEST), decisions)
)
stories = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0, 1.0, 10.0, 31.0, 1000.0]), a_round | st.tuples(events)), max_size=25
)  # fmt: skip

envelopes = st.sampled_from(
    [
        Envelope(),
        Envelope(minimum_replicas=2),
        Envelope(maximum_gpus=6),
        Envelope(maximum_cost_per_hour=11.0, moves_per_hour=3),
    ]
)


@dataclass(frozen=True, slots=True)
class Told:
    """One step of a story."""

    now_s: float
    event: Event
    commands: tuple[Command, ...]


def tell(story: Story, loop: ControlLoop) -> Iterator[Told]:
    """Feed a story to a loop step by step, with real tickets where the story says LATEST."""
    now_s = 0.0
    latest = {TriggerAnswered: 0, PlanReady: 0, TransitionDone: 0}
    for wait_s, at_once in story:
        now_s += wait_s
        for event in at_once:
            match event:
                case TriggerAnswered(ticket=-1):
                    event = replace(event, ticket=latest[TriggerAnswered])
                case PlanReady(ticket=-1) | PlanFailed(ticket=-1):
                    event = replace(event, ticket=latest[PlanReady])
                case TransitionProgress(ticket=-1) | TransitionDone(ticket=-1) | TransitionFailed(ticket=-1):
                    event = replace(event, ticket=latest[TransitionDone])
            commands = loop.step(event, now_s)
            for command in commands:
                match command:
                    case AskTrigger(ticket=ticket):
                        latest[TriggerAnswered] = ticket
                    case StartPlan(ticket=ticket):
                        latest[PlanReady] = ticket
                    case Apply(ticket=ticket) | Repair(ticket=ticket):
                        latest[TransitionDone] = ticket
            yield Told(now_s, event, tuple(commands))
