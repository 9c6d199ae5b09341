"""Calibration: the belief follows what telemetry shows, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.cluster import Hardware, catalog
from autopoiesis.cost import CostModel
from autopoiesis.cost.calibration import BOUNDS, Belief, DecodeWork

MODEL = "llama-3.1-8b"
COST = CostModel(Hardware(catalog.gpus(), catalog.models()))


def work(factor: float, busy_s: float = 60.0, gpu: str = "h100", cost: CostModel = COST) -> DecodeWork:
    """What a replica would show that is so much slower than `cost` says, having decoded for about `busy_s`."""
    times = cost.steps(MODEL, gpu, 1, 1, 2)
    step_s = times.step_s(0, 0, 20, 20 * 800)
    steps = round(busy_s / step_s)
    return DecodeWork(gpu, times, steps, 20 * steps, 20 * 800 * steps, factor * steps * step_s)


def test_expected_time_is_that_of_the_steps_one_by_one() -> None:
    entry = work(1.0)
    assert entry.expected_s == pytest.approx(entry.busy_s)
    assert DecodeWork("h100", entry.times, 0, 0, 0, 0.0).expected_s == 0.0


def test_without_measurements_the_data_sheet_stands() -> None:
    belief = Belief(COST)
    belief.observe([], [])
    assert belief.cost == COST


@given(st.floats(0.8, 1.2))
def test_ten_minutes_of_one_replica_are_enough(factor: float) -> None:
    belief = Belief(COST)
    for _ in range(10):
        belief.observe([work(factor, 50.0)])
    assert belief.cost.slow["h100"] == pytest.approx(factor, rel=0.03)


def test_a_little_work_moves_the_belief_a_little() -> None:
    belief = Belief(COST)
    belief.observe([work(1.2, 1.0)])
    assert 1.0 < belief.cost.slow["h100"] < 1.02


def test_each_gpu_kind_is_learnt_by_itself_and_kept_while_it_is_idle() -> None:
    belief = Belief(COST)
    for _ in range(20):
        belief.observe([work(1.1, 60.0), work(0.9, 60.0, "a100")])
    before = belief.cost.slow["a100"]
    for _ in range(200):
        belief.observe([work(1.1, 60.0)])
    assert belief.cost.slow["h100"] == pytest.approx(1.1, rel=0.01)
    assert belief.cost.slow["a100"] == before == pytest.approx(0.9, rel=0.01)


def test_a_world_that_changes_is_followed() -> None:
    belief = Belief(COST)
    for factor in [1.2] * 30 + [0.9] * 60:
        belief.observe([work(factor)])
    assert belief.cost.slow["h100"] == pytest.approx(0.9, rel=0.02)


def test_nonsense_is_bounded() -> None:
    belief = Belief(COST)
    for _ in range(50):
        belief.observe([work(100.0)], [(1e6, 1.0)])
    assert belief.cost.slow["h100"] == BOUNDS[1]
    assert belief.cost.start_slow == BOUNDS[1]


def test_starts_are_averaged_with_the_data_sheet_as_one_of_them() -> None:
    belief = Belief(COST)
    belief.observe([], [(60.0, 50.0)])
    assert belief.cost.start_slow == pytest.approx((1.0 + 1.2) / 2)
    rng = np.random.default_rng(0)
    belief.observe([], [(1.3 * 50.0 * float(rng.lognormal(-0.03, 0.25)), 50.0) for _ in range(100)])
    assert belief.cost.start_slow == pytest.approx(1.3, rel=0.06)


def test_a_belief_that_starts_from_a_belief_corrects_that_one() -> None:
    first = COST.with_slow({"h100": 1.2}, 1.5)
    belief = Belief(first)
    for _ in range(20):
        belief.observe([work(1.0, cost=first)])
    assert belief.cost.slow["h100"] == pytest.approx(1.2, rel=0.01)
    assert belief.cost.start_slow == 1.5


def test_the_belief_does_not_change_by_a_hair() -> None:
    belief = Belief(COST)
    for _ in range(40):
        belief.observe([work(1.1)])
    before = belief.cost
    belief.observe([work(1.1000001)])
    assert belief.cost == before
