"""The characteristics of a trace, by hand."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.workload import Requests, Trace, single_requests
from autopoiesis.workload.description import describe, occupied_bins


def trace_of(requests: Requests, models: tuple[str, ...] = ()) -> Trace:
    model = np.arange(len(requests)) % len(models) if models else np.full(len(requests), -1)
    return Trace("normalised", requests, models, model, 0.0, 2, "")


def ones(arrival_s: list[float]) -> Requests:
    n = len(arrival_s)
    return single_requests(np.array(arrival_s), np.ones(n, dtype=np.int64), np.ones(n, dtype=np.int64))


def test_rates_and_peaks_are_over_whole_bins() -> None:
    d = describe(trace_of(ones([0.0] * 30 + [61.0] * 60 + [120.0, 121.0])))
    assert d.rows == 92
    assert d.span_s == 121.0
    assert d.rate_rps == pytest.approx(92 / 121)
    assert d.peak_rps == {"60": 1.0, "10": 6.0}


def test_a_bin_that_is_not_whole_counts_only_if_there_is_no_other() -> None:
    counts, bins = occupied_bins(np.array([0.0, 1.0, 1.5, 3.5, 3.6]), 1)
    assert (counts.tolist(), bins) == ([1, 2], 3)
    counts, bins = occupied_bins(np.array([0.0, 0.5]), 60)
    assert (counts.tolist(), bins) == ([2], 1)


def test_two_arrivals_three_centuries_apart_take_no_memory() -> None:
    tracemalloc.start()
    try:
        assert describe(trace_of(ones([0.0, 1e10]))).dispersion["1"] == pytest.approx(1.0)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


@given(st.lists(st.floats(0, 500), min_size=2, max_size=60), st.sampled_from([1, 10, 60]))
def test_dispersion_is_variance_over_mean_of_the_counts(arrivals: list[float], bin_s: int) -> None:
    arrival_s = np.sort(np.array(arrivals)) - min(arrivals)
    bins = int(arrival_s[-1] // bin_s)
    counts = np.histogram(arrival_s, bins=np.arange(bins + 1) * float(bin_s))[0] if bins > 1 else np.ones(1)
    found = describe(trace_of(ones(arrival_s.tolist()))).dispersion[str(bin_s)]
    if bins > 1 and not np.any(np.isclose(arrival_s, bins * bin_s)):
        assert found == pytest.approx(counts.var() / counts.mean() if counts.any() else 0.0, abs=1e-9)


def test_regular_arrivals_have_no_variation_and_bursts_much() -> None:
    regular = describe(trace_of(ones([i / 4 for i in range(481)])))
    assert regular.iat_cv == pytest.approx(0.0)
    assert regular.dispersion["1"] == pytest.approx(0.0)
    # All of each minute's arrivals in its first second: the count of a second is 60 or 0.
    bursts = describe(trace_of(ones([60.0 * m for m in range(10) for _ in range(60)] + [600.0])))
    assert bursts.dispersion["1"] == pytest.approx(59.0)
    assert bursts.dispersion["60"] == pytest.approx(0.0)


def test_poisson_arrivals_have_a_dispersion_and_a_cv_of_one() -> None:
    rng = np.random.default_rng(0)
    d = describe(trace_of(ones(np.cumsum(rng.exponential(0.1, 200_000)).tolist())))
    assert d.iat_cv == pytest.approx(1.0, abs=0.02)
    assert d.dispersion["1"] == pytest.approx(1.0, abs=0.05)


def test_lengths_are_by_nearest_rank_and_shares_of_long_and_short() -> None:
    inputs, outputs = np.array([2048, 2047, 5000, 1]), np.array([255, 256, 256, 1])
    d = describe(trace_of(single_requests(np.arange(4.0), inputs, outputs)))
    assert (d.input_tokens.p50, d.input_tokens.p90, d.input_tokens.maximum) == (2047.0, 5000.0, 5000.0)
    assert (d.liso_share, d.silo_share) == (0.25, 0.25)


def test_models_are_counted_by_name() -> None:
    d = describe(trace_of(ones([0.0, 1.0, 2.0]), ("a", "b")))
    assert d.models == {"a": 2, "b": 1}
    assert d.left_out == 2


def test_reusable_is_what_blocks_or_sessions_have_seen_before_whichever_is_more() -> None:
    requests = dataclasses.replace(
        single_requests(np.arange(3.0), np.array([1024, 1536, 1024]), np.ones(3, dtype=np.int64)),
        previous=np.array([-1, 0, 1]),
        prefix_tokens=np.array([0, 1200, 100]),
        block_start=np.array([0, 2, 5]),
        block_count=np.array([2, 3, 2]),
        block_ids=np.array([0, 1, 0, 1, 2, 0, 3]),
    )
    d = describe(trace_of(requests))
    assert d.reusable_prefix_share == pytest.approx((0 + 1200 + 512) / 3584)
    assert (d.sessions, d.session_share) == (1, 1.0)


def test_one_request_is_a_trace_too() -> None:
    d = describe(trace_of(ones([0.0])))
    assert (d.rows, d.span_s, d.rate_rps, d.iat_cv) == (1, 0.0, 0.0, None)
    assert d.dispersion == {"1": None, "10": None, "60": None}
