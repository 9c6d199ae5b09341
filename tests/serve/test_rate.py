"""The rate of a key: what several processes admit together."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.serve.rate import TokenBucket

LOOK_S = 0.25
"""How often each process looks at what all have spent."""

asks = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.0, 0.1, 7.0, 60.0]) | st.floats(0, 20), st.floats(0.1, 10)),
    min_size=1,
    max_size=60,
)


@given(asks, st.floats(1, 600), st.floats(10, 100))
def test_no_interval_admits_more_than_the_burst_and_what_flows_in(
    asks: list[tuple[int, float, float]], per_minute: float, burst: float
) -> None:
    buckets = [TokenBucket(per_minute, burst) for _ in range(4)]
    now = spent = 0.0
    looked = [-1.0] * len(buckets)
    admitted: list[tuple[float, float]] = []
    for worker, passed, cost in asks:
        for i in range(len(buckets)):
            looked[i] = now + passed - min(passed, LOOK_S * (i + 1) / len(buckets))
            buckets[i].look(looked[i], spent)
        now += passed
        if buckets[worker].retry_after_s(now, spent, cost) == 0:
            spent += cost
            admitted.append((now, cost))
    totals = [0.0, *accumulate(cost for _, cost in admitted)]
    for i, (start, _) in enumerate(admitted):
        for j in range(i, len(admitted)):
            allowed = burst + per_minute / 60 * (admitted[j][0] - start + LOOK_S)
            assert totals[j + 1] - totals[i] <= allowed * (1 + 1e-9) + 1e-6


@given(asks, st.floats(1, 600), st.floats(10, 100))
def test_whoever_waits_as_long_as_told_is_admitted_if_nobody_else_spends(
    asks: list[tuple[int, float, float]], per_minute: float, burst: float
) -> None:
    bucket = TokenBucket(per_minute, burst)
    now = spent = 0.0
    for _, passed, cost in asks:
        now += passed
        wait_s = bucket.retry_after_s(now, spent, cost)
        now += wait_s
        assert bucket.retry_after_s(now, spent, cost) <= 1e-6 * (1 + wait_s)
        spent += cost


def test_what_is_larger_than_the_bucket_is_admitted_when_it_is_full() -> None:
    bucket = TokenBucket(60, 10)
    assert bucket.retry_after_s(0.0, 0.0, 1000) == 0
    assert bucket.retry_after_s(0.0, 1000.0, 1) == pytest.approx(991)


def test_what_turns_out_to_have_cost_less_is_given_back() -> None:
    bucket = TokenBucket(60, 10)
    assert bucket.retry_after_s(0.0, 10.0, 5) == pytest.approx(5)
    assert bucket.retry_after_s(0.0, 4.0, 5) == 0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(60, 10)
    assert bucket.retry_after_s(100.0, 10.0, 1) == pytest.approx(1)
    assert bucket.retry_after_s(50.0, 10.0, 1) == pytest.approx(1)
    assert bucket.retry_after_s(100.0, 10.0, 1) == pytest.approx(1)
