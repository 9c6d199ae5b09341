"""Rates and arrivals of presets: levels, days, surges, renewal processes, clients that come and go."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from autopoiesis.workload import shape
from autopoiesis.workload.presets import preset
from autopoiesis.workload.presets.arrivals import (
    Floats,
    cumulative,
    drifting,
    gamma_arrivals,
    surging,
    switched,
    waves,
    weibull_arrivals,
)
from autopoiesis.workload.presets.clients import crowd, length_factors
from autopoiesis.workload.presets.specification import Clients, Drift, Surges, Switch, Wave

DAYS = 200


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_switch_spends_its_mean_times_at_two_levels_of_mean_one() -> None:
    path = switched(Switch(low=1.0, high=4.0, low_s=60.0, high_s=30.0), 400_000, 1.0, rng())
    low, high = np.unique(path)
    assert high / low == pytest.approx(4.0)
    assert path.mean() == pytest.approx(1.0, abs=0.03)
    assert np.mean(path == high) == pytest.approx(1 / 3, abs=0.02)
    changes = np.count_nonzero(np.diff(path))
    assert len(path) / changes == pytest.approx(45.0, rel=0.06)


def test_a_drift_has_mean_one_and_forgets_with_its_time_constant() -> None:
    path = drifting(Drift(sd=0.4, tau_s=100.0), 400_000, 10.0, rng())
    assert path.mean() == pytest.approx(1.0, abs=0.02)
    logs = np.log(path)
    assert logs.std() == pytest.approx(0.4, rel=0.03)
    assert np.corrcoef(logs[10:], logs[:-10])[0, 1] == pytest.approx(np.exp(-1), abs=0.02)


def test_a_wave_peaks_at_its_hour_every_day() -> None:
    path = waves((Wave(amplitude=0.3, peak_h=17.0, period_h=24.0),), 2 * 1440, 60.0)
    day, next_day = path[:1440], path[1440:]
    assert day == pytest.approx(next_day)
    assert abs(int(np.argmax(day)) - 17 * 60) <= 1
    assert np.log(day.max() / day.min()) == pytest.approx(0.6, rel=1e-3)
    assert day.mean() == pytest.approx(1.0, abs=1e-3)


def test_surges_come_as_often_as_high_and_as_long_as_specified() -> None:
    spec = Surges(
        per_day=2.0, height=(2.0, 3.0), minutes_median=15.0, minutes_sigma=0.3, minutes_max=40.0, regularity=4
    )
    path = surging(spec, DAYS * 1440, 60.0, rng())
    calm = path.min()
    inside = path > calm
    begins = np.count_nonzero(inside[1:] & ~inside[:-1])
    assert begins / DAYS == pytest.approx(2.0, rel=0.1)
    assert inside.sum() / begins == pytest.approx(15.7, rel=0.1)
    assert path.mean() == pytest.approx(1.0, abs=0.01)
    heights = path[inside] / calm
    assert 1.99 < heights.min() < heights.max() < 3.01


@pytest.mark.parametrize("shape_", [0.4, 1.0, 3.0])
def test_gamma_arrivals_have_the_rate_and_the_variation_of_their_shape(shape_: float) -> None:
    edges_s, expected = cumulative(np.full(1000, 50.0), 1.0, 1000.0)
    arrivals = gamma_arrivals(edges_s, expected, shape_, rng())
    assert len(arrivals) == pytest.approx(50_000, rel=0.05)
    assert shape.interarrival_cv(arrivals) == pytest.approx(shape_**-0.5, rel=0.05)


def test_weibull_arrivals_have_the_rate_and_the_variation_of_their_shape() -> None:
    edges_s, expected = cumulative(np.full(1000, 50.0), 1.0, 1000.0)
    arrivals = weibull_arrivals(edges_s, expected, 0.5, rng())
    assert len(arrivals) == pytest.approx(50_000, rel=0.05)
    # Γ(5) / Γ(3)² - 1 = 5
    assert shape.interarrival_cv(arrivals) == pytest.approx(5**0.5, rel=0.1)


def test_arrivals_follow_the_rate_and_stop_at_the_end() -> None:
    edges_s, expected = cumulative(np.array([100.0, 0.0, 300.0]), 10.0, 25.0)
    arrivals = gamma_arrivals(edges_s, expected, 1.0, rng())
    assert arrivals.max() < 25.0
    counts = np.histogram(arrivals, [0.0, 10.0, 20.0, 25.0])[0]
    assert counts[1] == 0
    assert counts[[0, 2]] == pytest.approx([1000, 1500], rel=0.15)


@pytest.mark.parametrize("draw", [gamma_arrivals, weibull_arrivals])
def test_a_client_of_few_requests_sends_no_more_than_expected(
    draw: Callable[[Floats, Floats, float, np.random.Generator], Floats],
) -> None:
    """A renewal process that began with the load would send its first request too soon."""
    edges_s, expected = cumulative(np.full(10, 0.05), 1.0, 10.0)
    sent = [len(draw(edges_s, expected, 0.45, rng(seed))) for seed in range(4000)]
    assert np.mean(sent) == pytest.approx(0.5, rel=0.2)


def clients_of(name: str) -> Clients:
    clients = preset(name).clients
    assert clients is not None
    return clients


@pytest.mark.parametrize(
    ("name", "active", "top", "top_ten"), [("mix-shift", 49.5, 0.16, 0.63), ("diurnal", 19.9, 0.30, 0.93)]
)
def test_clients_are_skewed_and_come_and_go_as_recorded(name: str, active: float, top: float, top_ten: float) -> None:
    who = [crowd(clients_of(name), 14 * 86_400.0, rng(seed)) for seed in range(15)]
    for each in who:
        assert each.share.sum(axis=0) == pytest.approx(1.0)
    assert np.median([np.mean(np.sum(each.share > 0, axis=0)) for each in who]) == pytest.approx(active, rel=0.25)
    totals = np.array([np.sort(each.share.mean(axis=1))[::-1] for each in who])
    assert np.median(totals[:, 0]) == pytest.approx(top, rel=0.25)
    assert np.median(totals[:, :10].sum(axis=1)) == pytest.approx(top_ten, rel=0.25)


def test_who_is_there_does_not_move_the_mean_length() -> None:
    who = crowd(clients_of("mix-shift"), 2 * 86_400.0, rng(3))
    for factors in length_factors(who):
        assert np.sum(who.share * factors, axis=0) == pytest.approx(1.0)
        assert np.std(np.log(factors)) > 0.2, "clients differ"
