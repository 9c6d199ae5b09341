"""The characteristics of a trace, by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autopoiesis.workload import Requests, Trace, single_requests
from autopoiesis.workload.description import arrivals_per_bin, describe


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
    assert arrivals_per_bin(np.array([0.0, 1.0, 2.5, 2.6]), 1).tolist() == [1, 1]
    assert arrivals_per_bin(np.array([0.0, 0.5]), 60).tolist() == [2]


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
