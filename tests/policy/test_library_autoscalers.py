"""The human policies that follow published autoscalers, on cases worked by hand.

One A100 serves 4 units/s and one H100 8 (`tool_states`); a request of the small model is one unit, of the large one 4.
"""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import pytest
from test_library import a100, elastic, h100, loaded, next_point
from tool_states import LARGE, SMALL, LinearEstimator, pool, state

from autopoiesis.plan import Envelope, Replica, Role, ServingPlan
from autopoiesis.policy import Decision, ServingState, tools
from autopoiesis.policy.interface import CapacityChange, Estimate, Observation, ReplicaStatus, TransitionStatus
from autopoiesis.policy.library import library

AUTOSCALERS = ("dynamo-sla", "kpa", "scale-to-load")
MIX = {"small/<512": 20.0, "large/<512": 3.0}


@dataclass(slots=True)
class Phased(LinearEstimator):
    """A replica that only prefills serves twice what one of both phases does, one that only decodes 1.25 times that.

    It expects a TTFT of 0.5 s and an ITL of 0.02 s, as is measured by default, and an unloaded ITL of 0.01 s.
    """

    ttft_s: float = 0.5
    tpot_s: float = 0.02

    def throughput(self, observation: Observation, replica: Replica) -> dict[str, float]:
        factor = {Role.PREFILL: 2.0, Role.DECODE: 1.25}.get(replica.role, 1.0)
        rates = LinearEstimator.throughput(self, observation, replica)
        return {label: rate * factor for label, rate in rates.items()}

    def estimate(self, observation: Observation, plan: ServingPlan) -> Estimate:
        plain = LinearEstimator.estimate(self, observation, plan)
        tpot_s = 0.01 if plain.headroom > 20 else self.tpot_s
        return replace(plain, headroom=max(plain.headroom, 1.0), ttft_p90_s=self.ttft_s, tpot_p90_s=tpot_s)


def split(gpu: str, prefill: int, decode: int) -> tuple[Replica, ...]:
    one = Replica(SMALL, gpu)
    return (one.with_options(role=Role.PREFILL),) * prefill + (one.with_options(role=Role.DECODE),) * decode


def small(rate: float, plan: Sequence[Replica], pools: Any = None, **values: Any) -> ServingState:
    """The small model alone, by default on 4 to 32 A100 of which 16 are there."""
    pools = pools or (pool("a100", 16, 32),)
    return state({"small/<512": rate}, pools=pools, models=(SMALL,), plan=tuple(plan), **values)


def by_role(decision: Decision) -> dict[Role, int]:
    return Counter(replica.role for replica in decision.plan.replicas)


def in_flight(now: ServingState, together: dict[str, float]) -> ServingState:
    """The state with the plan's replicas serving, and as many requests of each model in flight, evenly spread."""
    statuses = []
    for model, requests in together.items():
        own = now.plan.replicas_of(model)
        counts = [round(requests * (i + 1) / len(own)) - round(requests * i / len(own)) for i in range(len(own))]
        for replica, count in zip(own, counts, strict=True):
            statuses.append(ReplicaStatus(replica, "serving", count, 500 * count, count, 0, 0.5, 1.0))
    return replace(now, replicas=tuple(statuses))


def busy(now: ServingState) -> ServingState:
    """With what Little's law puts in flight: 2.5 s a request (0.5 s to the first token, 100 of 0.02 s)."""
    rates = {model: tools.demand(now, model) for model in now.models}
    return in_flight(now, {model: 2.5 * sum(rate.values()) for model, rate in rates.items()})


def decide(name: str, now: ServingState) -> Decision:
    module = loaded(name)
    return module.plan(busy(now)) if module.should_reschedule(busy(now)) else Decision(now.plan)


