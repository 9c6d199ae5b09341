"""The rate of a key: what several processes admit together."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.serve.rate import TokenBucket

asks = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.0, 0.1, 7.0, 60.0]) | st.floats(0, 20), st.floats(0.1, 10)),
    min_size=1,
    max_size=60,
)


@given(asks, st.floats(1, 600), st.floats(10, 100), st.sets(st.integers(0, 59)))
def test_no_interval_admits_more_than_the_burst_and_what_flows_in(
    asks: list[tuple[int, float, float]], per_minute: float, burst: float, deaths: set[int]
) -> None:
    """Whichever of four processes asks, however seldom; some die, and others take their places."""
    buckets = [TokenBucket(per_minute, burst) for _ in range(4)]
    now = spent = 0.0
    admitted: list[tuple[float, float]] = []
    for number, (worker, passed, cost) in enumerate(asks):
        now += passed
        if number in deaths:
            buckets[worker] = TokenBucket(per_minute, burst)
        if buckets[worker].retry_after_s(now, spent, cost) == 0:
            spent += cost
            admitted.append((now, cost))
    totals = [0.0, *accumulate(cost for _, cost in admitted)]
    for i, (start, _) in enumerate(admitted):
        for j in range(i, len(admitted)):
            allowed = burst + per_minute / 60 * (admitted[j][0] - start)
            assert totals[j + 1] - totals[i] <= allowed * (1 + 1e-9) + 1e-6


@given(asks, st.floats(1, 600), st.floats(10, 100))
def test_a_process_is_behind_the_truth_by_no_more_than_was_spent_between_two_looks(
    asks: list[tuple[int, float, float]], per_minute: float, burst: float
) -> None:
    """The truth is what a process knows that sees everything as it happens."""
    looks, sees = TokenBucket(per_minute, burst), TokenBucket(per_minute, burst)
    looks.look(0.0, 0.0)
    sees.look(0.0, 0.0)
    now = spent = since = most = 0.0
    for worker, passed, cost in asks:
        now += passed
        if sees.retry_after_s(now, spent, cost) == 0:
            spent += cost
            since += cost
            sees.look(now, spent)
        if worker == 0:
            behind_s = looks.retry_after_s(now, spent, burst) - sees.retry_after_s(now, spent, burst)
            most, since = max(most, since), 0.0
            assert -1e-6 <= behind_s <= most * 60 / per_minute + 1e-6


@given(st.floats(1, 600), st.floats(10, 100), st.floats(0, 1e9), st.floats(0, 1))
def test_a_process_that_begins_late_is_not_held_up_by_what_was_spent_before(
    per_minute: float, burst: float, spent: float, part: float
) -> None:
    cost = part * burst
    assert TokenBucket(per_minute, burst).retry_after_s(1e6, spent, cost) <= cost * 60 / per_minute + 1e-6


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
