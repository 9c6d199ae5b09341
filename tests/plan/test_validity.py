from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopoiesis.cluster import Cluster, Pool
from autopoiesis.errors import PlanError, ScenarioError
from autopoiesis.plan import (
    Capacity,
    ClassShares,
    Envelope,
    Replica,
    Role,
    ServingPlan,
    check_envelope,
    check_plan,
    cost_per_hour,
    fit,
    packable,
    repair,
    serving_count,
)

CLUSTER = Cluster(
    "test",
    (
        Pool("h100", "h100", 4, 0, 16, 4.0),
        Pool("a100", "a100", 4, 0, 16, 2.0),
        Pool("spot", "a100", 4, 0, 16, 1.0),
    ),
)
FULL = Capacity.at_maximum(CLUSTER)
MODELS = ("small", "large")
SHAPES = (
    *(Replica("small", gpu, tp) for gpu in ("h100", "a100") for tp in (1, 2, 4)),
    *(Replica("large", "h100", tp) for tp in (2, 4)),
    Replica("large", "a100", 4),
    Replica("large", "a100", 2, 2),
)
SMALL, LARGE = Replica("small", "h100"), Replica("large", "h100", 2)
ENVELOPE = Envelope()


def plan_of(*replicas: Replica, shares: tuple[ClassShares, ...] = ()) -> ServingPlan:
    return ServingPlan(replicas, shares)


def check(plan: ServingPlan, envelope: Envelope = ENVELOPE, capacity: Capacity = FULL, **more: Any) -> None:
    check_plan(plan, capacity, envelope, MODELS, SHAPES, **more)


