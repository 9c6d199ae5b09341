from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tool_states import LARGE, SMALL, LinearEstimator, entry, pool, state, window

from autopoiesis.cluster import Pool
from autopoiesis.errors import PlanError, PolicyError
from autopoiesis.plan import Capacity, Envelope, PoolCapacity, Replica, Role, ServingPlan, check_plan
from autopoiesis.policy import ServingState, tools
from autopoiesis.policy.interface import CapacityChange

MIX = {"small/<512": 20.0, "large/<512": 3.0}
"""20 units/s of work for the small model, 12 for the large one; an H100 does 8."""


def h100(model: str, degree: int = 1) -> Replica:
    return Replica(model, "h100", degree)


def a100(model: str, degree: int = 1) -> Replica:
    return Replica(model, "a100", degree)


@st.composite
def states(draw: st.DrawFn) -> ServingState:
    """One or two kinds of GPU, fixed or elastic, any load, and sometimes an envelope."""
    kinds = draw(st.sampled_from([("h100",), ("a100",), ("h100", "a100")]))
    pools = tuple(
        pool(gpu, 4 * draw(st.integers(2, 4)), draw(st.sampled_from([None, 16, 24])), name=f"{gpu}-pool")
        for gpu in kinds
    )
    labels = ["small/<512", "small/<8192", "large/<512", "large/longer"]
    history = [
        {label: draw(st.floats(0.01, 6.0)) for label in labels if draw(st.booleans())}
        for _ in range(draw(st.integers(1, 3)))
    ]
    envelope = draw(
        st.sampled_from(
            [
                Envelope(),
                Envelope(minimum_replicas=2),
                Envelope(maximum_gpus=7),
                Envelope(class_floor={"small/<512": 3}),
            ]
        )
    )
    return state(*history, pools=pools, envelope=envelope)


def check(state: ServingState, plan: ServingPlan, gpus: dict[str, int]) -> None:
    """Raises unless the loop would accept the plan on pools of this size."""
    capacity = Capacity(
        tuple(
            PoolCapacity(Pool(p.name, p.gpu, p.gpus_per_node, 0, p.maximum, p.price_per_hour), gpus[p.name])
            for p in state.pools
        )
    )
    check_plan(plan, capacity, state.envelope, state.models, state.shapes)


def common_multiple(state: ServingState, plan: ServingPlan) -> float:
    models = {label.rsplit("/", 1)[0] for label in tools.demand(state)}
    return min(tools.multiples(plan.replicas, tools.rates(state), models).values(), default=math.inf)


# --- load -----------------------------------------------------------------------------------------------------------


def test_a_rise_counts_at_once_and_a_fall_late() -> None:
    rising = state({"small/<512": 10.0}, {"small/<512": 30.0})
    falling = state({"small/<512": 30.0}, {"small/<512": 10.0})
    assert tools.demand(tools.expected(rising, windows=2)) == {"small/<512": 30.0}
    assert tools.demand(tools.expected(falling, windows=2)) == {"small/<512": 20.0}


def test_a_class_that_paused_is_still_expected() -> None:
    paused = state({"large/<512": 6.0}, MIX | {"large/<512": 0.0}, {"small/<512": 20.0})
    assert tools.demand(tools.expected(paused, windows=1))["large/<512"] == pytest.approx(2.0)


def test_a_policy_may_predict_rates_of_its_own() -> None:
    seen = state({"small/<512": 10.0, "large/<512": 3.0})
    predicted = tools.expected(seen, margin=1.5, rates={"small/<512": 20.0, "small/longer": 1.0})
    assert tools.demand(predicted) == {"small/<512": 30.0, "large/<512": 4.5}
    assert predicted.window is not None
    assert [entry.arrivals for entry in predicted.window.classes] == [270, 1800]
    assert tools.expected(predicted) is predicted


def test_the_queue_and_the_margin_add_to_what_is_expected() -> None:
    now = state({"small/<512": 10.0})
    queued = replace(now, window=replace(window(0, {}), classes=(entry("small/<512", 10.0, queued=120),)))
    assert tools.demand(tools.expected(queued)) == {"small/<512": 12.0}
    assert tools.demand(tools.expected(queued, margin=1.5)) == {"small/<512": 18.0}


