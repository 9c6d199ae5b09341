"""Made-up spot markets have the statistics of the recorded ones: medians over seeds, within a quarter."""

from __future__ import annotations

from dataclasses import astuple
from itertools import islice, pairwise

import numpy as np
import pytest

from autopoiesis.cluster import SpotRegime
from autopoiesis.cluster.spot import REGIMES, SpotStatistics, steps_of
from autopoiesis.errors import ScenarioError

DAYS = 60
"""A drought lasts hours and comes every few days; fewer days would have too few of them to count."""

RECORDED = {
    "plentiful": SpotStatistics(0.97, 1.20, 1.62, 0.13, 698.0, 565.0, 1660.0),
    "contended": SpotStatistics(0.68, 1.43, 2.43, 0.43, 600.0, 1078.0, 1941.0),
    "scarce": SpotStatistics(0.21, 1.34, 3.0, 1.62, 526.0, 836.0, 6248.0),
}
"""Bamboo's p2, g4dn 1c and g4dn 1d."""


@pytest.mark.parametrize("seeds", [5, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("regime", sorted(REGIMES))
def test_a_regime_has_the_statistics_of_its_model(regime: str, seeds: int) -> None:
    spot = SpotRegime(regime)
    seen = [spot.history(np.random.default_rng(seed), 24.0 * DAYS).statistics() for seed in range(seeds)]
    medians = np.median([astuple(statistics) for statistics in seen], axis=0)
    assert medians == pytest.approx(astuple(RECORDED[regime]), rel=0.25)


@pytest.mark.parametrize("regime", sorted(REGIMES))
def test_losses_cluster(regime: str) -> None:
    """In the recordings the mean gap is two to four times the median, where it is 1.4 times in a Poisson process."""
    history = SpotRegime(regime).history(np.random.default_rng(1), 24.0 * DAYS)
    losses = np.array(history.t_s)[1:][np.diff(history.nodes) < 0]
    gaps = np.diff(losses)
    assert 2.0 <= gaps.mean() / np.median(gaps) <= 6.0


@pytest.mark.parametrize("regime", sorted(REGIMES))
def test_steps_go_forward_and_stay_within_the_pool(regime: str) -> None:
    market = REGIMES[regime]
    steps = list(islice(steps_of(market, np.random.default_rng(2)), 5000))
    times, nodes = zip(*steps, strict=True)
    assert list(times) == sorted(set(times))
    assert 0 <= min(nodes) <= max(nodes) == market.nodes
    assert all(a != b for a, b in pairwise(nodes))


def test_worlds_begin_as_good_or_bad_as_the_market_is() -> None:
    first = [next(SpotRegime("contended").levels(np.random.default_rng(seed))) for seed in range(150)]
    assert {at_s for at_s, _ in first} == {0.0}
    assert np.mean([share for _, share in first]) == pytest.approx(0.7, abs=0.12)


def test_a_market_follows_its_seed() -> None:
    def levels(seed: int) -> list[tuple[float, float]]:
        return list(islice(SpotRegime("scarce").levels(np.random.default_rng(seed)), 50))

    assert levels(1) == levels(1)
    assert levels(1) != levels(2)


def test_an_unknown_regime_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ScenarioError, match=r"field 'spot.regime': unknown regime 'scarse'; did you mean scarce"):
        SpotRegime("scarse")
    with pytest.raises(ScenarioError, match=r"field 'spot.notice_s'"):
        SpotRegime("scarce", -1.0)