def test_a_sound_plan_passes() -> None:
    check(plan_of(SMALL, LARGE, shares=(ClassShares("small/<512", (1.0, 0.0)),)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (replace(SMALL, model="smal"), r"replica 1 .*field 'model': .*did you mean small"),
        (replace(SMALL, gpu="h10"), r"replica 1 .*field 'gpu': .*did you mean h100"),
        (replace(LARGE, tensor_parallel=1), r"replica 1 .*does not fit in memory; shapes that do: tp2 pp1, tp4 pp1"),
        (replace(SMALL, batched_tokens=255), "field 'batched_tokens' must be a whole number from 256 to 65536, got"),
        (replace(SMALL, max_sequences=1025), "field 'max_sequences' must be a whole number from 1 to 1024"),
        (replace(SMALL, kv_dtype_bytes=4), "field 'kv_dtype_bytes' must be 1 or 2, got 4"),
    ],
)
def test_a_wrong_replica_is_named_with_its_field_and_the_mend(wrong: Replica, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        check(plan_of(SMALL, wrong, LARGE))


def test_engine_options_do_not_make_a_shape_unknown() -> None:
    check(plan_of(replace(SMALL, batched_tokens=512, max_sequences=8, kv_dtype_bytes=1), LARGE))


@pytest.mark.parametrize(
    ("label", "fractions", "message"),
    [
        ("small/<511", (1.0, 0.0), "unknown request class .*did you mean small/<512"),
        ("small/<512", (1.0,), "1 fractions for 2 replicas"),
        ("small/<512", (0.5, 0.5), "replica 1 .*serves another model; give it 0"),
        ("small/<512", (0.9, 0.0), "sum to 0.9; make them 1"),
        ("small/<512", (-1.0, 0.0), "fraction 0 must be finite and at least 0"),
        ("small/<512", (float("nan"), 0.0), "fraction 0 must be finite"),
        ("small/<512", (float("inf"), 0.0), "fraction 0 must be finite"),
    ],
)
def test_wrong_shares_are_named_with_the_mend(label: str, fractions: tuple[float, ...], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        check(plan_of(SMALL, LARGE, shares=(ClassShares(label, fractions),)))


def test_a_class_cannot_be_shared_twice() -> None:
    with pytest.raises(PlanError, match="given twice"):
        check(plan_of(SMALL, LARGE, shares=(ClassShares("small/<512", (1.0, 0.0)),) * 2))


def test_prefill_and_decode_replicas_need_each_other_or_a_mixed_one() -> None:
    prefill, decode = replace(SMALL, role=Role.PREFILL), replace(SMALL, role=Role.DECODE)
    check(plan_of(prefill, decode, LARGE))
    check(plan_of(prefill, SMALL, LARGE))
    with pytest.raises(PlanError, match="'small' has prefill replicas only; add a decode or mixed replica"):
        check(plan_of(prefill, prefill, LARGE))
    with pytest.raises(PlanError, match="'small' has decode replicas only; add a prefill or mixed replica"):
        check(plan_of(decode, LARGE))


def test_a_plan_must_pack_on_the_capacity() -> None:
    with pytest.raises(PlanError, match="needs 18 h100 GPUs and 16 are available"):
        check(plan_of(*[SMALL] * 16, LARGE))
    narrow = replace(CLUSTER.pools[0], gpus_per_node=2)
    with pytest.raises(PlanError, match="does not pack"):
        check(
            plan_of(SMALL, replace(LARGE, tensor_parallel=4)),
            capacity=Capacity.at_maximum(Cluster("narrow", (narrow,))),
        )


def test_every_model_keeps_its_minimum_and_a_disaggregated_pair_counts_once() -> None:
    prefill, decode = replace(SMALL, role=Role.PREFILL), replace(SMALL, role=Role.DECODE)
    assert serving_count([prefill, prefill, decode, SMALL]) == 2
    with pytest.raises(PlanError, match="'large' must keep at least 1 replicas and the plan has 0"):
        check(plan_of(SMALL))
    check(plan_of(SMALL), Envelope(minimum_replicas_of={"large": 0}))
    with pytest.raises(PlanError, match="'small' must keep at least 2 replicas and the plan has 1"):
        check(plan_of(prefill, decode, LARGE), Envelope(minimum_replicas_of={"small": 2}))


def test_caps_on_gpus_and_money_hold() -> None:
    check(plan_of(SMALL, LARGE), Envelope(maximum_gpus=3, maximum_cost_per_hour=12.0))
    with pytest.raises(PlanError, match="maximum_gpus is 2 and the plan uses 3"):
        check(plan_of(SMALL, LARGE), Envelope(maximum_gpus=2))
    with pytest.raises(PlanError, match="maximum_cost_per_hour is 11 dollars and the plan can cost 12"):
        check(plan_of(SMALL, LARGE), Envelope(maximum_cost_per_hour=11.0))


def test_money_is_counted_at_the_dearest_pool_of_a_kind() -> None:
    assert cost_per_hour([Replica("small", "a100", 4)] * 5, FULL) == 16 * 2.0 + 4 * 1.0


def test_moves_per_hour_count_recent_starts_and_those_the_plan_needs() -> None:
    envelope = Envelope(moves_per_hour=3)
    running = plan_of(SMALL, LARGE)
    check(plan_of(SMALL, SMALL, SMALL, LARGE), envelope, recent_starts=1, running=running)
    with pytest.raises(PlanError, match=r"moves_per_hour is 3, 2 replicas were started .* would start 2 more"):
        check(plan_of(SMALL, SMALL, SMALL, LARGE), envelope, recent_starts=2, running=running)
    check(running, envelope, recent_starts=9, running=running)


def test_a_class_floor_asks_for_that_many_replicas_with_a_share() -> None:
    envelope = Envelope(class_floor={"small/<512": 2})
    check(plan_of(SMALL, SMALL, LARGE), envelope)
    check(plan_of(SMALL, SMALL, LARGE, shares=(ClassShares("small/<512", (0.5, 0.5, 0)),)), envelope)
    with pytest.raises(PlanError, match="class small/<512 must be shared among at least 2 replicas"):
        check(plan_of(SMALL, SMALL, LARGE, shares=(ClassShares("small/<512", (1.0, 0.0, 0.0)),)), envelope)
    with pytest.raises(ScenarioError, match="class_floor: unknown request class"):
        check(plan_of(SMALL, LARGE), Envelope(class_floor={"small": 1}))


def test_fit_returns_a_plan_that_fits_unchanged() -> None:
    plan = plan_of(SMALL, LARGE, SMALL, shares=(ClassShares("small/<512", (0.25, 0.0, 0.75)),))
    assert fit(plan, FULL, ENVELOPE, MODELS) == plan


def test_fit_serves_every_models_minimum_before_the_rest_and_renormalises_shares() -> None:
    shares = (ClassShares("small/<512", (0.75, 0.0, 0.25, 0.0)), ClassShares("small/<2048", (0.0, 0.0, 1.0, 0.0)))
    plan = plan_of(SMALL, SMALL, SMALL, LARGE, shares=shares)
    fitted = fit(plan, FULL.with_pool("h100", 4), ENVELOPE, MODELS)
    assert fitted.replicas == (SMALL, SMALL, LARGE)
    assert fitted.shares == (ClassShares("small/<512", (1.0, 0.0, 0.0)),)


def test_repair_adds_the_smallest_shape_for_a_model_that_lost_everything() -> None:
    plan = plan_of(SMALL, Replica("large", "a100", 4))
    capacity = FULL.with_pool("a100", 0).with_pool("spot", 0)
    assert repair(plan, capacity, ENVELOPE, MODELS, SHAPES).replicas == (SMALL, LARGE)


def test_repair_evicts_from_the_model_with_most_to_spare_and_no_more_than_needed() -> None:
    plan = plan_of(*[SMALL] * 4, Replica("large", "a100", 4))
    capacity = FULL.with_pool("a100", 0).with_pool("spot", 0).with_pool("h100", 4)
    assert repair(plan, capacity, ENVELOPE, MODELS, SHAPES).replicas == (SMALL, SMALL, LARGE)


def test_repair_shrinks_a_replica_where_nothing_is_to_spare() -> None:
    plan = plan_of(Replica("small", "h100", 4), Replica("large", "a100", 4))
    capacity = FULL.with_pool("a100", 0).with_pool("spot", 0).with_pool("h100", 4)
    assert repair(plan, capacity, ENVELOPE, MODELS, SHAPES).sorted() == plan_of(SMALL, LARGE).sorted()


def test_repair_makes_half_a_pair_mixed() -> None:
    plan = plan_of(replace(SMALL, role=Role.PREFILL), Replica("small", "a100", 4, role=Role.DECODE), LARGE)
    capacity = FULL.with_pool("a100", 0).with_pool("spot", 0)
    assert repair(plan, capacity, ENVELOPE, MODELS, SHAPES).replicas == (SMALL, LARGE)


def test_repair_drops_the_shares_of_a_model_that_got_other_replicas() -> None:
    shares = (ClassShares("small/<512", (1.0, 0.0)), ClassShares("large/<512", (0.0, 1.0)))
    plan = plan_of(SMALL, Replica("large", "a100", 4), shares=shares)
    repaired = repair(plan, FULL.with_pool("a100", 0).with_pool("spot", 0), ENVELOPE, MODELS, SHAPES)
    assert repaired.shares == (ClassShares("small/<512", (1.0, 0.0)),)


roles = st.sampled_from(list(Role))
capacities = st.builds(
    lambda h, a, s: FULL.with_pool("h100", 4 * h).with_pool("a100", 4 * a).with_pool("spot", 4 * s),
    *[st.integers(0, 4)] * 3,
)


@st.composite
def plans(draw: st.DrawFn) -> ServingPlan:
    replicas = tuple(draw(st.lists(st.builds(replace, st.sampled_from(SHAPES), role=roles), max_size=16)))
    shares = []
    for model in MODELS:
        weights = [draw(st.integers(0, 3)) if r.model == model else 0 for r in replicas]
        if sum(weights):
            shares.append(ClassShares(f"{model}/<512", tuple(w / sum(weights) for w in weights)))
    return ServingPlan(replicas, tuple(shares))


envelopes = st.builds(
    Envelope,
    minimum_replicas=st.integers(0, 2),
    maximum_gpus=st.none() | st.integers(4, 20),
    maximum_cost_per_hour=st.none() | st.integers(8, 60),
    class_floor=st.sampled_from([{}, {"small/<512": 2}]),
)


@settings(max_examples=200, deadline=None)
@given(plan=plans(), capacity=capacities, envelope=envelopes)
def test_what_fits_can_be_placed_within_the_caps_and_nothing_left_out_could_be_added(
    plan: ServingPlan, capacity: Capacity, envelope: Envelope
) -> None:
    fitted = fit(plan, capacity, envelope, MODELS)
    assert packable(fitted.replicas, capacity.nodes())
    gpus = envelope.maximum_gpus if envelope.maximum_gpus is not None else 10**9
    money = envelope.maximum_cost_per_hour if envelope.maximum_cost_per_hour is not None else 1e9
    assert fitted.gpus() <= gpus
    assert cost_per_hour(fitted.replicas, capacity) <= money
    rest = list(plan.replicas)
    for r in fitted.replicas:
        rest.remove(r)
    for r in rest:
        more = [*fitted.replicas, r]
        assert (
            not packable(more, capacity.nodes())
            or fitted.gpus() + r.gpus > gpus
            or cost_per_hour(more, capacity) > money
        )
    assert fit(fitted, capacity, envelope, MODELS).replicas == fitted.replicas


@settings(max_examples=200, deadline=None)
@given(plan=plans(), capacity=capacities, envelope=envelopes)
def test_a_repaired_plan_is_valid_or_falls_short_only_of_minimum_replicas(
    plan: ServingPlan, capacity: Capacity, envelope: Envelope
) -> None:
    repaired = repair(plan, capacity, envelope, MODELS, SHAPES)
    unbounded = replace(envelope, minimum_replicas=0, class_floor={})
    check_plan(repaired, capacity, unbounded, MODELS, SHAPES)
    uncapped = envelope.maximum_gpus is None and envelope.maximum_cost_per_hour is None
    # Two small and two large replicas need two H100 nodes at most; with these there is always a way.
    if uncapped and capacity.gpus_of("h100") >= 8:
        check_plan(repaired, capacity, envelope, MODELS, SHAPES)


@settings(max_examples=100, deadline=None)
@given(plan=plans(), capacity=capacities, envelope=envelopes)
def test_a_valid_plan_needs_no_repair(plan: ServingPlan, capacity: Capacity, envelope: Envelope) -> None:
    try:
        check_plan(plan, capacity, envelope, MODELS, SHAPES)
    except PlanError:
        return
    assert repair(plan, capacity, envelope, MODELS, SHAPES) == plan


def fastest(call: Callable[[], object]) -> float:
    times = []
    for _ in range(20):
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return min(times)


def test_checking_and_fitting_32_replicas_take_less_than_a_millisecond() -> None:
    replicas = [Replica("small", "a100")] * 16 + [SMALL] * 12 + [LARGE] * 2 + [Replica("small", "a100", 4)] * 2
    shares = tuple(
        ClassShares(f"small/{bucket}", tuple((r.model == "small") / 30 for r in replicas))
        for bucket in ("<512", "<2048", "<8192", "longer")
    )
    plan = plan_of(*replicas, shares=shares)
    envelope = Envelope(maximum_gpus=64, maximum_cost_per_hour=1e6)
    assert fastest(lambda: check(plan, envelope)) < 1e-3
    assert fastest(lambda: fit(plan, FULL, envelope, MODELS)) < 1e-3
    assert fastest(lambda: fit(plan, FULL.with_pool("a100", 8), envelope, MODELS)) < 1e-3


ONE_NODE = Cluster("one", (Pool("h100", "h100", 4, 0, 4, 4.0),))


@pytest.mark.parametrize(
    ("envelope", "cluster", "message"),
    [
        (
            Envelope(minimum_replicas=5),
            ONE_NODE,
            "minimum_replicas asks for 5 replicas of 'small' .* holds 4; lower it",
        ),
        (Envelope(minimum_replicas_of={"large": 3}), ONE_NODE, "minimum_replicas_of asks for 3 replicas of 'large'"),
        (Envelope(minimum_replicas=2), ONE_NODE, r"minimum_replicas \(small 2, large 2\) needs 6 GPUs .* room for 4"),
        (Envelope(maximum_gpus=2), CLUSTER, r"maximum_gpus is 2 and the fewest replicas \(small 1, large 1\) need 3"),
        (
            Envelope(maximum_cost_per_hour=4.9),
            CLUSTER,
            "maximum_cost_per_hour is 4.9 dollars .* cost at least 5; raise",
        ),
    ],
)
def test_an_envelope_that_no_plan_meets_is_refused_by_its_field(
    envelope: Envelope, cluster: Cluster, message: str
) -> None:
    with pytest.raises(ScenarioError, match=f"envelope: {message}"):
        check_envelope(envelope, cluster, MODELS, SHAPES)


def test_an_envelope_that_is_only_just_met_passes() -> None:
    check_envelope(Envelope(minimum_replicas_of={"small": 2}, maximum_gpus=4), ONE_NODE, MODELS, SHAPES)
    check_envelope(Envelope(maximum_gpus=3, maximum_cost_per_hour=5.0), CLUSTER, MODELS, SHAPES)
    check_envelope(Envelope(minimum_replicas=0, maximum_gpus=0), ONE_NODE, MODELS, SHAPES)


@given(st.lists(st.sampled_from(SHAPES), max_size=12))
def test_no_envelope_is_refused_that_a_packable_plan_meets(replicas: list[Replica]) -> None:
    if packable(replicas, FULL.nodes()):
        counts = {model: sum(replica.model == model for replica in replicas) for model in MODELS}
        cost = cost_per_hour(replicas, FULL)
        gpus = sum(replica.gpus for replica in replicas)
        envelope = Envelope(minimum_replicas_of=counts, maximum_gpus=gpus, maximum_cost_per_hour=cost)
        check_envelope(envelope, CLUSTER, MODELS, SHAPES)


@given(st.integers(0, 9), st.integers(0, 9))
def test_on_one_kind_of_gpu_what_passes_can_be_placed(small: int, large: int) -> None:
    cluster = Cluster("odd", (Pool("a", "h100", 3, 0, 9, 4.0),))
    replicas = [SMALL] * small + [LARGE] * large
    envelope = Envelope(minimum_replicas_of={"small": small, "large": large})
    if packable(replicas, Capacity.at_maximum(cluster).nodes()):
        check_envelope(envelope, cluster, MODELS, SHAPES)
    else:
        with pytest.raises(ScenarioError, match="minimum_replicas_of"):
            check_envelope(envelope, cluster, MODELS, SHAPES)