# --- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AUTOSCALERS)
def test_an_autoscaler_answers_in_every_situation_and_keeps_every_model(name: str) -> None:
    spot = pool("a100", 8, 16, name="spot", spot=True)
    situations = (
        state(MIX),
        elastic({"small/<512": 0.0}),
        elastic(MIX, {"small/<512": 45.0}, gpus=32),
        state({"large/<8192": 40.0}, pools=(pool("a100", 4, 16),), plan=(a100(LARGE, 4),)),
        state(MIX, pools=(pool("h100", 8), spot), plan=(h100(LARGE, 4), a100(LARGE, 4), *[h100(SMALL)] * 4)),
        state(MIX, pools=(pool("h100", 8), spot), announced=(CapacityChange(90.0, "spot", 4),)),
        elastic(MIX, envelope=Envelope(minimum_replicas=2, maximum_gpus=10)),
        small(30.0, split("a100", 4, 6)),
        small(90.0, split("h100", 4, 4), (pool("h100", 8),)),
    )
    for objective in ("cost_per_good", "goodput", "delay", "total_time"):
        for now in situations:
            now = replace(now, objective=objective)
            decision = loaded(name).plan(busy(now))
            for model in now.models:
                roles = {replica.role for replica in decision.plan.replicas_of(model)}
                assert roles in ({Role.MIXED}, {Role.PREFILL, Role.DECODE})
            assert decision.plan == now.plan or tools.fits(now, decision.plan.replicas, tools.reach(now))


@pytest.mark.parametrize("name", AUTOSCALERS)
def test_an_autoscaler_follows_load_up_and_down_and_then_rests(name: str) -> None:
    now = elastic({"small/<512": 40.0, "large/<512": 6.0}, gpus=12)
    asked = []
    for point in range(24):
        rates = {label: rate * (2 if point < 10 else 1) for label, rate in MIX.items()}
        decision = decide(name, now)
        now = next_point(now, decision, rates)
        asked.append(now.pools[0].requested)
    # 40 and 24 units: 10 singles and 4 pairs (7.6) at full use are 18 GPUs, at 0.7 14 + 5 pairs are 24.
    assert 18 <= asked[9] <= 28
    # 20 and 12 units: 5 singles and 2 pairs are 9 GPUs, at 0.7 8 + 3 pairs are 14.
    assert 9 <= asked[-1] <= 16
    assert len(set(asked[-5:])) == 1


@pytest.mark.parametrize("name", AUTOSCALERS)
def test_what_is_about_to_be_lost_serves_until_it_is(name: str) -> None:
    # 60 units need more than the eight GPUs that a loss of 24 will leave.
    now = small(
        60.0, [a100(SMALL)] * 32, (pool("a100", 32, 32, minimum=4),), announced=(CapacityChange(90.0, "a100", 8),)
    )
    decision = loaded(name).plan(in_flight(now, {SMALL: 150}))
    assert decision.plan == now.plan
    assert decision.capacity == {}


@pytest.mark.parametrize(
    "name",
    [
        path.name.removesuffix(".toml")
        for path in sorted(files("autopoiesis.bench").joinpath("suite/tuning").iterdir(), key=lambda path: path.name)
    ],
)
def test_what_is_tuned_is_a_constant_and_the_default_is_among_the_values(name: str) -> None:
    text = files("autopoiesis.bench").joinpath(f"suite/tuning/{name}.toml").read_text(encoding="utf-8")
    assert name in library()
    for constant, values in tomllib.loads(text)["parameters"].items():
        assert loaded(name).names[constant] in values


# --- Kubernetes' rule -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "replicas"),
    [
        # Eight serve 32. At 30/s they are 93.75 % busy, and 8 · 0.9375 ÷ 0.75 = 10.
        (30.0, 10),
        # 26/s: 81.25 %, 1.083 times the target, within the tolerance. 27/s: 1.125 times, and 8 · 1.125 = 9.
        (26.0, 8),
        (27.0, 9),
        # 22/s: 0.917 times, within. 21/s: 0.875 times asks for 7, but 8 were right within the last five minutes.
        (22.0, 8),
        (21.0, 8),
    ],
)
def test_desired_replicas_are_the_current_ones_times_utilisation_over_target(rate: float, replicas: int) -> None:
    module = loaded("scale-to-load")
    now = small(rate, [a100(SMALL)] * 8)
    assert module.should_reschedule(now) is (rate in (30.0, 27.0, 21.0))
    assert len(module.plan(now).plan.replicas) == replicas


