from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopoiesis.errors import PlanError
from autopoiesis.plan import (
    Envelope,
    KeepServing,
    Node,
    Phase,
    Placed,
    Replica,
    Role,
    Rollout,
    ServingPlan,
    Start,
    Stop,
    packable,
    place,
    serving_count,
)

NODES = tuple(Node(f"h100/{i}", "h100", "h100", 4) for i in range(3))
SMALL, WIDE, LARGE = Replica("small", "h100"), Replica("small", "h100", 4), Replica("large", "h100", 2)
ENVELOPE = Envelope()


def plan_of(*replicas: Replica) -> ServingPlan:
    return ServingPlan(replicas)


def run(plan: ServingPlan, nodes: Sequence[Node] = NODES) -> tuple[Placed, ...]:
    placement = place(plan, nodes, ())
    return tuple(
        Placed(i, r, gpus) for i, (r, gpus) in enumerate(zip(placement.to_start, placement.targets, strict=True))
    )


class World:
    """Carries a rollout out, checks every action, and lets loads and drains end in any order."""

    def __init__(self, plan: ServingPlan, nodes: Sequence[Node] = NODES) -> None:
        self.placed = {p.id: p for p in run(plan, nodes)}
        self.status: dict[int, Phase] = dict.fromkeys(self.placed, "serving")
        self.nodes = nodes

    def rollout(self, plan: ServingPlan, capacity_kept: float = 0.5, envelope: Envelope = ENVELOPE) -> Rollout:
        return Rollout(
            plan,
            self.nodes,
            [self.placed[id] for id in self.status],
            self.status,
            capacity_kept=capacity_kept,
            envelope=envelope,
            next_id=max(self.placed, default=-1) + 1,
        )

    def gpus(self, model: str) -> int:
        """GPUs of the model that serve."""
        return sum(r.gpus for r in self.serving(model))

    def serving(self, model: str) -> list[Replica]:
        return [
            self.placed[id].replica
            for id, phase in self.status.items()
            if phase == "serving" and self.placed[id].replica.model == model
        ]

    def act(self, rollout: Rollout) -> list[Start | Stop | KeepServing]:
        actions = rollout.actions(self.status)
        for action in actions:
            if isinstance(action, Start):
                held = {gpu for id in self.status for gpu in self.placed[id].gpus}
                assert held.isdisjoint(action.gpus)
                assert action.id not in self.placed
                self.placed[action.id] = Placed(action.id, action.replica, action.gpus)
                self.status[action.id] = "loading"
            elif isinstance(action, KeepServing):
                assert self.status[action.id] == "draining"
                self.status[action.id] = "serving"
            elif self.status[action.id] == "loading":
                del self.status[action.id]
            else:
                assert self.status[action.id] == "serving"
                self.status[action.id] = "draining"
        return actions

    def moving(self) -> list[int]:
        return [id for id, phase in self.status.items() if phase != "serving"]

    def finish(self, id: int) -> None:
        """A load ends in serving, a drain in being gone."""
        if self.status[id] == "loading":
            self.status[id] = "serving"
        else:
            del self.status[id]

    def settle(self, rollout: Rollout) -> None:
        while self.act(rollout):
            pass

    def carry_out(self, rollout: Rollout, order: random.Random, steps: int = 1000) -> bool:
        """Whether the rollout was done within `steps`."""
        for _ in range(steps):
            self.settle(rollout)
            if rollout.done(self.status):
                return True
            self.finish(order.choice(self.moving()))  # fails if the rollout stands still
        return False


def test_nothing_is_done_where_the_plan_runs_already() -> None:
    world = World(plan_of(SMALL, LARGE))
    rollout = world.rollout(plan_of(LARGE, SMALL))
    assert rollout.actions(world.status) == []
    assert rollout.done(world.status)


def test_with_spare_gpus_the_old_replica_drains_only_when_the_new_one_serves() -> None:
    world = World(plan_of(SMALL))
    rollout = world.rollout(plan_of(WIDE))
    (start,) = world.act(rollout)
    assert isinstance(start, Start)
    assert world.act(rollout) == []
    world.finish(start.id)
    assert world.act(rollout) == [Stop(0)]
    assert not rollout.done(world.status)
    world.finish(0)
    assert rollout.done(world.status)


def test_what_is_surplus_drains_at_once_where_nothing_new_is_to_come() -> None:
    world = World(plan_of(SMALL, SMALL, LARGE))
    assert world.act(world.rollout(plan_of(SMALL, LARGE))) == [Stop(1)]