def test_a_class_without_finished_requests_has_the_output_lengths_of_its_model() -> None:
    new = entry("small/<2048", 1.0, output_mean=0.0, output_p90=0.0, completed=0)
    now = state({"small/<512": 10.0})
    assert now.window is not None
    seen = replace(now, window=replace(now.window, classes=(*now.window.classes, new)))
    expected = tools.expected(seen).window
    assert expected is not None
    known = expected.of("small/<2048")
    assert known is not None
    assert (known.output_mean, known.output_p90) == (100.0, 200.0)


@given(states())
def test_what_is_expected_of_the_expected_is_itself(state: ServingState) -> None:
    expected = tools.expected(state, windows=2, margin=1.3)
    assert tools.expected(expected) == expected


def test_without_a_window_there_is_nothing_to_plan_for() -> None:
    with pytest.raises(PolicyError, match="should_reschedule"):
        tools.greedy(state())


# --- shapes and capacity --------------------------------------------------------------------------------------------


def test_shapes_can_be_asked_for_by_model_and_kind() -> None:
    now = state(MIX, pools=(pool("h100", 8), pool("a100", 8)))
    assert tools.shapes(now, model=LARGE, gpu="a100") == [a100(LARGE, 2), a100(LARGE, 4)]
    assert len(tools.shapes(now)) == 10


def test_a_rate_is_the_multiple_of_the_load_that_one_replica_serves() -> None:
    now = state(MIX)
    assert tools.rate(now, h100(SMALL)) == pytest.approx(8 / 20)
    assert tools.rate(now, h100(LARGE, 2)) == pytest.approx(8 * 1.9 / 12)
    assert tools.rate(state({"small/<512": 20.0}), h100(LARGE, 2)) == math.inf


def test_capacity_says_what_a_replica_serves_of_each_class_alone() -> None:
    now = state({"small/<512": 20.0, "small/<8192": 1.0})
    assert tools.capacity(now, a100(SMALL)) == {"small/<512": pytest.approx(4.0), "small/<8192": pytest.approx(0.5)}


def test_usable_gpus_follow_the_wanted_pools_and_announced_losses() -> None:
    now = state(MIX, pools=(pool("a100", 8, 32), pool("h100", 8)), announced=(CapacityChange(90.0, "h100", 4),))
    assert tools.gpus(now) == {"a100": 8, "h100": 4}
    assert tools.gpus(now, {"a100": 22}) == {"a100": 20, "h100": 4}
    assert tools.reach(now) == {"a100": 32, "h100": 4}


def test_a_fixed_pool_that_lost_nodes_counts_with_what_is_there() -> None:
    broken = replace(pool("h100", 8), available=4)
    now = state(MIX, pools=(broken, pool("a100", 8, 32)))
    assert tools.reach(now) == {"h100": 4, "a100": 32}
    assert tools.gpus(now, {"h100": 8}) == {"h100": 4, "a100": 8}
    for planner in (tools.greedy, tools.milp):
        check(now, planner(now, wanted=tools.reach(now), margin=1.25), {"h100": 4, "a100": 32})


def test_a_group_must_lie_within_a_node() -> None:
    now = state(MIX)
    assert tools.fits(now, [h100(LARGE, 4), h100(SMALL, 2), h100(SMALL, 2)])
    assert not tools.fits(now, [h100(LARGE, 4), h100(SMALL, 1), h100(SMALL, 4)])
    assert tools.fits(now, [h100(SMALL, 4)] * 2)
    assert not tools.fits(replace(now, envelope=Envelope(maximum_gpus=7)), [h100(SMALL, 4)] * 2)
    assert not tools.fits(replace(now, envelope=Envelope(maximum_cost_per_hour=15.9)), [h100(SMALL, 4)] * 2)