@pytest.mark.parametrize("window_s", [60.0, 150.0])
def test_the_largest_recommendation_of_five_minutes_counts(window_s: float) -> None:
    now = replace(small(12.0, [a100(SMALL)] * 8), window_s=window_s)
    counts = []
    for _ in range(6):
        decision = loaded("scale-to-load").plan(now)
        counts.append(len(decision.plan.replicas))
        now = replace(next_point(now, decision, {"small/<512": 12.0}), window_s=window_s)
    # 12 ÷ 3 = 4 from the first point on. Eight were right a window before it: five windows of 60 s, two of 150 s.
    assert counts == ([8, 8, 8, 8, 4, 4] if window_s == 60.0 else [8, 4, 4, 4, 4, 4])


def test_prefill_and_decode_pools_are_scaled_apart() -> None:
    # One prefills 8/s and one decodes 5/s: 36 ÷ (8 · 0.75) = 6 and 36 ÷ (5 · 0.75) = 9.6.
    now = small(36.0, split("a100", 4, 6), estimator=Phased())
    assert by_role(loaded("scale-to-load").plan(now)) == {Role.PREFILL: 6, Role.DECODE: 10}


# --- Dynamo's planner -----------------------------------------------------------------------------------------------


def measured(now: ServingState, ttft_s: float = 0.5, tpot_s: float = 0.02) -> ServingState:
    assert now.window is not None
    classes = tuple(replace(entry, ttft_p90_s=ttft_s, tpot_p90_s=tpot_s) for entry in now.window.classes)
    return replace(now, window=replace(now.window, classes=classes))


@pytest.mark.parametrize(
    ("ttft_s", "tpot_s", "prefill", "decode"),
    [
        # As expected: ⌈30 ÷ 8⌉ and 30 ÷ 5.
        (0.5, 0.02, 4, 6),
        # c_p = 0.8: 30 · 0.8 ÷ 8 = 3. c_p = 2 is a queue, and says nothing.
        (0.4, 0.02, 3, 6),
        (1.0, 0.02, 4, 6),
        # c_d = 1.5: an ITL of 0.033 s by the profile, at which (0.05 − 0.015) ÷ (0.05 − 0.01) = 0.875 of 5/s: 6.9.
        (0.5, 0.03, 4, 7),
        # c_d = 0.5: (0.05 − 0.005) ÷ 0.04 = 1.125 of 5/s: 5.3.
        (0.5, 0.01, 4, 6),
    ],
)
def test_pools_are_sized_apart_and_corrected_by_what_was_measured(
    ttft_s: float, tpot_s: float, prefill: int, decode: int
) -> None:
    now = measured(small(30.0, split("a100", 4, 4), estimator=Phased()), ttft_s, tpot_s)
    decision = loaded("dynamo-sla").plan(now)
    assert by_role(decision) == {Role.PREFILL: prefill, Role.DECODE: decode}
    assert decision.capacity == {"a100": 4 * math.ceil((prefill + decode) / 4)}


@pytest.mark.parametrize(
    ("ttft_s", "tpot_s", "replicas"),
    [
        # ⌈30 ÷ 4⌉; with c_p = 0.8 decoding still needs them all; with c_d = 1.5 it needs 30 ÷ (4 · 0.875) = 8.6.
        (0.5, 0.02, 8),
        (0.4, 0.02, 8),
        (0.5, 0.03, 9),
    ],
)
def test_replicas_of_both_phases_are_sized_by_the_larger_need(ttft_s: float, tpot_s: float, replicas: int) -> None:
    now = measured(small(30.0, [a100(SMALL)] * 4, estimator=Phased()), ttft_s, tpot_s)
    assert len(loaded("dynamo-sla").plan(now).plan.replicas) == replicas


