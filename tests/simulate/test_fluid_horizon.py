"""The fluid model in time: what it promises of any load, and that it tells the event kernel's story."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopoiesis.cluster import Hardware
from autopoiesis.cluster.catalog import gpus, models
from autopoiesis.cost import CostModel
from autopoiesis.plan import ClassShares, Replica, Role, ServingPlan
from autopoiesis.simulate import fluid, simulation
from autopoiesis.simulate.fluid import ClassLoad, Coefficients
from autopoiesis.simulate.fluid_horizon import Course, demand_of, follow
from autopoiesis.simulate.fluid_time import mean_queue
from autopoiesis.workload import SLO

MODEL, OTHER = "llama-3.1-8b", "llama-3.1-70b"
COST = CostModel(Hardware(gpus(), models()))
SLOS = {MODEL: SLO(), OTHER: SLO(tpot_s=0.1)}
ONE = Replica(MODEL, "h100")
NAME = f"{MODEL}/<2048"


def load(rate: float, name: str = NAME, **fields: float) -> ClassLoad:
    usual = {"input_mean": 1000.0, "input_p90": 1600.0, "output_mean": 200.0, "output_p90": 400.0}
    return ClassLoad(name, name.rpartition("/")[0], rate, **(usual | fields))


def course(
    replicas: Sequence[Replica], *windows: ClassLoad | Sequence[ClassLoad], shares: tuple[ClassShares, ...] = ()
) -> Course:
    """One entry per window of a minute."""
    coefficients = Coefficients(COST)
    loads = [[window] if isinstance(window, ClassLoad) else window for window in windows]
    demand = demand_of(coefficients, loads, SLOS, 60.0, sorted(set(replicas)))
    return follow(coefficients, ServingPlan(tuple(replicas), shares), demand)


REPLICAS = st.builds(
    Replica,
    model=st.just(MODEL),
    gpu=st.sampled_from(["h100", "a100", "l40s"]),
    tensor_parallel=st.sampled_from([1, 2]),
    batched_tokens=st.sampled_from([2048, 8192]),
    max_sequences=st.sampled_from([16, 256]),
)
DEPLOYMENTS = st.one_of(
    st.lists(REPLICAS, min_size=1, max_size=4).map(tuple),
    st.tuples(
        REPLICAS.map(lambda r: replace(r, role=Role.PREFILL)), REPLICAS.map(lambda r: replace(r, role=Role.DECODE))
    ),
)
WINDOWS = st.lists(
    st.builds(
        load,
        st.floats(0.0, 60.0),
        input_mean=st.floats(50, 6000),
        input_p90=st.just(8000.0),
        output_mean=st.just(1.0) | st.floats(5, 600),
        output_p90=st.just(700.0),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(DEPLOYMENTS, WINDOWS)
def test_numbers_stay_in_their_bounds(replicas: tuple[Replica, ...], windows: list[ClassLoad]) -> None:
    result = course(replicas, *windows)
    assert result.feasible
    assert result.arrived.sum() == pytest.approx(60 * sum(window.rate_rps for window in windows), abs=1e-6)
    for numbers in (result.arrived, result.good, result.delay_s, result.waiting, result.running):
        assert not np.isnan(numbers).any()
        assert numbers.min() >= 0
    assert np.all(result.good <= result.arrived * (1 + 1e-9))
    assert 60 * len(windows) <= result.ended_s <= 11 * 60 * len(windows)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(DEPLOYMENTS, st.floats(1, 60), st.integers(1, 3))
def test_what_is_held_never_exceeds_what_has_come(replicas: tuple[Replica, ...], rate: float, windows: int) -> None:
    result = course(replicas, *[load(rate)] * windows)
    held = (result.waiting + result.running).sum(axis=1)
    assert np.all(held <= np.cumsum(result.arrived.sum(axis=1)) * (1 + 1e-6))


def test_a_queue_that_grows_in_one_window_is_served_in_the_next() -> None:
    calm, busy = load(5), load(60)
    result = course([ONE], calm, busy, calm)
    apart = course([ONE], calm)
    assert result.waiting[0].sum() < 1 < 500 < result.waiting[1].sum()
    assert result.good[2].sum() < 0.5 * apart.good.sum()
    assert course([ONE], calm, calm, calm).good[2].sum() == pytest.approx(apart.good.sum(), rel=0.02)


def test_what_is_left_after_the_last_window_is_served_to_its_end() -> None:
    assert course([ONE], load(5)).ended_s < 90
    assert course([ONE], load(60)).ended_s > 90


def test_requests_that_wait_already_come_first_of_all() -> None:
    queued = course([ONE], load(10, queued=600))
    assert queued.arrived.sum() == pytest.approx(1200)
    assert queued.good.sum() < course([ONE], load(10)).good.sum()


def test_an_absent_class_keeps_its_lengths_while_its_backlog_is_served() -> None:
    result = course([ONE], [load(60)], [load(1, f"{MODEL}/<512", input_mean=100.0, input_p90=200.0)])
    assert result.arrived[1].tolist() == [0.0, pytest.approx(60)]
    assert result.ended_s > 90


def test_requests_go_where_fewest_are_in_flight_for_the_share() -> None:
    rows = (ClassShares(NAME, (0.8, 0.2)),)
    uneven = course([ONE, ONE], load(40), shares=rows)
    assert course([ONE, ONE], load(40)).good.sum() > uneven.good.sum()


def test_sequences_that_find_no_slot_wait() -> None:
    few = course([replace(ONE, max_sequences=8)], load(10))
    assert few.running.sum() <= 8 * 1.001
    assert few.waiting.sum() > 100


def test_a_class_that_nobody_can_serve_makes_the_plan_infeasible() -> None:
    result = course([ONE], load(1, f"{OTHER}/<2048"))
    assert not result.feasible
    assert result.good.sum() == 0
    assert result.ended_s == math.inf


def test_nothing_to_serve_is_served_at_once() -> None:
    assert course([ONE], []).ended_s == 0.0


def test_a_pipeline_prefills_one_prompt_no_faster_than_its_stages_in_turn() -> None:
    """Stages share the work of many prompts, not of one: at light load the pipeline's TTFT is that of a single GPU."""
    side_by_side = replace(ONE, gpu="a100")
    pipeline = replace(side_by_side, pipeline_parallel=2)
    long = load(0.05, f"{MODEL}/longer", input_mean=16_000.0, input_p90=17_000.0, output_mean=1.0, output_p90=1.0)
    one, two = (course([replica], long).delay_s.sum() for replica in (side_by_side, pipeline))
    assert two >= one


@pytest.mark.parametrize("load_of_time", [0.3, 0.8, 0.95])
def test_a_steady_queue_is_that_of_m_g_1(load_of_time: float) -> None:
    queue_s = 0.0
    for _ in range(20_000):
        queue_s = mean_queue(queue_s, load_of_time, 0.2, 1.0)
    assert queue_s == pytest.approx(0.2 * load_of_time / (1 - load_of_time), rel=1e-3)


def test_a_queue_grows_by_what_exceeds_the_load() -> None:
    queue_s = 0.0
    for _ in range(1000):
        queue_s = mean_queue(queue_s, 2.0, 0.2, 1.0)
    assert queue_s == pytest.approx(1000, rel=0.01)


def test_speeds_are_compared_as_the_gateway_does() -> None:
    assert fluid.REFERENCE_BATCH == simulation.REFERENCE_BATCH
    assert fluid.REFERENCE_CONTEXT == simulation.REFERENCE_CONTEXT
