"""Named distributions of the time until a node comes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.cluster.delays import DELAYS


@pytest.mark.parametrize(
    ("quantile", "seconds"), [(0.5, 0.0), (0.75, 44.0), (0.9, 134.0), (0.95, 853.0), (0.99, 11_396.0)]
)
def test_the_measured_percentiles_are_met(quantile: float, seconds: float) -> None:
    assert DELAYS["alibaba-2025"].at(quantile) == pytest.approx(seconds)


def test_the_measured_mean_is_met() -> None:
    middles = (np.arange(200_000) + 0.5) / 200_000
    assert np.mean([DELAYS["alibaba-2025"].at(float(q)) for q in middles]) == pytest.approx(654.0, rel=0.02)


@given(st.sampled_from(sorted(DELAYS)), st.floats(0, 1), st.floats(0, 1))
def test_delays_rise_with_the_quantile(name: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= DELAYS[name].at(low) <= DELAYS[name].at(high)
