"""The fluid model: what it promises of any plan and load, and how near it is to a request-level simulation."""

from __future__ import annotations

import heapq
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from autopoiesis.cluster import Hardware
from autopoiesis.cluster.catalog import gpus, models
from autopoiesis.cost import CostModel, StepTimes
from autopoiesis.plan import ClassShares, Envelope, Replica, Role, ServingPlan
from autopoiesis.policy.interface import Estimate, Observation, PoolView, ReplicaStatus
from autopoiesis.simulate.fluid import (
    DEFAULT_OUTPUT_TOKENS,
    ClassLoad,
    FluidEstimator,
    class_loads,
    estimate_plan,
    log_normal_sigma,
    paid_per_hour,
    warm,
)
from autopoiesis.workload import SLO, ClassWindow, Window

SMALL, LARGE = "llama-3.1-8b", "llama-3.1-70b"
COST = CostModel(Hardware(gpus(), models()))
SLOS = {SMALL: SLO(tpot_s=0.05), LARGE: SLO(tpot_s=0.1)}
ONE = Replica(SMALL, "h100")


def load(rate: float, model: str = SMALL, bucket: str = "<2048", **lengths: float) -> ClassLoad:
    usual = {"input_mean": 1000.0, "input_p90": 1600.0, "output_mean": 200.0, "output_p90": 400.0}
    return ClassLoad(f"{model}/{bucket}", model, rate, **(usual | lengths))


def estimate(
    replicas: tuple[Replica, ...],
    *loads: ClassLoad,
    shares: tuple[ClassShares, ...] = (),
    price: float = 10.0,
    window_s: float = 60.0,
) -> Estimate:
    return estimate_plan(COST, ServingPlan(replicas, shares), loads, SLOS, window_s, price)


REPLICAS = st.builds(
    Replica,
    model=st.just(SMALL),
    gpu=st.sampled_from(["h100", "a100", "l40s", "h200"]),
    tensor_parallel=st.sampled_from([1, 2]),
    batched_tokens=st.sampled_from([2048, 8192]),
    max_sequences=st.sampled_from([64, 256]),
)
DEPLOYMENTS = st.one_of(
    st.lists(REPLICAS, min_size=1, max_size=5).map(tuple),
    st.tuples(
        REPLICAS.map(lambda r: replace(r, role=Role.PREFILL)), REPLICAS.map(lambda r: replace(r, role=Role.DECODE))
    ),
)


@st.composite
def class_load_lists(draw: st.DrawFn) -> list[ClassLoad]:
    loads = []
    for bucket in range(draw(st.integers(1, 3))):
        tokens = draw(st.floats(50, 8000))
        # TPOT of two or three tokens is that of one or two steps: the one thing a mean-field tail is wrong about
        output = draw(st.just(1.0) | st.floats(10, 800))
        loads.append(
            ClassLoad(
                request_class=f"{SMALL}/{bucket}",
                model=SMALL,
                rate_rps=draw(st.floats(0.01, 40)),
                input_mean=tokens,
                input_p90=tokens * draw(st.floats(1, 2.5)),
                output_mean=output,
                output_p90=output * draw(st.floats(1, 2.5)),
                prefix_mean=tokens * draw(st.sampled_from([0.0, 0.5, 0.99])),
            )
        )
    return loads


def faster(loads: list[ClassLoad], factor: float) -> list[ClassLoad]:
    return [replace(entry, rate_rps=entry.rate_rps * factor) for entry in loads]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(DEPLOYMENTS, class_load_lists(), st.floats(1.02, 4))
def test_more_load_never_makes_it_better(replicas: tuple[Replica, ...], loads: list[ClassLoad], factor: float) -> None:
    calm, busy = estimate(replicas, *loads), estimate(replicas, *faster(loads, factor))
    assert busy.goodput <= calm.goodput + 0.01
    assert busy.ttft_p90_s >= calm.ttft_p90_s * 0.97
    assert busy.delay_s >= calm.delay_s * 0.999
    assert busy.headroom <= calm.headroom * 1.001