def test_a_fixed_cluster_is_divided_in_proportion_to_the_needs() -> None:
    module = loaded("dynamo-sla")
    fixed = (pool("h100", 8),)
    # 40 ÷ 16 = 2.5 to prefill and 40 ÷ 10 = 4 to decode: of eight, 3 and 5 serve 1.2 and 1.25 times the load.
    for prefill in (2, 4, 6):
        now = small(40.0, split("h100", prefill, 8 - prefill), fixed, estimator=Phased())
        assert by_role(module.plan(now)) == {Role.PREFILL: 3, Role.DECODE: 5}
    # 20 units on H100 of 8 need 2.5 of them, 36 on groups of 28.8 need 1.25 groups, 5 GPUs. Of 16 GPUs 5.3 and 10.7
    # would be in proportion; four and three groups serve 1.6 and 2.4 times the loads, where one group served 0.8.
    pools = (pool("h100", 16),)
    now = state(
        {"small/<512": 20.0, "large/<512": 9.0},
        pools=pools,
        plan=(h100(LARGE, 4), *[h100(SMALL)] * 12),
        estimator=Phased(),
    )
    assert Counter(module.plan(now).plan.replicas) == {h100(LARGE, 4): 3, h100(SMALL): 4}


@pytest.mark.parametrize(("prefill", "moves"), [(7, False), (8, True)])
def test_gpus_of_a_fixed_cluster_change_hands_for_a_clear_gain_only(prefill: int, moves: bool) -> None:
    # Six and ten serve 96 and 100/s. Seven and nine serve 112 and 90, 6.7 % less; eight and eight 80, 20 % less.
    plan = split("h100", prefill, 16 - prefill)
    decision = loaded("dynamo-sla").plan(small(80.0, plan, (pool("h100", 16),), estimator=Phased()))
    assert by_role(decision) == ({Role.PREFILL: 6, Role.DECODE: 10} if moves else Counter(r.role for r in plan))


def test_what_cannot_be_had_is_divided_too() -> None:
    # 80/s need 10 and 16 of at most 16: 6 and 10 serve 0.6 and 0.625 of the need.
    now = small(80.0, split("a100", 2, 2), (pool("a100", 4, 16),), estimator=Phased())
    decision = loaded("dynamo-sla").plan(now)
    assert by_role(decision) == {Role.PREFILL: 6, Role.DECODE: 10}
    assert decision.capacity == {"a100": 16}


def test_the_planner_adjusts_once_an_interval_and_never_while_moving() -> None:
    module = loaded("dynamo-sla")
    now = small(30.0, [a100(SMALL)] * 8)
    assert module.should_reschedule(now) is True
    asked = []
    for _ in range(6):
        asked.append(module.should_reschedule(now))
        now = next_point(now, module.plan(now) if asked[-1] else Decision(now.plan), {"small/<512": 30.0})
    assert asked == [True, False, False, True, False, False]
    moving = TransitionStatus(now.plan, 0.0, 1, 2)
    assert module.should_reschedule(replace(now, moving=moving, memory={})) is False


def test_the_percentile_of_a_mixture_lies_where_a_tenth_is_slower() -> None:
    p90 = loaded("dynamo-sla").names["p90"]
    assert p90([(0.5, 10), (0.5, 90)]) == 0.5
    assert p90([(0.5, 10), (0.0, 0)]) == 0.5
    assert p90([]) == 0.0
    # Half of 1 s and half of 2 s: 0.1^t + 0.1^(t/2) = 0.2 at x = 0.1^(t/2) = (√1.8 − 1) ÷ 2 = 0.171, t = 1.535.
    assert p90([(1.0, 50), (2.0, 50)]) == pytest.approx(1.535, abs=1e-3)


# --- Knative's autoscaler -------------------------------------------------------------------------------------------


def unsettled(now: ServingState, stay_s: float = 2.5) -> ServingState:
    """The state after windows in which requests stayed so long, and one that tells nothing: none was within SLO."""
    assert now.window is not None
    classes = tuple(replace(entry, good=0) for entry in now.window.classes)
    known = {"stays": {"small/mixed": [10 * stay_s, 10.0]}} | now.memory
    return replace(now, window=replace(now.window, classes=classes), memory=known)


def knative(each: Sequence[float], count: int, rate: float = 28.0, **constants: float) -> list[int]:
    """Replicas of the small model at points with so many requests in flight together; alone, they stay 2.5 s."""
    module = loaded("kpa")
    module.names.update(constants)
    now = small(rate, [a100(SMALL)] * count)
    counts = []
    for together in each:
        decision = module.plan(in_flight(unsettled(now), {SMALL: together}))
        counts.append(len(decision.plan.replicas))
        now = next_point(now, decision, {"small/<512": rate})
    return counts


