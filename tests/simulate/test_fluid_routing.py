"""Water poured into vessels: how the balancer divides a flow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from autopoiesis.simulate.fluid_routing import pour

Numbers = NDArray[np.float64]
VESSELS = st.lists(
    st.tuples(st.floats(0.05, 5), st.floats(0, 300), st.floats(0.01, 1), st.integers(1, 8)), min_size=1, max_size=8
)


def poured(
    rate: float, weights: list[float], staying: list[float], stay_s: list[float], counts: list[float]
) -> tuple[bool, Numbers]:
    rates = np.zeros(len(weights))
    w, b, f, k = (np.array(values, dtype=np.float64) for values in (weights, staying, stay_s, counts))
    some = pour(rate, w, b, f, k, rates, np.zeros((len(weights), 2)))
    return bool(some), rates


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.floats(0.001, 1000), VESSELS)
def test_all_that_comes_is_poured(rate: float, vessels: list[tuple[float, float, float, int]]) -> None:
    weights, staying, stay_s, counts = (list(column) for column in zip(*vessels, strict=True))
    some, rates = poured(rate, weights, staying, stay_s, [float(count) for count in counts])
    assert some
    assert rates.min() >= 0
    assert (rates * np.array(counts)).sum() == pytest.approx(rate, rel=1e-6)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.floats(100, 10_000), VESSELS)
def test_who_takes_any_ends_at_one_level(rate: float, vessels: list[tuple[float, float, float, int]]) -> None:
    weights, staying, stay_s, counts = (np.array(column, dtype=np.float64) for column in zip(*vessels, strict=True))
    _, rates = poured(rate, list(weights), list(staying), list(stay_s), list(counts))
    levels = (staying + rates * stay_s + 1.0) / weights
    full = rates * stay_s > 1.0
    if full.any():
        assert levels[full] == pytest.approx(levels[full][0], rel=1e-4)
        assert np.all(levels[~full] >= levels[full][0] - 2.0 / weights[~full])


def test_whoever_has_less_for_its_weight_takes_more() -> None:
    _, rates = poured(10.0, [1.0, 1.0, 0.5], [20.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    assert rates[0] == 0.0
    assert rates[1] > rates[2] > 0.0


def test_who_answers_fast_takes_more_at_the_same_level() -> None:
    _, rates = poured(100.0, [1.0, 1.0], [0.0, 0.0], [0.1, 1.0], [1.0, 1.0])
    assert rates[0] == pytest.approx(10 * rates[1])


def test_without_weights_nothing_is_poured() -> None:
    some, rates = poured(10.0, [0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0])
    assert not some
    assert rates.tolist() == [0.0, 0.0]