def test_capacity_for_a_plan_buys_the_cheapest_whole_nodes() -> None:
    dear = pool("a100", 8, 16, name="dear", price_per_hour=3.0)
    now = state(MIX, pools=(dear, pool("a100", 8, 12, name="cheap"), pool("h100", 8)))
    assert tools.capacity_for(now, ServingPlan((a100(SMALL),) * 5)) == {"dear": 4, "cheap": 4}
    assert tools.capacity_for(now, ServingPlan((a100(SMALL),) * 13)) == {"dear": 4, "cheap": 12}
    assert tools.capacity_for(now, ServingPlan((a100(SMALL),) * 17)) == {"dear": 8, "cheap": 12}


def test_an_announced_loss_does_not_cancel_what_is_on_order() -> None:
    # 24 were asked for and 16 are there, of which 8 will go: plans are for two nodes, the request stays at six.
    spot = replace(pool("a100", 16, 32), requested=24)
    now = state(MIX, pools=(spot, pool("h100", 8)), announced=(CapacityChange(90.0, "a100", 8),))
    three_nodes = ServingPlan((a100(SMALL),) * 12)
    assert tools.reach(now) == {"a100": 8, "h100": 8}
    assert tools.capacity_for(now, three_nodes) == {"a100": 24}
    assert tools.capacity_for(now, three_nodes, {"a100": 8}) == {"a100": 8}
    assert tools.capacity_for(replace(now, announced=()), three_nodes) == {"a100": 12}


def test_held_capacity_grows_at_once_and_shrinks_after_the_last_high_need() -> None:
    asked = []
    history: list[dict[str, int]] = []
    for need in (8, 16, 8, 8, 4):
        capacity, history = tools.hold(history, {"a100": need}, points=3)
        asked.append(capacity["a100"])
    assert asked == [8, 16, 16, 16, 8]


# --- units ----------------------------------------------------------------------------------------------------------

MIXED = Role.MIXED
ALIKE = [a100(SMALL)] * 3 + [a100(SMALL, 2)] * 2
"""An A100 serves 4 of the 20 units of the small model, so 0.2 of its load; a pair 7.6, so 0.38; four 14.4, so 0.72."""
SMALL_WORTH = {a100(SMALL, 2): 0.38, a100(SMALL): 0.2, a100(SMALL, 4): 0.72}


def test_what_is_scaled_is_a_role_of_a_model() -> None:
    split = [h100(SMALL).with_options(role=role) for role in (Role.PREFILL, Role.DECODE, Role.DECODE)]
    assert tools.units(state(MIX), split) == [(LARGE, MIXED), (SMALL, Role.DECODE), (SMALL, Role.PREFILL)]


def test_shapes_are_chosen_as_they_are_there_and_then_by_what_a_gpu_serves() -> None:
    chosen = tools.choices(state(MIX, pools=(pool("a100", 16),)), ALIKE)
    # four GPUs are in pairs and three alone
    assert list(chosen[SMALL, MIXED]) == list(SMALL_WORTH)
    assert chosen[SMALL, MIXED] == pytest.approx(SMALL_WORTH)
    # of 12 units a pair serves 7.6, 0.32 per GPU, and a node 14.4, 0.3 per GPU
    assert list(chosen[LARGE, MIXED]) == [a100(LARGE, 2), a100(LARGE, 4)]
    by_gpus = tools.choices(state(MIX, pools=(pool("a100", 16),)), [], worth=lambda shape: shape.gpus**2)
    assert list(by_gpus[SMALL, MIXED].values()) == [16, 4, 1]


@pytest.mark.parametrize(
    ("need", "least", "singles", "pairs"),
    [
        (0.5, 1, 3, 0),  # 0.6; single ones serve more per GPU
        (1.25, 1, 3, 2),  # 0.6 + 2 · 0.38 = 1.36
        (2.0, 1, 3, 4),  # 0.64 more are two pairs
        (0.0, 4, 3, 1),
        (0.0, 6, 3, 3),
    ],
)
def test_a_unit_is_sized_to_its_need(need: float, least: int, singles: int, pairs: int) -> None:
    expected = [a100(SMALL)] * singles + [a100(SMALL, 2)] * pairs
    assert tools.sized(ALIKE, SMALL_WORTH, need, least) == expected