def test_one_models_surplus_does_not_wait_for_anothers_start() -> None:
    world = World(plan_of(SMALL, SMALL))
    actions = world.act(world.rollout(plan_of(SMALL, LARGE)))
    assert [type(action) for action in actions] == [Start, Stop]


def test_without_spare_gpus_a_batch_drains_that_keeps_the_asked_fraction() -> None:
    world = World(plan_of(*[SMALL] * 12))
    changed = Replica("small", "h100", batched_tokens=4096)
    rollout = world.rollout(plan_of(*[changed] * 12), capacity_kept=0.75)
    assert len(world.act(rollout)) == 3
    assert world.gpus("small") == 9
    assert world.act(rollout) == []


@pytest.mark.parametrize("minimum", [1, 3])
def test_the_envelopes_minimum_holds_where_it_is_more_than_the_fraction(minimum: int) -> None:
    world = World(plan_of(*[WIDE] * 3))
    rollout = world.rollout(plan_of(*[LARGE] * 2, *[SMALL] * 8), 0.0, Envelope(minimum_replicas_of={"small": minimum}))
    stops = world.act(rollout)
    # With a minimum of three, every drain breaks it: one goes, because otherwise nothing ever would.
    assert len(stops) == (2 if minimum == 1 else 1)


def test_a_single_replica_without_spare_gpus_is_drained_as_the_last_resort() -> None:
    nodes = NODES[:1]
    world = World(plan_of(WIDE), nodes)
    rollout = world.rollout(plan_of(*[SMALL] * 4), capacity_kept=1.0)
    assert world.act(rollout) == [Stop(0)]
    assert world.carry_out(rollout, random.Random(0))


def test_a_drain_that_has_begun_is_undone_when_the_replica_is_wanted_again() -> None:
    world = World(plan_of(SMALL, SMALL))
    away = world.rollout(plan_of(SMALL))
    assert world.act(away) == [Stop(1)]
    back = world.rollout(plan_of(SMALL, SMALL))
    assert world.act(back) == [KeepServing(1)]
    assert back.done(world.status)


def test_a_replica_still_loading_that_nobody_wants_any_more_is_stopped_at_once() -> None:
    world = World(plan_of(SMALL))
    (start,) = world.act(world.rollout(plan_of(SMALL, LARGE)))
    assert isinstance(start, Start)
    back = world.rollout(plan_of(SMALL))
    assert world.act(back) == [Stop(start.id)]
    assert back.done(world.status)


def test_a_stop_is_ordered_once_even_if_the_replica_lingers() -> None:
    world = World(plan_of(SMALL, SMALL))
    world.status[1] = "loading"
    rollout = world.rollout(plan_of(SMALL))
    assert rollout.actions(world.status) == [Stop(1)]
    assert rollout.actions(world.status) == []


def test_replans_in_a_row_do_not_lower_the_floor() -> None:
    world = World(plan_of(*[SMALL] * 12))
    for tokens in (1024, 2048, 4096):
        rollout = world.rollout(plan_of(*[Replica("small", "h100", batched_tokens=tokens)] * 12))
        world.settle(rollout)
        for id in [id for id in world.moving() if world.status[id] == "draining"]:
            world.finish(id)
        world.settle(rollout)
        assert world.gpus("small") == 6


def test_old_replicas_stay_when_the_new_one_of_their_model_is_lost() -> None:
    world = World(plan_of(SMALL, LARGE))
    rollout = world.rollout(plan_of(WIDE, LARGE, LARGE))
    starts = [action for action in world.act(rollout) if isinstance(action, Start)]
    wide = next(action.id for action in starts if action.replica == WIDE)
    del world.status[wide]
    world.settle(rollout)
    assert [p.id for p in rollout.lost(world.status)] == [wide]
    assert world.gpus("small") == 1
    for id in world.moving():
        world.finish(id)
    assert world.act(rollout) == []
    assert not rollout.done(world.status)


def test_a_plan_that_does_not_pack_cannot_be_rolled_out() -> None:
    with pytest.raises(PlanError):
        World(plan_of(SMALL)).rollout(plan_of(*[WIDE] * 4))


replicas = st.builds(
    Replica,
    model=st.sampled_from(["small", "large"]),
    gpu=st.just("h100"),
    tensor_parallel=st.sampled_from([1, 1, 2, 3, 4]),
    pipeline_parallel=st.sampled_from([1, 1, 1, 2]),
    role=st.sampled_from([Role.MIXED, Role.MIXED, Role.PREFILL, Role.DECODE]),
    batched_tokens=st.sampled_from([2048, 8192]),
)


