from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopoiesis.errors import PlanError
from autopoiesis.plan import Node, Placed, Placement, Replica, ServingPlan, assign_gpus, free_gpus, packable, place

NODES = tuple(Node(f"{gpu}/{i}", gpu, gpu, 4) for gpu in ("h100", "a100") for i in range(3))


def replica(tp: int = 1, pp: int = 1, model: str = "small", gpu: str = "h100") -> Replica:
    return Replica(model, gpu, tp, pp)


replicas = st.builds(
    replica,
    tp=st.sampled_from([1, 1, 2, 3, 4]),
    pp=st.sampled_from([1, 1, 2]),
    model=st.sampled_from(["small", "large"]),
    gpu=st.sampled_from(["h100", "h100", "a100"]),
)


@st.composite
def packable_plans(draw: st.DrawFn) -> ServingPlan:
    chosen: list[Replica] = []
    for candidate in draw(st.lists(replicas, max_size=14)):
        if packable([*chosen, candidate], NODES):
            chosen.append(candidate)
    return ServingPlan(tuple(chosen))


def run(plan: ServingPlan, first_id: int = 0) -> tuple[Placed, ...]:
    placement = place(plan, NODES, ())
    return tuple(
        Placed(first_id + i, r, gpus)
        for i, (r, gpus) in enumerate(zip(placement.to_start, placement.targets, strict=True))
    )


def assert_sound(placement: Placement, nodes: tuple[Node, ...]) -> None:
    kinds = {node.id: (node.gpu, node.gpus) for node in nodes}
    placed = [(p.replica, p.gpus) for p in placement.kept]
    placed += zip(placement.to_start, placement.targets, strict=True)
    used = [gpu for _, gpus in placed for gpu in gpus]
    assert len(set(used)) == len(used)
    for r, gpus in placed:
        assert len(gpus) == r.gpus
        for node, index in gpus:
            assert kinds[node][0] == r.gpu
            assert 0 <= index < kinds[node][1]
        for stage in range(r.pipeline_parallel):
            group = gpus[stage * r.tensor_parallel : (stage + 1) * r.tensor_parallel]
            assert len({node for node, _ in group}) == 1


def test_the_fullest_node_that_still_fits_is_preferred() -> None:
    free = {NODES[0]: [0, 1, 2, 3], NODES[1]: [2, 3], NODES[2]: [1]}
    assert assign_gpus(replica(2), free) == (("h100/1", 2), ("h100/1", 3))
    assert assign_gpus(replica(1), free) == (("h100/2", 1),)
    assert assign_gpus(replica(3), free) == (("h100/0", 0), ("h100/0", 1), ("h100/0", 2))


def test_a_tensor_parallel_group_never_spans_nodes() -> None:
    assert assign_gpus(replica(4), {NODES[0]: [0, 1, 2], NODES[1]: [0]}) is None


def test_pipeline_stages_share_a_node_if_one_has_room_and_else_spread() -> None:
    assert assign_gpus(replica(2, pp=2), {NODES[0]: [0, 1], NODES[1]: [0, 1, 2, 3]}) == tuple(
        ("h100/1", i) for i in range(4)
    )
    spread = assign_gpus(replica(2, pp=2), {NODES[0]: [0, 1, 2], NODES[1]: [2, 3]})
    assert spread == (("h100/1", 2), ("h100/1", 3), ("h100/0", 0), ("h100/0", 1))


def test_a_replica_goes_only_to_its_own_kind_of_gpu() -> None:
    assert assign_gpus(replica(1, gpu="l40s"), free_gpus(NODES, ())) is None


def test_gpus_that_nobody_holds_are_taken_before_those_that_somebody_has_to_leave() -> None:
    running = (Placed(7, replica(2), (("h100/0", 0), ("h100/0", 1))),)
    placement = place(ServingPlan((replica(1),)), NODES, running)
    assert placement.to_stop == running
    assert not set(placement.targets[0]) & set(running[0].gpus)


def test_a_running_replica_that_matches_exactly_is_kept_and_equal_surplus_leaves() -> None:
    running = run(ServingPlan((replica(1), replica(1), replica(2))))
    placement = place(ServingPlan((replica(4), replica(1))), NODES, running)
    assert [p.id for p in placement.kept] == [0]
    assert [p.id for p in placement.to_stop] == [1, 2]
    assert placement.to_start == (replica(4),)


def test_a_replica_on_a_lost_node_is_not_kept() -> None:
    running = (Placed(0, replica(2, pp=2), (("h100/0", 0), ("h100/0", 1), ("h100/2", 0), ("h100/2", 1))),)
    placement = place(ServingPlan((replica(2, pp=2),)), NODES[:2], running)
    assert placement.kept == ()
    assert placement.to_stop == running


def test_kept_replicas_that_fragment_the_nodes_make_way_and_no_more_of_them_than_needed() -> None:
    running = tuple(Placed(i, replica(1), ((f"h100/{i}", 0),)) for i in range(3))
    plan = ServingPlan((replica(1), replica(1), replica(1), replica(4), replica(4)))
    placement = place(plan, NODES, running)
    assert_sound(placement, NODES)
    assert len(placement.kept) == 1


def test_of_equal_replicas_the_one_in_the_way_is_not_the_one_that_is_kept() -> None:
    running = (Placed(0, replica(1), (("h100/0", 0),)), Placed(1, replica(1), (("h100/1", 0),)))
    nodes = NODES[:2]
    plan = ServingPlan((replica(1), replica(4), replica(2)))
    placement = place(plan, nodes, running)
    assert len(placement.kept) == 1
    assert_sound(placement, nodes)


def test_a_plan_that_does_not_pack_is_refused() -> None:
    plan = ServingPlan((replica(3),) * 4)
    assert not packable(plan.replicas, NODES)
    with pytest.raises(PlanError, match="does not pack"):
        place(plan, NODES, ())


@settings(max_examples=150, deadline=None)
@given(before=packable_plans(), after=packable_plans(), lost=st.sets(st.integers(0, 5), max_size=2))
def test_every_packable_plan_is_placed_whatever_runs(before: ServingPlan, after: ServingPlan, lost: set[int]) -> None:
    nodes = tuple(node for i, node in enumerate(NODES) if i not in lost)
    running = run(before)
    if not packable(after.replicas, nodes):
        with pytest.raises(PlanError):
            place(after, nodes, [p for p in running if p.id < 0])
        return
    placement = place(after, nodes, running)
    assert_sound(placement, nodes)
    assert Counter([p.replica for p in placement.kept]) + Counter(placement.to_start) == Counter(after.replicas)
    assert sorted(p.id for p in placement.kept + placement.to_stop) == [p.id for p in running]
    assert place(after, nodes, running) == placement


@settings(max_examples=50, deadline=None)
@given(plan=packable_plans())
def test_a_plan_that_runs_already_changes_nothing(plan: ServingPlan) -> None:
    placement = place(plan, NODES, run(plan))
    assert placement.to_start == ()
    assert placement.to_stop == ()