@settings(max_examples=150, deadline=None, derandomize=True)
@given(REPLICAS, st.integers(1, 6), class_load_lists())
def test_one_more_equal_replica_never_costs_headroom(replica: Replica, count: int, loads: list[ClassLoad]) -> None:
    more, fewer = estimate((replica,) * (count + 1), *loads), estimate((replica,) * count, *loads)
    assert more.headroom >= min(fewer.headroom * (count + 1) / count, 100) * 0.99


@settings(max_examples=100, deadline=None, derandomize=True)
@given(DEPLOYMENTS, class_load_lists())
def test_half_the_rate_is_twice_the_headroom(replicas: tuple[Replica, ...], loads: list[ClassLoad]) -> None:
    whole = estimate(replicas, *loads).headroom
    half = estimate(replicas, *faster(loads, 0.5)).headroom
    assert half == pytest.approx(min(2 * whole, 100), rel=0.03)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(DEPLOYMENTS, class_load_lists(), st.sampled_from([1e-6, 1.0, 1e3]), st.floats(0, 50))
def test_numbers_stay_in_their_bounds_and_never_become_nan(
    replicas: tuple[Replica, ...], loads: list[ClassLoad], factor: float, dispersion: float
) -> None:
    plan = ServingPlan(replicas)
    result = estimate_plan(COST, plan, faster(loads, factor), SLOS, 60.0, 10.0, dispersion)
    numbers = (result.headroom, result.cost_per_good_usd, result.delay_s, result.ttft_p90_s, result.tpot_p90_s)
    assert result.feasible
    assert 0 <= result.goodput <= 1
    assert all(number >= 0 and not math.isnan(number) for number in numbers)
    assert result == estimate_plan(COST, plan, faster(loads, factor), SLOS, 60.0, 10.0, dispersion)


def test_burstier_arrivals_wait_longer() -> None:
    loads = [load(24)]
    poisson = estimate_plan(COST, ServingPlan((ONE,)), loads, SLOS, 60.0, 10.0, 1.0)
    bursty = estimate_plan(COST, ServingPlan((ONE,)), loads, SLOS, 60.0, 10.0, 10.0)
    assert bursty.delay_s > poisson.delay_s
    assert bursty.goodput <= poisson.goodput


def test_a_queue_that_waits_already_is_load() -> None:
    assert estimate((ONE,), replace(load(10), queued=600)) == estimate((ONE,), load(20))


def test_an_overloaded_replica_serves_the_first_seconds_of_a_window_only() -> None:
    result = estimate((ONE,), load(60))
    assert result.headroom < 0.6
    assert result.goodput < 0.1
    assert 10 < result.delay_s < 60


def test_cost_is_money_over_good_requests() -> None:
    result = estimate((ONE,), load(5), price=36.0)
    assert result.goodput == pytest.approx(1.0)
    assert result.cost_per_good_usd == pytest.approx(36 / 3600 / 5)


def test_a_cached_prefix_makes_prompts_cheaper() -> None:
    fresh = load(2, input_mean=8000, input_p90=9000, output_mean=50, output_p90=60)
    assert estimate((ONE,), replace(fresh, prefix_mean=7000)).headroom > 2 * estimate((ONE,), fresh).headroom


def test_shares_say_where_a_class_goes() -> None:
    slow = Replica(SMALL, "l40s")
    shares = (ClassShares(f"{SMALL}/<2048", (0.5, 0.5)),)
    by_speed = estimate((ONE, slow), load(10))
    evenly = estimate((ONE, slow), load(10), shares=shares)
    alone = estimate((slow,), load(5))
    assert alone.headroom <= evenly.headroom < 1.2 * alone.headroom
    assert by_speed.headroom > 1.5 * evenly.headroom


def test_equal_replicas_with_equal_shares_are_as_good_as_no_shares() -> None:
    even = (ClassShares(f"{SMALL}/<2048", (0.25,) * 4),)
    assert estimate((ONE,) * 4, load(40), shares=even) == estimate((ONE,) * 4, load(40))