def test_a_replica_is_given_seven_tenths_of_what_it_serves_within_slo() -> None:
    # 4/s that stay 2.5 s are ten in flight, and 7 are aimed at: ⌈49 ÷ 7⌉, ⌈50 ÷ 7⌉, ⌈70 ÷ 7⌉.
    assert [knative([load], 7) for load in (49, 50, 70)] == [[7], [8], [10]]
    # No more than the sequence cap: 0.7 · 5 = 3.5.
    few = a100(SMALL).with_options(max_sequences=5)
    now = unsettled(small(28.0, [few] * 7))
    assert len(loaded("kpa").plan(in_flight(now, {SMALL: 49})).plan.replicas) == 14


def test_how_long_requests_stay_is_measured_while_they_are_within_slo() -> None:
    # 56 in flight at 28/s are 2 s each: a replica is given 4 · 2 · 0.7 = 5.6, as 28 ÷ (4 · 0.7) = 10 says, too.
    calm = loaded("kpa").plan(in_flight(small(28.0, [a100(SMALL)] * 8), {SMALL: 56}))
    assert len(calm.plan.replicas) == 10
    # Nine tenths of that 2 s and one window of 4 s: (0.9 · 56 + 112) ÷ (1.9 · 28) = 3.05 s.
    later = in_flight(next_point(small(28.0, [a100(SMALL)] * 8), calm, {"small/<512": 28.0}), {SMALL: 112})
    stays = (loaded("kpa").plan(later).memory or {})["stays"]
    assert stays["small/mixed"][0] / stays["small/mixed"][1] == pytest.approx(3.053, abs=1e-3)
    # Beyond it, nothing is learnt: 112 ÷ 5.6 = 20 is twice the ten that are there.
    late = replace(unsettled(later), memory=later.memory)
    assert len(loaded("kpa").plan(late).plan.replicas) == 20
    # Nothing known yet: 1.25 s and 100 of 0.05 s are promised, 4 · 6.25 · 0.7 = 17.5, and 280 ÷ 17.5 = 16.
    first = replace(unsettled(small(28.0, [a100(SMALL)] * 10)), memory={})
    assert len(loaded("kpa").plan(in_flight(first, {SMALL: 280})).plan.replicas) == 16


def test_calm_load_is_averaged_over_the_stable_window() -> None:
    # (49 + 77) ÷ 2 = 63 and (49 + 77 + 63) ÷ 3 = 63 are 9 replicas; 11 for the last point alone is no panic.
    assert knative([49, 77, 63], 7) == [7, 9, 9]


def test_panic_acts_on_the_last_point_and_holds_for_a_stable_window() -> None:
    # 105 ÷ 7 = 15 is twice 7; the mean of 49 and 105 would be 11. The mean is back at 49 when panic is over, and a
    # point may halve what there is: 15 ÷ 2 = 7.5.
    assert knative([49, 105, 49, 49, 49, 49, 49], 7) == [7, 15, 15, 15, 15, 15, 7]


def test_a_point_shrinks_by_half_at_most_and_after_the_delay() -> None:
    assert knative([14, 14, 14, 14], 16) == [8, 4, 2, 2]
    assert knative([14, 14, 14, 14], 16, SCALE_DOWN_DELAY_S=120.0, STABLE_S=60.0) == [8, 8, 4, 4]
    assert knative([140], 7, MAX_SCALE_UP=1.5) == [11]


def test_what_the_gateway_holds_is_in_flight_too() -> None:
    now = small(28.0, [a100(SMALL)] * 7)
    assert now.window is not None
    waiting = tuple(replace(entry, backlog=70) for entry in now.window.classes)
    held = in_flight(unsettled(replace(now, window=replace(now.window, classes=waiting))), {SMALL: 49})
    assert len(loaded("kpa").plan(held).plan.replicas) == 10


def test_on_a_fixed_cluster_nothing_is_scaled_by_concurrency() -> None:
    now = in_flight(state(MIX), {SMALL: 400, LARGE: 400})
    assert loaded("kpa").should_reschedule(now) is False
    assert loaded("kpa").plan(now).plan == now.plan
