"""Books and scores: what a run came to, counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_scenes import COST, FIXED, H, InProcess, every, plain, plan_of, run_of, with_route

from autopoiesis.cost import StepTimes
from autopoiesis.simulate.outcome import Books, PaperTimes, Spread, score, spread
from autopoiesis.simulate.scenario import Mode
from autopoiesis.workload import SLO, Requests, single_requests


def books_of(requests: Requests, **options: object) -> Books:
    books = run_of(plain(FIXED, requests, **options), InProcess(), plan_of(H)).outcome.books
    assert books is not None
    return books


def times() -> StepTimes:
    return COST.steps(H.model, H.gpu, 1, 1, 2)


def test_a_request_alone_takes_its_unloaded_time_and_has_no_delay() -> None:
    requests = every(30.0, 3, 3000, 200)
    books = books_of(requests)
    assert books.e2e_s.mean == pytest.approx(times().unloaded_s(3000, 200, 8192), rel=1e-4)
    # the fastest shape of the cluster is one of two GPUs
    fastest = COST.steps(H.model, H.gpu, 2, 1, 2).unloaded_s(3000, 200, 8192)
    assert books.delay_s == pytest.approx(3 * (books.e2e_s.mean - fastest), rel=1e-6)
    scenario = plain(FIXED, requests)
    assert scenario.unloaded_s == pytest.approx([fastest] * 3)


def test_latencies_are_counted_from_the_arrival() -> None:
    books = books_of(every(30.0, 3, 3000, 200))
    first = times().step_s(3000, 3000.0**2, 0, 0)
    assert books.ttft_s.p50 == pytest.approx(first, rel=1e-4)
    assert books.tpot_s.mean == pytest.approx((books.e2e_s.mean - first) / 199, rel=1e-4)


def test_a_fixed_cluster_pays_for_all_its_gpus_to_the_end() -> None:
    ran = run_of(plain(FIXED, every(10.0, 20)), InProcess(), plan_of(H))
    books = ran.outcome.books
    assert books is not None
    assert books.gpu_hours == pytest.approx(4 * ran.outcome.ended_s / 3600)
    assert books.cost_usd == pytest.approx(2.0 * books.gpu_hours)
    assert books.cost_per_good_usd == pytest.approx(books.cost_usd / 20)


def test_one_token_or_none_has_no_tpot_and_counts_as_steady() -> None:
    books = books_of(single_requests(np.arange(3.0), np.full(3, 100, np.int64), np.array([1, 1, 1])))
    assert books.tpot_s == Spread(0.0, 0.0, 0.0, 0.0)
    assert books.good == 3


def test_a_request_longer_than_the_context_is_rejected() -> None:
    books = books_of(single_requests(np.arange(2.0), np.array([100, 131_000]), np.array([10, 100])))
    assert (books.completed, books.rejected, books.good) == (1, 1, 1)
    assert books.goodput == 0.5


def test_without_a_good_request_there_is_no_cost_per_good_one() -> None:
    shed = '''"""Refuses everybody."""
from autopoiesis.policy import SHED, ReplicaView, Request
def route(request: Request, replicas: list[ReplicaView]) -> int:
    return SHED
'''
    ran = run_of(plain(FIXED, every(1.0, 5)), InProcess(routing=with_route(shed)), plan_of(H))
    books = ran.outcome.books
    assert books is not None
    assert (books.shed, books.good, books.cost_per_good_usd) == (5, 0, None)
    assert score("cost_per_good", books, None) == math.inf


def test_a_broken_slo_makes_a_request_no_good_one() -> None:
    requests = every(0.01, 2000, 1000, 200)
    ran = run_of(plain(FIXED, requests), InProcess(), plan_of(H))
    books = ran.outcome.books
    assert books is not None
    slo = SLO()
    rows = ran.requests
    ttft_s = (rows["first"] - rows["arrival"]) / 1e12
    tpot_s = (rows["done"] - rows["first"]) / 1e12 / 199
    good = (ttft_s <= slo.ttft_limit_s(1000)) & (tpot_s <= slo.tpot_s)
    assert 0 < good.sum() < 2000
    assert books.good == good.sum()


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_percentiles_are_nearest_ranks(values: list[float]) -> None:
    shown = spread(np.array([*values, math.nan]))
    ordered = sorted(values)
    for share, value in ((0.5, shown.p50), (0.9, shown.p90), (0.99, shown.p99)):
        assert value in ordered
        assert sum(v <= value for v in ordered) >= share * len(ordered) - 1e-9
        assert sum(v < value for v in ordered) < share * len(ordered)
    assert shown.mean == pytest.approx(np.mean(values))


def test_objectives_become_one_number_smaller_is_better() -> None:
    books = books_of(every(10.0, 4))
    assert score("goodput", books, None) == 0.0
    assert score("cost_per_good", books, None) == books.cost_per_good_usd
    assert score("delay", books, None) == pytest.approx(books.delay_s / 4)
    assert score("total_time", None, PaperTimes(10.0, 1.0, 2.0, 7.0)) == 10.0
    with pytest.raises(ValueError, match="paper mode"):
        score("total_time", books, None)
    with pytest.raises(ValueError, match="operator mode"):
        score("goodput", None, PaperTimes(10.0, 1.0, 2.0, 7.0))


def test_paper_mode_has_times_and_no_books() -> None:
    outcome = run_of(plain(FIXED, every(1.0, 5)), InProcess(), plan_of(H), Mode.ADDITIVE).outcome
    assert outcome.books is None
    assert outcome.paper is not None
    assert outcome.paper.total_s == pytest.approx(outcome.ended_s)