def test_models_do_not_disturb_each_other() -> None:
    large = Replica(LARGE, "h100", 4)
    both = estimate((ONE, large), load(10), load(2, LARGE))
    alone = min(estimate((ONE,), load(10)).headroom, estimate((large,), load(2, LARGE)).headroom)
    assert both.headroom == pytest.approx(alone, rel=0.01)


def test_prefill_replicas_keep_prompts_from_disturbing_decoding() -> None:
    long = load(4, input_mean=6000, input_p90=7500)
    prefill, decode = replace(ONE, role=Role.PREFILL), replace(ONE, role=Role.DECODE)
    apart, together = estimate((prefill, decode), long), estimate((ONE, ONE), long)
    assert apart.tpot_p90_s < together.tpot_p90_s
    assert apart.ttft_p90_s > together.ttft_p90_s


def test_prefill_replicas_hand_over_to_mixed_ones_where_no_other_decodes() -> None:
    result = estimate((replace(ONE, role=Role.PREFILL), ONE), load(10))
    assert result.feasible
    assert result.goodput > 0.99


@pytest.mark.parametrize(
    "replicas",
    [
        (),
        (Replica(LARGE, "h100", 4),),
        (replace(ONE, role=Role.PREFILL),),
        (replace(ONE, role=Role.DECODE),),
        (ONE, Replica(LARGE, "l40s")),
    ],
    ids=["nothing", "another model", "prefill only", "decode only", "weights do not fit"],
)
def test_a_plan_that_cannot_serve_the_load_is_infeasible(replicas: tuple[Replica, ...]) -> None:
    result = estimate(replicas, load(1))
    assert (result.feasible, result.headroom, result.goodput) == (False, 0.0, 0.0)
    assert all(
        number == math.inf
        for number in (result.cost_per_good_usd, result.delay_s, result.ttft_p90_s, result.tpot_p90_s)
    )


def test_the_log_normal_has_the_given_percentile() -> None:
    draws = np.random.default_rng(0).lognormal(sigma=log_normal_sigma(1.0, 1.7), size=200_000)
    assert np.quantile(draws / draws.mean(), 0.9) == pytest.approx(1.7, rel=0.01)
    assert log_normal_sigma(5.0, 5.0) == 0.0


# --- against a request-level simulation -----------------------------------------------------------------------------