@st.composite
def packable_plans(draw: st.DrawFn, nodes: Sequence[Node] = NODES) -> ServingPlan:
    chosen: list[Replica] = []
    for candidate in draw(st.lists(replicas, max_size=12)):
        if packable([*chosen, candidate], nodes):
            chosen.append(candidate)
    return ServingPlan(tuple(chosen))


envelopes = st.builds(Envelope, minimum_replicas=st.integers(0, 3))
fractions = st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0])


@settings(max_examples=150, deadline=None)
@given(
    targets=st.lists(packable_plans(), min_size=2, max_size=4),
    capacity_kept=fractions,
    envelope=envelopes,
    steps=st.integers(0, 8),
    seed=st.integers(0, 1000),
)
def test_a_rollout_ends_in_its_plan_even_where_earlier_ones_were_cut_short(
    targets: list[ServingPlan], capacity_kept: float, envelope: Envelope, steps: int, seed: int
) -> None:
    order = random.Random(seed)
    world = World(targets[0])
    for target in targets[1:-1]:
        world.carry_out(world.rollout(target, capacity_kept, envelope), order, steps)
    final = world.rollout(targets[-1], capacity_kept, envelope)
    assert world.carry_out(final, order)
    assert not world.moving()
    assert Counter(world.placed[id].replica for id in world.status) == Counter(targets[-1].replicas)
    assert final.started == len(final.new)
    for placed in final.placed(world.status):
        tp = placed.replica.tensor_parallel
        for stage in range(placed.replica.pipeline_parallel):
            assert len({node for node, _ in placed.gpus[stage * tp : (stage + 1) * tp]}) == 1


@settings(max_examples=150, deadline=None)
@given(
    before=packable_plans(),
    after=packable_plans(),
    capacity_kept=fractions,
    envelope=envelopes,
    seed=st.integers(0, 1000),
)
def test_a_floor_is_broken_only_where_waiting_could_not_help(
    before: ServingPlan, after: ServingPlan, capacity_kept: float, envelope: Envelope, seed: int
) -> None:
    order = random.Random(seed)
    world = World(before)
    rollout = world.rollout(after, capacity_kept, envelope)
    floors = {
        model: (
            min(envelope.minimum_for(model), serving_count(after.replicas_of(model))),
            min(
                math.ceil(capacity_kept * sum(r.gpus for r in before.replicas_of(model)) - 1e-9),
                sum(r.gpus for r in after.replicas_of(model)),
            ),
        )
        for model in ("small", "large")
    }
    while not rollout.done(world.status):
        was_moving = bool(world.moving())
        had = {model: world.serving(model) for model in floors}
        actions = world.act(rollout)
        for model, (least_replicas, least_gpus) in floors.items():
            has = world.serving(model)
            broken = serving_count(has) < least_replicas or world.gpus(model) < least_gpus
            if broken and len(has) < len(had[model]):
                assert not was_moving
                assert not any(isinstance(action, Start) for action in actions)
        if not actions:
            world.finish(order.choice(world.moving()))


@settings(max_examples=100, deadline=None)
@given(before=packable_plans(NODES[:2]), after=packable_plans(NODES[:2]), seed=st.integers(0, 1000))
def test_with_room_for_old_and_new_no_model_ever_serves_less_than_the_smaller_of_both(
    before: ServingPlan, after: ServingPlan, seed: int
) -> None:
    order = random.Random(seed)
    world = World(before, NODES[:2])
    world.nodes = NODES + tuple(Node(f"h100/{i}", "h100", "h100", 4) for i in range(3, 8))
    rollout = world.rollout(after)
    while not rollout.done(world.status):
        world.settle(rollout)
        for model in ("small", "large"):
            least = min(sum(r.gpus for r in plan.replicas_of(model)) for plan in (before, after))
            assert world.gpus(model) >= least
        if world.moving():
            world.finish(order.choice(world.moving()))


@settings(max_examples=50, deadline=None)
@given(before=packable_plans(), after=packable_plans(), lost=st.integers(0, 2), seed=st.integers(0, 1000))
def test_a_node_that_is_about_to_go_is_left_by_everything(
    before: ServingPlan, after: ServingPlan, lost: int, seed: int
) -> None:
    world = World(before)
    world.nodes = NODES[:lost] + NODES[lost + 1 :]
    if not packable(after.replicas, world.nodes):
        return
    assert world.carry_out(world.rollout(after), random.Random(seed))
    assert all(node != NODES[lost].id for id in world.status for node, _ in world.placed[id].gpus)
