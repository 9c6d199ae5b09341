"""The numbers by which loads are compared, on loads small enough to count by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from autopoiesis.workload import Requests, shape, single_requests


def times(*values: float) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def load(prompts: list[int], outputs: list[int]) -> Requests:
    return single_requests(np.arange(len(prompts), dtype=np.float64), np.array(prompts), np.array(outputs))


def test_windows_count_arrivals_and_leave_out_the_last_part() -> None:
    arrivals = times(0.0, 1.0, 9.9, 10.0, 29.0, 31.0)
    assert shape.windows(arrivals, 10.0).tolist() == [3, 1, 1]
    assert shape.windows(arrivals, 10.0, 50.0).tolist() == [3, 1, 1, 1, 0]


def test_rate_peak_and_dispersion() -> None:
    arrivals = times(0.0, 1.0, 2.0, 11.0, 20.0)
    assert shape.mean_rate(arrivals) == 0.25
    assert shape.peak_to_mean(arrivals, 10.0) == 3 / 2.5
    # counts 3 and 1: variance 1, mean 2
    assert shape.index_of_dispersion(arrivals, 10.0) == 0.5


def test_equally_spaced_arrivals_have_no_variation_and_poisson_arrivals_one() -> None:
    assert shape.interarrival_cv(np.arange(10.0)) == 0.0
    poisson = np.cumsum(np.random.default_rng(0).exponential(size=200_000))
    assert shape.interarrival_cv(poisson) == pytest.approx(1.0, abs=0.02)
    assert shape.index_of_dispersion(poisson, 10.0) == pytest.approx(1.0, abs=0.05)


def test_long_and_short_are_split_at_2048_and_256() -> None:
    requests = load([2048, 2047, 2048, 2047], [255, 256, 256, 255])
    assert shape.liso_share(requests) == 0.25
    assert shape.silo_share(requests) == 0.25


def test_what_an_earlier_request_had_is_reusable() -> None:
    requests = replace(
        load([1024, 1100, 1024, 300], [1, 1, 1, 1]),
        block_start=np.array([0, 2, 4, 0]),
        block_count=np.array([2, 2, 2, 0]),
        block_ids=np.array([0, 1, 0, 2, 0, 1]),
        previous=np.array([-1, -1, -1, 0]),
        prefix_tokens=np.array([0, 0, 0, 200]),
    )
    assert shape.reusable_tokens(requests).tolist() == [0, 512, 1024, 200]
    assert shape.reusable_share(requests) == (512 + 1024 + 200) / (1024 + 1100 + 1024 + 300)


def test_the_daily_ratio_is_the_median_of_the_days_and_passes_over_silence() -> None:
    per_window = np.ones((3, 144), dtype=np.int64)
    per_window[0, 3] = 5
    per_window[1, 3] = 2
    per_window[1, 4] = 0
    per_window[2, 3] = 3
    arrivals = np.repeat(np.arange(3 * 144) * 600.0, per_window.ravel())
    assert shape.daily_ratio(arrivals, 3) == 3.0


def test_a_surge_lasts_while_the_level_at_which_it_began_is_exceeded() -> None:
    counts = np.full(144, 100)
    counts[20:23] = [201, 250, 210]
    counts[[60, 90]] = 201
    counts[120] = 200  # twice, not more than twice
    found = shape.surges(counts, 2.0)
    assert found.per_day == 3.0
    # Two of 10 minutes, which stand for 5 to 15, and one of 30: the middle one is at three quarters of the two.
    assert found.minutes_p50 == 12.5
    assert shape.surges(counts, 1.5).per_day == 4.0


def test_nothing_surges_over_silence() -> None:
    counts = np.zeros(144, dtype=np.int64)
    counts[50] = 9
    found = shape.surges(counts, 1.5)
    assert found.per_day == 0.0
    assert math.isnan(found.minutes_p50)


def test_wandering_follows_the_means_of_whole_blocks() -> None:
    arrivals = times(0.0, 5.0, 10.0, 20.0, 30.0, 40.0)
    tokens = np.array([10, 30, 40, 10, 40, 9999])
    found = shape.wandering(arrivals, tokens, 10.0)
    logs = np.log([20, 40, 10, 40])
    assert found.mean == pytest.approx(math.exp(logs.mean()))
    assert found.log_sd == pytest.approx(logs.std())
    assert found.ar1 == pytest.approx(np.corrcoef(logs[1:], logs[:-1])[0, 1])


def test_an_empty_load_has_no_shape() -> None:
    nothing = times()
    empty = load([], [])
    for value in (
        shape.mean_rate(nothing),
        shape.peak_to_mean(nothing, 60.0),
        shape.interarrival_cv(nothing),
        shape.index_of_dispersion(nothing, 60.0),
        shape.liso_share(empty),
        shape.reusable_share(empty),
        shape.daily_ratio(nothing, 1),
        shape.wandering(nothing, empty.input_tokens).mean,
    ):
        assert math.isnan(value)