@pytest.mark.parametrize(
    ("gpus", "goal", "small", "large"),
    [
        # Small and large start with 0.16 and 0.51 of a need of 1.25; three more of small make 0.64, one of large 1.01.
        (8, 1.0, 4, 2),
        # Three more of small make 1.12; both have their need, and a GPU is left.
        (12, 1.0, 7, 2),
        # Large has the least, but no pair fits.
        (12, math.inf, 8, 2),
    ],
)
def test_where_not_all_fits_the_unit_with_the_least_of_its_need_gets_the_next(
    gpus: int, goal: float, small: int, large: int
) -> None:
    now = state(MIX, pools=(pool("a100", 8, 32),))
    worth = tools.choices(now, [a100(SMALL), a100(LARGE, 2)])
    need = dict.fromkeys(worth, 1.25)
    replicas = tools.rationed(now, worth, need, {"a100": gpus}, goal)
    assert sorted(replicas) == sorted([a100(SMALL)] * small + [a100(LARGE, 2)] * large)
    assert tools.served(worth, need, replicas) == {
        (SMALL, MIXED): pytest.approx(small * 0.16),
        (LARGE, MIXED): pytest.approx(large * 7.6 / 12 / 1.25),
    }


def test_in_turns_any_beginning_of_a_plan_keeps_its_proportions() -> None:
    prefill, decode = (Replica(SMALL, "a100", role=role) for role in (Role.PREFILL, Role.DECODE))
    # Four that prefill at 1/8, 3/8, 5/8 and 7/8 of them, two that decode at 1/4 and 3/4: pdppdp.
    ordered = tools.in_turns([decode] * 2 + [prefill] * 4)
    assert "".join(replica.role.value[0] for replica in ordered) == "pdppdp"


# --- planners -------------------------------------------------------------------------------------------------------


def test_greedy_serves_whoever_is_worst_off_with_the_best_shape_per_gpu() -> None:
    plan = tools.greedy(state(MIX))
    # Small: 8 units on one GPU beat 15.2 on two. Large: 15.2 on two beat 28.8 on four. 8 GPUs are then used up.
    assert plan.replicas == (*[h100(LARGE, 2)] * 2, *[h100(SMALL)] * 4)


def test_greedy_buys_no_more_than_the_margin_needs() -> None:
    now = state(MIX, pools=(pool("a100", 8, 32),))
    plan = tools.greedy(now, wanted=tools.reach(now), margin=1.25)
    # 25 units at 4 each are 7 GPUs, 15 at 7.6 on two are 4: twelve GPUs are bought, and the one left is used.
    assert tools.capacity_for(now, plan) == {"a100": 12}
    assert plan.replicas == (*[a100(LARGE, 2)] * 2, *[a100(SMALL)] * 8)
    assert tools.capacity_for(now, tools.greedy(now, tools.reach(now), 1.25, paid={"a100": 20})) == {"a100": 20}


def test_a_model_without_load_keeps_its_minimum() -> None:
    for planner in (tools.greedy, tools.milp):
        plan = planner(state({"small/<512": 30.0}, envelope=Envelope(minimum_replicas_of={LARGE: 2})))
        assert plan.replicas_of(LARGE) == (h100(LARGE, 2),) * 2


def test_minima_that_fit_nowhere_are_an_error() -> None:
    with pytest.raises(PlanError, match="minimum"):
        tools.greedy(state(MIX, pools=(pool("h100", 4),), envelope=Envelope(minimum_replicas=3)))


def test_a_loss_that_leaves_less_than_the_minima_counts_once_it_has_happened() -> None:
    # The large model needs two GPUs and the small one a third: the one node left holds them, no node does not.
    spot = pool("a100", 8, 16, minimum=0)
    one_left = state(MIX, pools=(spot,), announced=(CapacityChange(90.0, "a100", 4),))
    none_left = replace(one_left, announced=(CapacityChange(90.0, "a100", 0),))
    assert tools.gpus(one_left, tools.reach(one_left)) == {"a100": 4}
    assert tools.gpus(none_left) == {"a100": 8}
    assert tools.reach(none_left) == {"a100": 16}
    for planner in (tools.greedy, tools.milp):
        check(none_left, planner(none_left), {"a100": 8})
        wider = planner(none_left, wanted=tools.reach(none_left), margin=1.25)
        # 25 units at 4 each are 7 GPUs, 15 at 7.6 on two are 4: three nodes, asked for again while two are going.
        assert tools.capacity_for(none_left, wider) == {"a100": 12}


