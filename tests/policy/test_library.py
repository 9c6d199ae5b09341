from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import pytest
from tool_states import LARGE, SMALL, LinearEstimator, pool, state

from autopoiesis.errors import PolicyError
from autopoiesis.plan import Replica, ServingPlan
from autopoiesis.policy import Decision, ServingState, tools
from autopoiesis.policy.check import check_policy
from autopoiesis.policy.host import PolicyHost
from autopoiesis.policy.host_template import HostTemplate
from autopoiesis.policy.interface import Observation, TransitionStatus
from autopoiesis.policy.library import STARTERS, library, policy, starters

MIX = {"small/<512": 20.0, "large/<512": 3.0}
"""20 units/s of work for the small model, 12 for the large one; an H100 does 8, an A100 4."""
DOUBLE = {"small/<512": 40.0, "large/<512": 6.0}

NEVER = ("round-robin", "static")
ALWAYS = ("amortised", "greedy-replan", "milp-replan")
PLANNERS = (*ALWAYS, "threshold", "scale-to-load", "spotserve")


@dataclass(frozen=True)
class Loaded:
    should_reschedule: Callable[[ServingState], bool]
    plan: Callable[[ServingState], Decision]
    names: dict[str, Any]


def loaded(name: str) -> Loaded:
    names: dict[str, Any] = {}
    exec(compile(policy(name).text, name, "exec"), names)
    return Loaded(names["should_reschedule"], names["plan"], names)


def h100(model: str, degree: int = 1) -> Replica:
    return Replica(model, "h100", degree)


def a100(model: str, degree: int = 1) -> Replica:
    return Replica(model, "a100", degree)


def elastic(*history: dict[str, float], gpus: int = 12, plan: tuple[Replica, ...] = (), **values: Any) -> ServingState:
    """Four to 32 A100; by default the seven and four GPUs that MIX needs with a margin of a quarter."""
    replicas = plan or (*[a100(LARGE, 2)] * 2, *[a100(SMALL)] * 7)
    return state(*history, pools=(pool("a100", gpus, 32),), plan=replicas, **values)


def next_point(now: ServingState, decision: Decision, rates: dict[str, float]) -> ServingState:
    """The state a window later, everything granted and carried out, memory as it comes back from the host."""
    later = state(rates, pools=now.pools, models=now.models, objective=now.objective)
    gpus = {p.name: decision.capacity.get(p.name, p.requested) for p in now.pools}
    memory = now.memory if decision.memory is None else json.loads(json.dumps(decision.memory))
    pools = tuple(replace(p, available=gpus[p.name], requested=gpus[p.name]) for p in now.pools)
    return replace(later, now_s=now.now_s + now.window_s, plan=decision.plan, memory=memory, pools=pools)


# --- the library ----------------------------------------------------------------------------------------------------


def test_the_library_has_the_baselines_by_name() -> None:
    assert set(library()) >= {*NEVER, *PLANNERS}
    assert list(library()) == sorted(library())


def test_runs_and_evolution_start_from_one_policy_of_each_idea() -> None:
    assert set(STARTERS) <= set(library())
    assert list(starters()) == list(STARTERS)


@pytest.mark.parametrize("name", library())
def test_every_human_policy_passes_the_same_check_as_a_written_one(name: str) -> None:
    source = library()[name]
    assert check_policy(source.text) == []
    assert source.summary.endswith(".")
    assert "interface = 1" in source.text


def test_every_human_policy_answers_the_same_in_the_locked_host() -> None:
    fixed, bought = state(MIX, DOUBLE), elastic(MIX, DOUBLE)
    with HostTemplate("tool_states:linear", python_path=(Path(__file__).parent,), allow_unlocked=True) as template:
        for name, source in library().items():
            with PolicyHost(template, source.text) as host:
                for now in (fixed, bought):
                    observation = Observation(**{f.name: getattr(now, f.name) for f in fields(Observation)})
                    answer = host.plan(observation, b"")
                    assert answer.failure is None
                    assert answer.value == loaded(name).plan(now)