def serve_one_by_one(
    steps: StepTimes, arrival_s: list[float], inputs: list[int], outputs: list[int], budget: int, most: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """TTFT, TPOT and end-to-end seconds under continuous batching with chunked prefill; the KV cache must suffice."""
    size = len(arrival_s)
    ttft, tpot, total, first = np.zeros(size), np.zeros(size), np.zeros(size), np.zeros(size)
    now, step, arrived, admitted, done, context, held = 0.0, 0, 0, 0, 0, 0, 0
    prefilling: list[list[int]] = []
    decoding: list[tuple[int, int]] = []
    while done < size:
        while arrived < size and arrival_s[arrived] <= now:
            arrived += 1
        room = budget - len(decoding) - sum(left for _, left in prefilling)
        while admitted < arrived and room > 0 and len(decoding) + len(prefilling) < most:
            prefilling.append([admitted, inputs[admitted]])
            room -= inputs[admitted]
            held += inputs[admitted] + outputs[admitted]
            admitted += 1
        assert held <= steps.kv_tokens
        if not decoding and not prefilling:
            now = arrival_s[arrived]
            continue
        tokens, attention = 0, 0
        for entry in prefilling:
            chunk = min(entry[1], budget - len(decoding) - tokens)
            cached = inputs[entry[0]] - entry[1]
            attention += (cached + chunk) ** 2 - cached**2
            entry[1] -= chunk
            tokens += chunk
        now += steps.step_s(tokens, attention, len(decoding), context)
        step += 1
        context += len(decoding)
        while decoding and decoding[0][0] <= step:
            row = heapq.heappop(decoding)[1]
            context -= inputs[row] + outputs[row]
            held -= inputs[row] + outputs[row]
            total[row] = now - arrival_s[row]
            tpot[row] = (now - first[row]) / (outputs[row] - 1)
            done += 1
        for row, left in prefilling:
            if left == 0:
                first[row], ttft[row] = now, now - arrival_s[row]
                heapq.heappush(decoding, (step + outputs[row] - 1, row))
                context += inputs[row] + 1
        prefilling = [entry for entry in prefilling if entry[1] > 0]
    return ttft, tpot, total


@pytest.mark.parametrize(
    ("replica", "rate", "lengths"),
    [
        (Replica(SMALL, "h100"), 12.0, (1000, 1600, 200, 400)),
        (Replica(SMALL, "a100", max_sequences=128), 1.2, (4000, 5500, 150, 250)),
        (Replica(SMALL, "l40s", batched_tokens=2048), 2.0, (1000, 1600, 200, 400)),
        (Replica(LARGE, "h100", 4), 4.0, (1500, 2500, 300, 500)),
    ],
    ids=str,
)
def test_it_agrees_with_a_request_level_simulation_at_moderate_load(
    replica: Replica, rate: float, lengths: tuple[int, int, int, int]
) -> None:
    rng = np.random.default_rng(7)
    size = int(rate * 400)
    arrival_s = np.cumsum(rng.exponential(1 / rate, size))

    def draw(mean: float, p90: float) -> NDArray[np.int64]:
        sigma = log_normal_sigma(mean, p90)
        return np.maximum(rng.lognormal(math.log(mean) - sigma**2 / 2, sigma, size), 2).astype(np.int64)

    inputs, outputs = draw(*lengths[:2]), draw(*lengths[2:])
    steps = COST.steps(replica.model, replica.gpu, replica.tensor_parallel, 1, 2)
    budget, most = replica.batched_tokens, replica.max_sequences
    ttft, tpot, total = serve_one_by_one(steps, arrival_s.tolist(), inputs.tolist(), outputs.tolist(), budget, most)
    unloaded = [steps.unloaded_s(i, o, budget) for i, o in zip(inputs.tolist(), outputs.tolist(), strict=True)]
    measured = ClassLoad(
        "x", replica.model, size / arrival_s[-1],
        float(inputs.mean()), float(np.quantile(inputs, 0.9)), float(outputs.mean()), float(np.quantile(outputs, 0.9)),
    )  # fmt: skip
    result = estimate((replica,), measured, window_s=400.0)
    assert result.ttft_p90_s == pytest.approx(np.quantile(ttft, 0.9), rel=0.15)
    assert result.tpot_p90_s == pytest.approx(np.quantile(tpot, 0.9), rel=0.15)
    assert result.delay_s == pytest.approx(total.mean() - np.mean(unloaded), rel=0.15)
    slo = SLOS[replica.model]
    good = np.mean((ttft <= slo.ttft_s + slo.ttft_s_per_input_token * inputs) & (tpot <= slo.tpot_s))
    assert result.goodput == pytest.approx(good, abs=0.05)


# --- as policies ask it ---------------------------------------------------------------------------------------------

FIXED = PoolView("h100", "h100", 8, 16, 16, 16, 16, 2.0, False, 0.0, 0.0)
ELASTIC = PoolView("a100", "a100", 4, 4, 4, 4, 32, 1.0, False, 60.0, 150.0)


def window(index: int, *entries: ClassWindow) -> Window:
    return Window(index, 60.0 * index, 60.0 * (index + 1), entries, 1.0)


def seen(arrivals: int, output: float = 200.0, model: str = SMALL) -> ClassWindow:
    return ClassWindow(
        request_class=f"{model}/<2048", arrivals=arrivals, rate_rps=arrivals / 60, input_mean=1000.0 * (arrivals > 0),
        input_p90=1600.0 * (arrivals > 0), output_mean=output, output_p90=2 * output, prefix_mean=0.0,
        completed=arrivals, good=arrivals, shed=0, lost=0, backlog=0, queued=0, ttft_p90_s=0.1, tpot_p90_s=0.02,
    )  # fmt: skip


def observe(*windows: Window, plan: ServingPlan | None = None) -> Observation:
    plan = plan or ServingPlan((ONE,) * 2)
    return Observation(
        now_s=600.0, window_s=60.0, objective="cost_per_good", window=windows[-1] if windows else None,
        recent=windows[:-1], models=(SMALL,), slos=SLOS, pools=(FIXED, ELASTIC), announced=(),
        shapes=(ONE, Replica(SMALL, "a100")), plan=plan,
        replicas=tuple(ReplicaStatus(r, "serving", 1, 1, 1, 0, 0.1, 1.0) for r in plan.replicas),
        moving=None, past_transitions=(), envelope=Envelope(), memory={},
    )  # fmt: skip


def test_the_rate_is_that_of_the_last_window_or_the_mean_of_three_if_larger() -> None:
    def rate(*arrivals: int) -> float:
        (only,) = class_loads(observe(*(window(i, seen(n)) for i, n in enumerate(arrivals))))
        return only.rate_rps

    assert rate(60, 60, 600) == 10
    assert rate(600, 60, 60) == 4


def test_a_class_that_stays_away_keeps_a_small_rate_and_its_lengths() -> None:
    windows = [window(0, seen(600)), *(window(i) for i in range(1, 8))]
    (only,) = class_loads(observe(*windows))
    assert 0.1 < only.rate_rps < 1
    assert (only.input_mean, only.output_mean) == (1000, 200)


def test_output_lengths_are_the_last_known_or_a_default() -> None:
    (known,) = class_loads(observe(window(0, seen(60, 321)), window(1, seen(60, 0))))
    (unknown,) = class_loads(observe(window(0, seen(60, 0))))
    assert known.output_mean == 321
    assert (unknown.output_mean, unknown.output_p90) == DEFAULT_OUTPUT_TOKENS


def test_before_the_first_window_every_plan_that_serves_all_models_is_feasible() -> None:
    estimator = FluidEstimator(COST.encode())
    assert estimator.estimate(observe(), ServingPlan((ONE,))).feasible
    assert not estimator.estimate(observe(), ServingPlan(())).feasible


def test_a_fixed_pool_is_paid_whole_and_an_elastic_one_by_the_node() -> None:
    pools = (FIXED, ELASTIC)
    assert paid_per_hour(ServingPlan((ONE,)), pools) == 16 * 2 + 4
    assert paid_per_hour(ServingPlan((Replica(SMALL, "a100"),) * 5), pools) == 16 * 2 + 8
    assert paid_per_hour(ServingPlan((ONE,) * 17), pools) == math.inf


@pytest.mark.parametrize("plan", [ServingPlan((ONE,) * 17), ServingPlan((Replica(SMALL, "a100", 8),))], ids=str)
def test_a_plan_that_no_pool_can_hold_is_infeasible_and_never_reached(plan: ServingPlan) -> None:
    estimator, observation = FluidEstimator(COST.encode()), observe(window(0, seen(60)))
    assert not estimator.estimate(observation, plan).feasible
    assert estimator.transition(observation, plan).seconds == math.inf


def test_the_belief_decides_the_estimate() -> None:
    observation, plan = observe(window(0, seen(600))), ServingPlan((ONE,))
    usual = FluidEstimator(COST.encode()).estimate(observation, plan)
    slower = FluidEstimator(COST.with_slow({"h100": 2.0}).encode()).estimate(observation, plan)
    assert slower.headroom < 0.7 * usual.headroom


def test_staying_costs_nothing_and_a_new_replica_its_start() -> None:
    estimator, observation = FluidEstimator(COST.encode()), observe(window(0, seen(60)))
    stay = estimator.transition(observation, observation.plan)
    assert (stay.seconds, stay.money_usd, stay.capacity_kept) == (0, 0, 1)
    more = estimator.transition(observation, ServingPlan((ONE,) * 3))
    # the node that serves the model has its weights in memory
    weights = COST.weight_bytes(SMALL)
    start_s = COST.start_s(SMALL) - weights / 3.5e9 + weights / 20e9
    assert more.seconds == pytest.approx(start_s)
    assert more.money_usd == pytest.approx(start_s * 2 / 3600)
    assert more.capacity_kept == 1
    fewer = estimator.transition(observation, ServingPlan((ONE,)))
    assert fewer.seconds == pytest.approx(200 * 0.02 / 2)
    assert fewer.capacity_kept == 0.5


def test_a_pool_that_must_grow_first_takes_its_start_time() -> None:
    estimator, observation = FluidEstimator(COST.encode()), observe(window(0, seen(60)))
    within = estimator.transition(observation, ServingPlan((*observation.plan.replicas, Replica(SMALL, "a100"))))
    beyond = estimator.transition(observation, ServingPlan((Replica(SMALL, "a100"),) * 5))
    assert within.seconds < 60 + COST.start_s(SMALL) <= beyond.seconds


def alone(replica: Replica, rate: float, slo: SLO = SLOS[SMALL]) -> float:
    """Requests/s of one replica by itself."""
    observation = replace(observe(window(0, seen(int(60 * rate)))), slos=SLOS | {SMALL: slo})
    return FluidEstimator(COST.encode()).throughput(observation, replica).get(f"{SMALL}/<2048", 0.0)


PREFILLS, DECODES = replace(ONE, role=Role.PREFILL), replace(ONE, role=Role.DECODE)


@pytest.mark.parametrize(("prefills", "decodes"), [(1, 8), (8, 1)], ids=["prefill decides", "decode decides"])
def test_the_scarcer_phase_decides_what_a_disaggregated_plan_serves(prefills: int, decodes: int) -> None:
    plan = ServingPlan((PREFILLS,) * prefills + (DECODES,) * decodes)
    observation = observe(window(0, seen(600)))
    served = 10 * FluidEstimator(COST.encode()).estimate(observation, plan).headroom
    phases = prefills * alone(PREFILLS, 10), decodes * alone(DECODES, 10)
    assert phases.index(min(phases)) == (0 if decodes > prefills else 1)
    assert served == pytest.approx(min(phases), rel=0.02)


@pytest.mark.parametrize("replica", [PREFILLS, DECODES], ids=["prefill", "decode"])
def test_the_throughput_of_a_phase_hardly_depends_on_the_load_seen(replica: Replica) -> None:
    assert alone(replica, 2) == pytest.approx(alone(replica, 20), rel=0.02)


def test_each_phase_is_held_to_its_own_latency_only() -> None:
    # one token in 4 ms is more than an H100 reads 16 GB of weights in, one prompt in 0.1 ms more than it computes
    hasty, strict = SLO(tpot_s=0.004), SLO(ttft_s=1e-4, ttft_s_per_input_token=0.0, tpot_s=0.05)
    usual = SLOS[SMALL]
    assert alone(PREFILLS, 10, hasty) == pytest.approx(alone(PREFILLS, 10, usual), rel=0.02)
    assert alone(DECODES, 10, strict) == pytest.approx(alone(DECODES, 10, usual), rel=0.02)
    assert alone(PREFILLS, 10, strict) == alone(DECODES, 10, hasty) == alone(ONE, 10, strict) == 0


def test_a_phase_whose_weights_do_not_fit_serves_nothing() -> None:
    observation = replace(observe(window(0, seen(60, model=LARGE))), models=(LARGE,))
    lone = Replica(LARGE, "l40s", role=Role.DECODE)
    assert FluidEstimator(COST.encode()).throughput(observation, lone) == {}


def test_an_estimate_is_quick() -> None:
    warm()
    loads = [load(2, bucket=str(i), input_mean=300.0 * (i + 1), input_p90=400.0 * (i + 1)) for i in range(8)]
    replicas = tuple(Replica(SMALL, gpu) for gpu in ("h100", "a100", "l40s", "h200") for _ in range(8))
    estimate(replicas, *loads)
    began = time.perf_counter()
    for _ in range(50):
        estimate(replicas, *loads)
    print(f"{(time.perf_counter() - began) / 50 * 1e3:.2f} ms for 32 replicas and 8 classes")  # noqa: T201
