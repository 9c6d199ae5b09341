"""Loads that are drawn: their rate, their bursts and their lengths."""

from __future__ import annotations

import numpy as np
import pytest

from autopoiesis.bench.load import Lengths, cut, steady, stretched
from autopoiesis.errors import ScenarioError
from autopoiesis.workload.requests import single_requests

FIXED = Lengths.parse("100")


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_gaps_have_the_rate_and_the_variation_asked_for(cv: float) -> None:
    gaps = np.diff(steady(rng(), 50.0, 2000.0, cv, FIXED, FIXED).arrival_s)
    assert gaps.mean() == pytest.approx(0.02, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


def test_without_variation_requests_are_evenly_spaced() -> None:
    assert steady(rng(), 4.0, 1.0, 0.0, FIXED, FIXED).arrival_s.tolist() == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("text", "median", "least", "most"),
    [("100", 100, 100, 100), ("uniform:10:20", 15, 10, 20), ("lognormal:64:0.5", 64, 1, 10_000)],
)
def test_lengths_are_drawn_as_named(text: str, median: float, least: int, most: int) -> None:
    drawn = Lengths.parse(text).draw(rng(), 5000)
    assert np.median(drawn) == pytest.approx(median, rel=0.07)
    assert least <= drawn.min() <= drawn.max() <= most


@pytest.mark.parametrize(
    "text", ["", "0", "x", "nan", "-3", "1:2", "uniform:5", "uniform:9:5", "lognormal:5:9", "normal:5:1", "1e99"]
)
def test_lengths_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Lengths.parse(text)


def test_a_load_is_cut_by_time_and_by_number() -> None:
    requests = single_requests(np.arange(10.0), np.ones(10, dtype=np.int64), np.ones(10, dtype=np.int64))
    assert [len(cut(requests, *to)) for to in ((None, None), (4.0, None), (4.0, 2), (None, 30))] == [10, 4, 2, 10]


def test_a_load_is_neither_empty_nor_endless() -> None:
    with pytest.raises(ScenarioError, match="not 0"):
        cut(single_requests(np.array([5.0]), np.ones(1, dtype=np.int64), np.ones(1, dtype=np.int64)), 1.0, None)
    with pytest.raises(ScenarioError, match="shorten the load"):
        steady(rng(), 1000.0, 1e6, 1.0, FIXED, FIXED)


def test_stretching_moves_arrivals_and_thinking() -> None:
    requests = steady(rng(), 5.0, 10.0, 1.0, FIXED, FIXED)
    assert np.array_equal(stretched(requests, 2.0).arrival_s, 2 * requests.arrival_s)
    assert stretched(requests, 1.0) is requests