def test_an_unknown_policy_is_an_error_with_the_near_matches() -> None:
    with pytest.raises(PolicyError, match="milp-replan"):
        policy("milp_replan")


@pytest.mark.parametrize("name", library())
def test_nobody_reschedules_at_the_very_first_point(name: str) -> None:
    assert loaded(name).should_reschedule(state()) is False


@pytest.mark.parametrize("name", NEVER)
def test_a_static_policy_keeps_the_plan_whatever_happens(name: str) -> None:
    module = loaded(name)
    now = state(MIX, DOUBLE)
    assert module.should_reschedule(now) is False
    assert module.plan(now) == Decision(plan=now.plan)


@pytest.mark.parametrize("name", ALWAYS)
def test_the_others_solve_at_every_later_point(name: str) -> None:
    assert loaded(name).should_reschedule(state(MIX)) is True


@pytest.mark.parametrize("name", PLANNERS)
def test_a_planner_never_drops_a_model_that_is_silent_now(name: str) -> None:
    module = loaded(name)
    for now in (state(MIX, {"small/<512": 45.0}), elastic(MIX, {"small/<512": 45.0}, gpus=32)):
        assert module.plan(now).plan.replicas_of(LARGE)


@pytest.mark.parametrize("name", PLANNERS)
def test_a_planner_asks_for_more_when_load_doubles_and_for_no_more_than_that_needs(name: str) -> None:
    decision = loaded(name).plan(elastic(DOUBLE))
    # 40 and 24 units: 10 GPUs of 4 units and 4 groups of 7.6 even without a margin; at most a third more than asked.
    assert 18 <= decision.capacity["a100"] <= 28
    assert tools.fits(elastic(DOUBLE), decision.plan.replicas, decision.capacity)


@pytest.mark.parametrize("name", PLANNERS)
def test_a_planner_hands_capacity_back_when_load_stays_low(name: str) -> None:
    module = loaded(name)
    plan = (*[a100(LARGE, 2)] * 6, *[a100(SMALL)] * 20)
    now = elastic(MIX, gpus=32, plan=plan)
    for _ in range(8):
        decision = module.plan(now) if module.should_reschedule(now) else Decision(now.plan)
        now = next_point(now, decision, MIX)
    assert 12 <= now.pools[0].requested <= 16
    assert now.estimate(now.plan).headroom >= 1.15


@pytest.mark.parametrize("name", PLANNERS)
def test_a_planner_with_steady_load_soon_leaves_its_plan_alone(name: str) -> None:
    module = loaded(name)
    for now in (state(MIX), elastic(MIX)):
        plans = []
        for _ in range(8):
            decision = module.plan(now) if module.should_reschedule(now) else Decision(now.plan)
            now = next_point(now, decision, MIX)
            plans.append(decision.plan)
        assert all(plan.same_replicas(plans[-1]) for plan in plans[-3:])


# --- one by one -----------------------------------------------------------------------------------------------------


def test_greedy_moves_for_a_clear_gain_and_stays_for_a_small_one() -> None:
    module = loaded("greedy-replan")
    # Two groups of four serve 1.44 times the small model's load; packing greedily, 1.6.
    now = state(MIX)
    assert Counter(module.plan(now).plan.replicas) == {h100(LARGE, 2): 2, h100(SMALL): 4}
    # 15.2 and 15.2 on two pairs: 1.52, of which 1.6 is but 5.3 % more; 5 % is what a move takes.
    pairs = (h100(LARGE, 4), *[h100(SMALL, 2)] * 2)
    assert Counter(module.plan(state(MIX, plan=pairs)).plan.replicas)[h100(SMALL)] == 4
    module.names["GAIN"] = 0.06
    assert module.plan(state(MIX, plan=pairs)).plan.replicas == tuple(sorted(pairs))


def test_greedy_keeps_capacity_for_five_points_after_it_was_needed() -> None:
    module = loaded("greedy-replan")
    now = elastic(DOUBLE)
    asked = []
    for _ in range(6):
        decision = module.plan(now)
        asked.append(decision.capacity["a100"])
        now = next_point(now, decision, MIX)
    # 50 units on 13 GPUs and 30 on four pairs are 21 GPUs, six nodes; then eleven GPUs, three nodes.
    assert asked == [24, 24, 24, 24, 24, 12]