def test_a_loss_counts_at_once_where_another_pool_can_hold_the_minima() -> None:
    pools = (pool("a100", 8, 16, minimum=0), pool("h100", 4))
    now = state(MIX, pools=pools, announced=(CapacityChange(90.0, "a100", 0),))
    assert tools.gpus(now) == {"a100": 0, "h100": 4}
    assert tools.milp(now).gpus("a100") == 0


def exhaustive(now: ServingState, gpus: int) -> float:
    """The largest common multiple of any counts of the shapes on one pool of nodes of four."""
    rates = tools.rates(now)
    best = 0.0
    shapes = sorted(rates)
    for counts in itertools.product(*[range(gpus // shape.gpus + 1) for shape in shapes]):
        if sum(count * shape.gpus for count, shape in zip(counts, shapes, strict=True)) <= gpus:
            replicas = [shape for count, shape in zip(counts, shapes, strict=True) for _ in range(count)]
            if tools.fits(now, replicas):
                best = max(best, common_multiple(now, ServingPlan(tuple(replicas))))
    return best


@settings(max_examples=15, deadline=None)
@given(st.floats(1.0, 60.0), st.floats(0.1, 10.0))
def test_the_program_finds_the_best_of_all_plans(small_rps: float, large_rps: float) -> None:
    now = state({"small/<512": small_rps, "large/<512": large_rps})
    assert common_multiple(now, tools.milp(now)) == pytest.approx(exhaustive(now, 8), rel=2e-3)


@settings(max_examples=30, deadline=None)
@given(states())
def test_the_program_is_never_worse_than_greedy_on_the_same_gpus(state: ServingState) -> None:
    gpus = tools.reach(state)
    greedy = tools.greedy(state, gpus, math.inf, paid=gpus)
    milp = tools.milp(state, gpus, math.inf, paid=gpus)
    expected = tools.granted(tools.expected(state), gpus)
    assert expected.estimate(milp).headroom >= expected.estimate(greedy).headroom * (1 - 2e-3)
    if len(state.pools) == 1:
        assert common_multiple(state, milp) >= common_multiple(state, greedy) * (1 - 2e-3)


@settings(max_examples=30, deadline=None)
@given(states())
def test_the_program_buys_no_dearer_than_greedy_for_the_same_margin(state: ServingState) -> None:
    gpus = tools.reach(state)
    greedy = tools.greedy(state, gpus, 1.2)
    if common_multiple(state, greedy) < 1.2:
        return
    expected = tools.expected(state)

    def price(plan: ServingPlan) -> float:
        bought = gpus | tools.capacity_for(expected, plan)
        return sum(bought[p.name] * p.price_per_hour for p in state.pools)

    assert price(tools.milp(state, gpus, 1.2)) <= price(greedy) * (1 + 2e-3)


def test_the_program_sends_long_prompts_where_they_are_served_best() -> None:
    # On an A100 a long prompt costs double: the mix on all GPUs alike serves 44.4 units, apart they serve 48.
    mix = {"small/<512": 16.0, "small/<8192": 8.0}
    now = state(mix, pools=(pool("h100", 4), pool("a100", 4)), models=(SMALL,))
    plan = tools.milp(now)
    long = plan.shares_of("small/<8192")
    assert long is not None
    assert sum(f for f, replica in zip(long, plan.replicas, strict=True) if replica.gpu == "a100") < 0.01
    assert now.estimate(plan).headroom == pytest.approx(1.0)
    assert now.estimate(ServingPlan(plan.replicas)).headroom < 0.95


def test_among_equal_plans_the_program_keeps_what_runs() -> None:
    # One group of four serves 2.4 times the large model's load, two of two 2.53; the small model limits both to 1.6.
    for large in ((h100(LARGE, 4),), (h100(LARGE, 2),) * 2):
        running = (*large, *[h100(SMALL)] * 4)
        assert tools.milp(state(MIX, plan=running)).same_replicas(ServingPlan(running))


def test_the_solver_reports_its_work_and_without_any_the_answer_is_greedy() -> None:
    estimator = LinearEstimator()
    now = state(MIX, pools=(pool("h100", 16),), estimator=estimator)
    assert tools.milp(now, iteration_limit=0, node_limit=0).replicas
    tools.milp(now)
    assert estimator.solver_nodes > 0


@settings(max_examples=40, deadline=None)
@given(states(), st.booleans(), st.sampled_from([0.5, 1.0, 1.5]))
def test_every_plan_would_be_accepted(state: ServingState, elastic: bool, margin: float) -> None:
    gpus = tools.reach(state) if elastic else {p.name: p.available for p in state.pools}
    for planner in (tools.greedy, tools.milp):
        plan = planner(state, wanted=gpus, margin=margin)
        check(state, plan, gpus | tools.capacity_for(state, plan, gpus))
        for shares in plan.shares:
            assert math.fsum(shares.fractions) == pytest.approx(1.0)


@settings(max_examples=10, deadline=None)
@given(states())
def test_equal_states_give_equal_plans(state: ServingState) -> None:
    assert tools.greedy(state) == tools.greedy(state)
    assert tools.milp(state) == tools.milp(state)
    assert tools.local_search(state, state.plan, 1) == tools.local_search(state, state.plan, 1)


def test_shares_are_given_only_where_replicas_differ() -> None:
    now = state(MIX)
    assert tools.assign(now, [h100(SMALL), h100(SMALL), h100(LARGE, 2)]) == ()
    shares = tools.assign(now, [h100(LARGE, 4), h100(SMALL), h100(SMALL, 2)])
    assert [entry.request_class for entry in shares] == ["small/<512"]
    assert shares[0].fractions == pytest.approx((0.0, 8 / 23.2, 15.2 / 23.2))


# --- search and score -----------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(states(), st.sampled_from(["cost_per_good", "goodput", "delay", "total_time"]))
def test_a_search_never_ends_worse_than_it_began(state: ServingState, objective: str) -> None:
    state = replace(state, objective=objective)
    found = tools.local_search(state, state.plan, 2)
    assert tools.score(state, found) <= tools.score(state, state.plan)
    if found != state.plan:
        assert tools.fits(state, found.replicas)


def test_a_search_finds_the_exchange_that_pays() -> None:
    now = state(MIX, objective="total_time")
    found = tools.local_search(now, ServingPlan((h100(LARGE, 4), h100(LARGE, 2), h100(SMALL), h100(SMALL))), 8)
    assert now.estimate(found).headroom == pytest.approx(1.6)


def test_a_search_can_be_given_its_own_moves_and_aim() -> None:
    now = state(MIX)
    fewer = tools.local_search(
        now,
        now.plan,
        9,
        neighbours=lambda state, plan: [ServingPlan(plan.replicas[1:])] if len(plan.replicas) > 1 else [],
        objective=lambda state, plan: len(plan.replicas),
    )
    assert len(fewer.replicas) == 1


@pytest.mark.parametrize("objective", ["cost_per_good", "goodput", "delay", "total_time"])
def test_a_score_falls_with_better_plans_and_is_infinite_for_impossible_ones(objective: str) -> None:
    now = state(MIX, objective=objective)
    poor, fine = ServingPlan((h100(LARGE, 2), h100(SMALL))), ServingPlan((h100(LARGE, 4), h100(SMALL, 4)))
    roomy = ServingPlan((*[h100(LARGE, 2)] * 2, *[h100(SMALL)] * 4))
    assert tools.score(now, roomy) < tools.score(now, fine) < tools.score(now, poor) < math.inf
    assert tools.score(now, ServingPlan((h100(SMALL),))) == math.inf
