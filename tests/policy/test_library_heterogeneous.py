"""The planners for unlike GPUs, on cases small enough to be worked by hand.

`PhasedEstimator` tells prefill from decode. A GPU by itself serves, in requests/s with 100 output tokens

    GPU    prefill   decode   both phases
    H100      8         6     1 / (1/8 + 1/6) = 3.43
    A100      2         4     1 / (1/2 + 1/4) = 1.33

and in larger groups `GROUP` times as much. Decoding takes as many times longer as there are hundreds of output tokens.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace

import pytest
from test_library import DOUBLE, MIX, a100, elastic, h100, loaded, next_point
from tool_states import GROUP, LARGE, SMALL, LinearEstimator, pool, state

from autopoiesis.plan import Replica, Role, ServingPlan
from autopoiesis.policy import Decision, ServingState, tools
from autopoiesis.policy.interface import CapacityChange, Estimate, Observation

PREFILLS = {"h100": 8.0, "a100": 2.0}
DECODES = {"h100": 6.0, "a100": 4.0}
BOTH, PREFILL, DECODE = Role.MIXED, Role.PREFILL, Role.DECODE
PLANNERS = ("oserve", "thunderserve")
UNLIKE = (pool("h100", 4), pool("a100", 4))


@dataclass(slots=True)
class PhasedEstimator(LinearEstimator):
    """One class per model; shares are taken to be the best."""

    def throughput(self, observation: Observation, replica: Replica) -> dict[str, float]:
        self.questions += 1
        assert observation.window is not None
        entries = [e for e in observation.window.classes if e.request_class.startswith(f"{replica.model}/")]
        return {entry.request_class: phase_rate(replica, entry.output_mean) for entry in entries}

    def estimate(self, observation: Observation, plan: ServingPlan) -> Estimate:
        self.questions += 1
        assert observation.window is not None
        headroom = 100.0
        for entry in observation.window.classes:
            served = dict.fromkeys(Role, 0.0)
            for replica in plan.replicas_of(entry.request_class.rsplit("/", 1)[0]):
                served[replica.role] += phase_rate(replica, entry.output_mean)
            headroom = min(headroom, (served[BOTH] + min(served[PREFILL], served[DECODE])) / entry.rate_rps)
        return Estimate(True, headroom, min(headroom, 1.0), 1.0, 1 / headroom, 0.5, 0.02)


def phase_rate(replica: Replica, output: float) -> float:
    prefill = PREFILLS[replica.gpu] * GROUP[replica.tensor_parallel]
    decode = DECODES[replica.gpu] * GROUP[replica.tensor_parallel] * 100 / output
    return {PREFILL: prefill, DECODE: decode, BOTH: 1 / (1 / prefill + 1 / decode)}[replica.role]


def groups(h100_prefill: int, h100_decode: int, a100_prefill: int, a100_decode: int) -> tuple[Replica, ...]:
    counts = ((h100, PREFILL, h100_prefill), (h100, DECODE, h100_decode), (a100, PREFILL, a100_prefill),
              (a100, DECODE, a100_decode))  # fmt: skip
    return tuple(sorted(make(SMALL).with_options(role=role) for make, role, n in counts for _ in range(n)))


COLOCATED = (*[h100(SMALL)] * 4, *[a100(SMALL)] * 4)
"""4 · 3.43 + 4 · 1.33 = 19.05 requests/s."""
SPLIT = groups(3, 1, 0, 4)
"""Prefill 3 · 8 = 24, decode 6 + 4 · 4 = 22: the best there is, 22 requests/s."""


def phased(rate: float, plan: tuple[Replica, ...], output: float = 100.0, start_s: float = 30.0) -> ServingState:
    now = state({"small/<512": rate}, pools=UNLIKE, models=(SMALL,), plan=plan, estimator=PhasedEstimator(start_s))
    assert now.window is not None
    classes = tuple(replace(entry, output_mean=output) for entry in now.window.classes)
    return replace(now, window=replace(now.window, classes=classes))


def remembering(now: ServingState, decision: Decision) -> ServingState:
    return replace(now, memory=json.loads(json.dumps(decision.memory)))


# --- both -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANNERS)
def test_more_is_asked_for_when_load_doubles_and_no_more_than_that_needs(name: str) -> None:
    decision = loaded(name).plan(elastic(DOUBLE))
    # 40 and 24 units are 18 GPUs without a margin, and 24 with one of a quarter.
    assert 18 <= decision.capacity["a100"] <= 28
    assert tools.fits(elastic(DOUBLE), decision.plan.replicas, decision.capacity)


@pytest.mark.parametrize("name", PLANNERS)
def test_capacity_is_handed_back_when_load_stays_low(name: str) -> None:
    module = loaded(name)
    now = elastic(MIX, gpus=32, plan=(*[a100(LARGE, 2)] * 6, *[a100(SMALL)] * 20))
    asked = []
    for _ in range(8):
        decision = module.plan(now) if module.should_reschedule(now) else Decision(now.plan)
        now = next_point(now, decision, MIX)
        asked.append(now.pools[0].requested)
    # 20 and 12 units need eight A100 and two pairs at least; nobody asked for 32 GPUs before, so nothing is held.
    assert 12 <= asked[-1] <= 16
    assert asked[-4:] == [asked[-1]] * 4
    assert now.estimate(now.plan).headroom >= 1.15


@pytest.mark.parametrize("name", PLANNERS)
def test_capacity_is_kept_for_a_few_plans_after_it_was_needed(name: str) -> None:
    module = loaded(name)
    now = elastic(DOUBLE)
    asked = []
    for _ in range(6):
        assert module.should_reschedule(now)
        decision = module.plan(now)
        asked.append(decision.capacity["a100"])
        now = next_point(now, decision, MIX)
        if asked[-1] < asked[0]:
            break
    assert asked[: module.names["SHRINK_PLANS"]] == [24] * module.names["SHRINK_PLANS"]
    assert asked[-1] == 12


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("objective", ["cost_per_good", "goodput", "delay", "total_time"])
def test_no_model_loses_its_last_replica_however_silent(name: str, objective: str) -> None:
    silent = {"small/<512": 45.0}
    for now in (
        state(MIX, silent, objective=objective),
        state(silent, objective=objective),
        elastic(MIX, silent, gpus=32, objective=objective),
    ):
        plan = loaded(name).plan(now).plan
        roles = {replica.role for replica in plan.replicas_of(LARGE)}
        assert BOTH in roles or roles == {PREFILL, DECODE}


@pytest.mark.parametrize("name", PLANNERS)
def test_a_plan_made_for_this_load_on_these_gpus_is_not_made_again(name: str) -> None:
    module = loaded(name)
    for now in (state(MIX), elastic(MIX)):
        assert module.should_reschedule(now) is True
        later = next_point(now, module.plan(now), MIX)
        assert module.should_reschedule(later) is False
        lost = tuple(replace(p, available=p.available - 4) for p in later.pools)
        assert module.should_reschedule(replace(later, pools=lost)) is True


@pytest.mark.parametrize("name", PLANNERS)
def test_a_fixed_pool_that_lost_nodes_is_planned_for_as_it_is(name: str) -> None:
    now = state(
        MIX, pools=(pool("h100", 8), replace(pool("a100", 8), available=4)), plan=(h100(LARGE, 4), a100(SMALL, 4))
    )
    plan = loaded(name).plan(now).plan
    assert tools.fits(now, plan.replicas)
    gone = replace(now, plan=ServingPlan(tuple(sorted((h100(LARGE, 4), *[a100(SMALL, 4)] * 2)))))
    assert tools.fits(gone, loaded(name).plan(gone).plan.replicas)


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("objective", ["cost_per_good", "goodput"])
def test_an_announced_loss_lowers_no_request(name: str, objective: str) -> None:
    now = elastic(MIX, gpus=16, plan=(*[a100(LARGE, 2)] * 3, *[a100(SMALL)] * 10), objective=objective)
    losing = replace(now, announced=(CapacityChange(90.0, "a100", 8),))
    assert loaded(name).plan(losing).capacity["a100"] >= 16
    # Money does not count towards good requests: all that can be had is asked for.
    assert objective == "cost_per_good" or loaded(name).plan(losing).capacity["a100"] == 32


# --- ThunderServe ---------------------------------------------------------------------------------------------------


def test_phases_follow_what_each_kind_does_best() -> None:
    flows = loaded("thunderserve").names["Flows"](phased(22.0, COLOCATED))
    # H100 first: 8 of 14 in prefill, A100 2 of 6. With 1 to 5 groups in prefill the flows are min(8, 34), min(16, 28),
    # min(24, 22), min(32, 16) and min(34, 12).
    assert tuple(sorted(flows.designated(list(COLOCATED)))) == SPLIT
    assert flows.served(SPLIT) == {SMALL: pytest.approx(1.0)}
    assert flows.designated([h100(SMALL)]) == [h100(SMALL)]


def test_routes_divide_each_phase_by_what_its_groups_serve() -> None:
    now = phased(22.0, COLOCATED)
    decision = loaded("thunderserve").plan(now)
    assert decision.plan.sorted().replicas == SPLIT
    # Half of a share for each phase: 1/3 of prefill for an H100; 6/22 of decode for an H100, 4/22 for an A100.
    share = {h100(SMALL).with_options(role=PREFILL): 1 / 6, h100(SMALL).with_options(role=DECODE): 3 / 22,
             a100(SMALL).with_options(role=DECODE): 2 / 22}  # fmt: skip
    assert decision.plan.shares_of("small/<512") == pytest.approx([share[r] for r in decision.plan.replicas])


def test_what_can_be_placed_before_more_gpus_come_is_in_balance() -> None:
    # Prefill has 0, 8 and 16 before each H100; decode 0, 4, 8 and 12 before each A100 and 16 before its H100.
    fast, slow, a = h100(SMALL).with_options(role=PREFILL), h100(SMALL).with_options(role=DECODE), a100(SMALL)
    module = loaded("thunderserve")
    flows = module.names["Flows"](phased(22.0, COLOCATED))
    even = a.with_options(role=DECODE)
    assert module.names["ordered"](flows, SPLIT) == (even, fast, even, even, fast, even, slow, fast)


@pytest.mark.parametrize(("start_s", "moves"), [(35.0, True), (45.0, False)])
def test_a_split_has_to_pay_within_the_horizon(start_s: float, moves: bool) -> None:
    # 22 requests/s. Colocated, headroom 0.866: worth 0.693 + 0.866 + 0.02 · 0.693/1.693 = 1.567. Split, headroom 1:
    # 0.8 + 1 + 0.02 · 0.8/1.8 = 1.809. 1.809 · (300 − τ) > 1.567 · 300 up to τ = 40.
    decision = loaded("thunderserve").plan(phased(22.0, COLOCATED, start_s=start_s))
    assert decision.plan.sorted().replicas == (SPLIT if moves else tuple(sorted(COLOCATED)))


def test_tabu_search_leaves_a_plan_from_which_every_step_is_down() -> None:
    module = loaded("thunderserve")
    now = phased(22.0, COLOCATED)
    flows, judge = module.names["Flows"](now), module.names["Judge"](now, {})
    # (H100 in prefill, in decode; A100 likewise): (1,3,4,0) serves min(16, 18) = 16. One flip away are (2,2,4,0) with
    # min(24, 12), (1,3,3,1) with min(14, 22) and (0,4,4,0) with min(8, 24), so climbing ends here.
    valley = groups(1, 3, 4, 0)

    def neighbours(state: ServingState, plan: ServingPlan) -> list[ServingPlan]:
        return [ServingPlan(replicas) for replicas in module.names["flipped"](plan.replicas)]

    climbed = tools.local_search(now, ServingPlan(valley), 20, neighbours, lambda s, p: -s.estimate(p).headroom)
    assert climbed.replicas == valley
    # Tabu goes through 14, (2,2,3,1) with 16, (2,2,2,2) with 20, (2,2,1,3) with 18 and (3,1,1,3) with 18 to 22.
    assert module.names["searched"](flows, valley, judge, light=True) == SPLIT


def test_free_gpus_become_groups_of_the_phase_that_lacks_them() -> None:
    module = loaded("thunderserve")
    now = phased(22.0, COLOCATED)
    flows, judge = module.names["Flows"](now), module.names["Judge"](now, {})
    # min(8, 12): an H100 in prefill makes min(16, 12), one in decode min(16, 18), one in prefill min(24, 18), and the
    # last A100 in decode min(24, 22).
    assert module.names["filled"](flows, groups(1, 0, 0, 3), judge) == SPLIT


def test_a_shift_of_load_changes_phases_only_where_that_leaves_room() -> None:
    module = loaded("thunderserve")
    before = phased(17.0, SPLIT)
    planned = remembering(before, module.plan(before))
    now = replace(phased(11.0, SPLIT, output=200.0, start_s=10.0), memory=planned.memory)
    assert module.should_reschedule(now) is True
    # Twice the output halves decoding: min(24, 3 + 8) = 11, headroom 1. With one H100 more in decode it is
    # min(16, 6 + 8) = 14, headroom 1.27, above the margin; so no group is built anew.
    assert module.plan(now).plan.sorted().replicas == groups(2, 2, 0, 4)


def test_lost_gpus_make_a_full_search() -> None:
    module = loaded("thunderserve")
    before = phased(12.0, SPLIT)
    planned = remembering(before, module.plan(before))
    now = replace(planned, pools=(UNLIKE[0], replace(UNLIKE[1], available=0)))
    assert module.should_reschedule(now) is True
    # Without A100, SPLIT is left with 3 · 8 and 6. The best split is min(16, 12) = 12; four H100 for both phases make
    # 13.7.
    assert module.plan(now).plan.replicas == (h100(SMALL),) * 4


@pytest.mark.parametrize(
    ("rates", "output", "stale"),
    [({"small/<512": 21.0}, 100.0, False), ({"small/<512": 22.0}, 100.0, True), ({"small/<512": 17.0}, 130.0, True)],
)
def test_rates_and_lengths_make_a_plan_stale(rates: dict[str, float], output: float, stale: bool) -> None:
    module = loaded("thunderserve")
    before = phased(17.0, SPLIT)
    memory = remembering(before, module.plan(before)).memory
    # 17 of 21 is a shift of 0.19, 17 of 22 one of 0.23; 100 of 130 tokens one of 0.23.
    now = replace(phased(rates["small/<512"], SPLIT, output), memory=memory)
    assert module.should_reschedule(now) is stale


# --- OServe ---------------------------------------------------------------------------------------------------------


def test_the_prediction_follows_level_and_trend() -> None:
    ahead = loaded("oserve").names["ahead"]
    assert ahead([10.0]) == 10.0
    # level (20 + 10) / 2 = 15, trend 0.3 · 5 = 1.5
    assert ahead([10.0, 20.0]) == pytest.approx(16.5)
    # level (30 + 16.5) / 2 = 23.25, trend 1.5 + 0.3 · (8.25 − 1.5) = 3.525
    assert ahead([10.0, 20.0, 30.0]) == pytest.approx(26.775)
    # level 20, then 7; trend −6, then −8.1; but a quarter of the mean, 13.3, remains
    assert ahead([40.0, 0.0, 0.0]) == pytest.approx(10 / 3)


def test_the_queue_is_to_be_worked_off_beside_the_prediction() -> None:
    now = state({"small/<512": 10.0}, {"small/<512": 20.0})
    assert now.window is not None
    waiting = tuple(replace(entry, queued=600) for entry in now.window.classes)
    predicted = loaded("oserve").names["predicted"](replace(now, window=replace(now.window, classes=waiting)))
    # 600 requests in five windows of 60 s are 2 a second.
    assert tools.demand(predicted) == {"small/<512": pytest.approx(18.5)}


def test_an_exchange_between_classes_is_counted_once() -> None:
    change = loaded("oserve").names["change"]
    assert change({"a": 60.0, "b": 40.0}, {"a": 40.0, "b": 60.0}) == pytest.approx(0.2)
    assert change({"a": 60.0}, {"a": 60.0, "b": 20.0}) == pytest.approx(0.25)
    assert change({}, {}) == 0.0


def test_flows_send_each_class_where_it_is_served_best() -> None:
    # Long prompts cost 4 units on an H100 and 8 on an A100: 24 or 48 a second; short ones 16. By speed, the A100 get a
    # third of both, 21.3 for their 16 units: headroom 0.75. With all that is long on the H100 and 5/6 of what is short
    # on the A100, both are busy to 5/6: 24 + 2.67 of 32 and 13.33 of 16. Headroom 1.2.
    load = {"small/<512": 16.0, "small/<8192": 6.0}
    now = state(load, pools=UNLIKE, models=(SMALL,), plan=COLOCATED)
    plan = loaded("oserve").names["assigned"](now, now.plan.replicas)
    assert now.estimate(ServingPlan(now.plan.replicas)).headroom == pytest.approx(0.75)
    assert now.estimate(plan).headroom == pytest.approx(1.2)
    short = dict(zip(plan.replicas, plan.shares_of("small/<512") or (), strict=True))
    long = dict(zip(plan.replicas, plan.shares_of("small/<8192") or (), strict=True))
    assert short == {a100(SMALL): pytest.approx(5 / 24), h100(SMALL): pytest.approx(1 / 24)}
    assert long == {a100(SMALL): 0.0, h100(SMALL): pytest.approx(1 / 4)}
    use = loaded("oserve").names["Feedback"](now).use(plan.replicas)
    assert use == {a100(SMALL): pytest.approx(5 / 6), h100(SMALL): pytest.approx(5 / 6)}


SHIFTED = {"small/<512": 40.0, "large/<512": 3.0}


@pytest.mark.parametrize(("start_s", "moves"), [(95.0, True), (110.0, False)])
def test_gpus_move_to_the_most_used_model_if_that_pays(start_s: float, moves: bool) -> None:
    # Two groups of four, 28.8 units each, for 40 and 12: used to 139 % and 42 %. Half of the large group becomes two
    # singles: 28.8 + 16 for 40, 15.2 for 12. Then the small group becomes four singles: 48 for 40, headroom 1.2.
    # Worth 0.576 + 0.72 + 0.007 = 1.303 before, 0.96 + 1 + 0.01 = 1.970 then: 1.970 · (300 − τ) > 1.303 · 300 up to
    # τ = 101.
    now = state(SHIFTED, estimator=LinearEstimator(start_s))
    use = loaded("oserve").names["Feedback"](now).use(now.plan.replicas)
    assert use == {h100(SMALL, 4): pytest.approx(40 / 28.8), h100(LARGE, 4): pytest.approx(12 / 28.8)}
    plan = loaded("oserve").plan(now).plan
    assert Counter(plan.replicas) == (
        Counter({h100(LARGE, 2): 1, h100(SMALL): 6}) if moves else Counter(now.plan.replicas)
    )


def test_models_exchange_unlike_gpus() -> None:
    # The small model's long prompts cost 8 units on an A100 and 4 on an H100: a group of four serves 14.4/8 = 1.8 or
    # 28.8/4 = 7.2 a second. The large model needs 8 units of 14.4 or 28.8.
    load = {"small/<8192": 3.0, "large/<512": 2.0}
    now = state(load, pools=UNLIKE, plan=(a100(SMALL, 4), h100(LARGE, 4)))
    plan = loaded("oserve").plan(now).plan
    assert {replica.gpu for replica in plan.replicas_of(SMALL)} == {"h100"}
    assert {replica.gpu for replica in plan.replicas_of(LARGE)} == {"a100"}


def test_one_busy_window_makes_no_plan_stale_and_two_do() -> None:
    module = loaded("oserve")
    before = state(MIX)
    planned = remembering(before, module.plan(before))
    busy = {"small/<512": 26.0, "large/<512": 3.0}
    # All requests are as long, so rates are the mix, 20 and 3. After one window the level of the small model is 23 and
    # its trend 0.9: 3.9 more of 26.9 are 14 %. After two it is (26 + 23.9) / 2 = 24.95, the trend
    # 0.9 + 0.3 · (1.95 − 0.9) = 1.215: 6.2 more of 29.2 are 21 %.
    assert module.should_reschedule(replace(state(MIX, busy), memory=planned.memory)) is False
    assert module.should_reschedule(replace(state(MIX, busy, busy), memory=planned.memory)) is True