def test_the_exact_planner_finds_what_greedy_misses() -> None:
    # Greedy spreads both models over both kinds, but an A100 takes twice the work for long prompts. All eight A100 as
    # pairs give the large model 30.4 units for 16; the small one has 32 on the H100, which do more than 60.
    load = {"small/<8192": 8.0, "large/<512": 4.0}
    now = state(load, pools=(pool("h100", 8), pool("a100", 8)))
    exact, greedy = loaded("milp-replan").plan(now).plan, loaded("greedy-replan").plan(now).plan
    assert now.estimate(exact).headroom == pytest.approx(1.9)
    assert now.estimate(greedy).headroom == pytest.approx(1.5)


def test_the_exact_planner_polishes_its_plan_only_where_latency_counts() -> None:
    module = loaded("milp-replan")
    # Of plans with room, the estimator of this test likes the one with more; so does `delay`.
    now = state(MIX, objective="delay", plan=(h100(LARGE, 2), h100(SMALL)))
    estimator = cast(LinearEstimator, now.estimator)
    module.plan(replace(now, objective="goodput"))
    questions = estimator.questions
    module.plan(now)
    assert estimator.questions > 2 * questions


def remembering(now: ServingState) -> ServingState:
    """The state with what `threshold` remembers of having planned for it."""
    return replace(now, memory=json.loads(json.dumps(loaded("threshold").plan(now).memory)))


def test_a_threshold_is_crossed_by_rates_lengths_and_gpus_but_not_by_little_classes() -> None:
    trigger = loaded("threshold").should_reschedule
    before = state(MIX | {"small/<2048": 0.4})
    assert trigger(before) is True
    memory = remembering(before).memory

    def later(rates: dict[str, float], **values: Any) -> bool:
        return trigger(replace(state(rates, **values), memory=memory))

    assert later(MIX | {"small/<2048": 0.4}) is False
    assert later({"small/<512": 23.5, "large/<512": 3.5, "small/<2048": 0.4}) is False
    assert later({"small/<512": 25.0, "large/<512": 3.0, "small/<2048": 0.4}) is True
    assert later({"small/<512": 20.0, "large/<512": 2.0, "small/<2048": 0.4}) is True
    assert later(MIX | {"small/<2048": 0.8}) is False
    assert later(MIX | {"small/<2048": 8.0}) is True
    assert later(MIX | {"small/<2048": 0.4}, pools=(pool("h100", 4),)) is True
    longer = state(MIX)
    assert longer.window is not None
    classes = tuple(replace(entry, output_mean=140.0) for entry in longer.window.classes)
    assert trigger(replace(longer, window=replace(longer.window, classes=classes), memory=memory)) is True


def test_a_threshold_plans_for_more_than_the_drift_it_tolerates() -> None:
    decision = loaded("threshold").plan(elastic(MIX))
    # 26 units on 7 GPUs and 15.6 on three pairs: 13 GPUs are four nodes.
    assert decision.capacity == {"a100": 16}


@pytest.mark.parametrize(("start_s", "moves"), [(20.0, True), (60.0, False)])
def test_an_amortised_move_has_to_pay_within_the_horizon(start_s: float, moves: bool) -> None:
    # θ = 1.44, θ' = 1.6, W = 300: 0.16 · (300 − τ) > 1.44 · τ up to τ = 30.
    now = state(MIX, objective="total_time", estimator=LinearEstimator(start_s=start_s))
    decision = loaded("amortised").plan(now)
    assert (not decision.plan.same_replicas(now.plan)) is moves


def test_room_beyond_the_margin_pays_for_nothing() -> None:
    now = state(MIX, estimator=LinearEstimator(start_s=0.1))
    assert loaded("amortised").plan(now).plan == now.plan


def test_an_amortised_policy_weighs_money_where_capacity_is_bought() -> None:
    module = loaded("amortised")
    many = (*[a100(LARGE, 2)] * 4, *[a100(SMALL)] * 12)
    # 20 GPUs serve more than asked, 12 do as well: 1.25/12 against 1.25/20 per dollar, a gain of two thirds.
    cheap = elastic(MIX, gpus=20, plan=many, estimator=LinearEstimator(start_s=30.0))
    assert module.plan(cheap).capacity == {"a100": 12}
    slow = elastic(MIX, gpus=20, plan=many, estimator=LinearEstimator(start_s=200.0))
    assert module.plan(slow) == Decision(plan=slow.plan, memory={"needed": [{"a100": 12}]})
    # Overloaded, what it costs is no argument.
    assert module.plan(elastic(DOUBLE)).capacity == {"a100": 24}


def test_an_amortised_policy_waits_for_gpus_longer_than_its_horizon_where_they_are_needed() -> None:
    # Half of what serves goes on. θ = 15.2/24 = 0.63, θ' is at most 1.25: 0.62 · 300 > 0.63 · τ ÷ 2 up to τ = 584 > W.
    module = loaded("amortised")
    few = elastic(DOUBLE, estimator=LinearEstimator(start_s=310.0))
    assert module.plan(few).capacity == {"a100": 24}
    assert module.plan(elastic(DOUBLE, estimator=LinearEstimator(start_s=900.0))).capacity == {}


def test_scaling_follows_demand_over_the_target_with_a_tolerance() -> None:
    module = loaded("scale-to-load")
    # 20 ÷ (4 · 0.75) = 6.7 → 7 singles; 12 ÷ (7.6 · 0.75) = 2.1 → 3 pairs, but two are 79 % busy: within tolerance.
    now = elastic(MIX)
    assert module.should_reschedule(now) is False
    decision = module.plan(elastic({"small/<512": 30.0, "large/<512": 3.0}))
    assert Counter(decision.plan.replicas) == {a100(SMALL): 10, a100(LARGE, 2): 2}
    assert decision.capacity == {"a100": 16}


def test_scaling_also_works_off_the_queue_at_hand() -> None:
    module = loaded("scale-to-load")
    now = elastic(MIX)
    assert now.window is not None
    waiting = tuple(replace(entry, queued=entry.arrivals // 2) for entry in now.window.classes)
    behind = replace(now, window=replace(now.window, classes=waiting))
    assert module.should_reschedule(behind) is True
    assert len(module.plan(behind).plan.replicas) > len(module.plan(now).plan.replicas)


def test_scaling_waits_before_it_shrinks() -> None:
    module = loaded("scale-to-load")
    low = {"small/<512": 8.0, "large/<512": 3.0}
    now = elastic(low)
    counts = []
    for _ in range(5):
        decision = module.plan(now)
        counts.append(len(decision.plan.replicas_of(SMALL)))
        now = next_point(now, decision, low)
    # ⌈8 ÷ 3⌉ = 3 singles, once it is 300 s ago that 7 were right: a window before the first of these points.
    assert counts == [7, 7, 7, 7, 3]


def test_scaling_takes_other_shapes_when_its_own_run_out() -> None:
    module = loaded("scale-to-load")
    now = state(DOUBLE, pools=(pool("h100", 8), pool("a100", 4, 16)), plan=(h100(SMALL, 4), h100(LARGE, 4)))
    decision = module.plan(now)
    assert decision.capacity["a100"] > 4
    assert {replica.gpu for replica in decision.plan.replicas} == {"a100", "h100"}


def test_on_a_fixed_cluster_there_is_nothing_to_scale() -> None:
    module = loaded("scale-to-load")
    now = state(MIX, plan=(h100(SMALL), *[h100(LARGE, 2)] * 3))
    assert module.should_reschedule(now) is False
    assert module.plan(now).plan.replicas == now.plan.replicas


def test_a_plan_under_way_is_what_a_new_one_is_compared_with() -> None:
    better = ServingPlan((*[h100(LARGE, 2)] * 2, *[h100(SMALL)] * 4))
    now = replace(state(MIX), moving=TransitionStatus(better, 0.0, 1, 6))
    for name in ("amortised", "greedy-replan", "milp-replan"):
        assert loaded(name).plan(now).plan.same_replicas(better)
