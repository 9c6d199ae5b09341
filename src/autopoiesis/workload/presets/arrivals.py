"""When requests arrive: a rate that switches, drifts, has a day and surges, and a renewal process that follows it."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from autopoiesis.workload.presets.specification import Arrivals, Drift, Surges, Switch, Wave
from autopoiesis.workload.presets.streams import Streams

Floats = NDArray[np.float64]

DAY_S = 86_400.0
LEAD = 50.0
"""Expected requests before time 0."""
BEFORE = 20
"""A process that is to be stationary at time 0 begins so many of its mean cycles earlier."""


def rate_path(spec: Arrivals, end_s: float, drawn: Streams) -> Floats:
    """(steps,) rate in each step relative to its mean over all seeds (and, with waves, over a day), until `end_s`."""
    steps = max(math.ceil(end_s / spec.step_s), 1)
    path = waves(spec.waves, steps, spec.step_s)
    for switch in spec.switches:
        path *= switched(switch, steps, spec.step_s, drawn.rate)
    for drift in spec.drifts:
        path *= drifting(drift, steps, spec.step_s, drawn.rate)
    for surges in spec.surges:
        path *= surging(surges, steps, spec.step_s, drawn.surges)
    return path


def switched(spec: Switch, steps: int, step_s: float, rng: np.random.Generator) -> Floats:
    """(steps,) the two levels in turn, divided by their mean."""
    cycle_s = spec.low_s + spec.high_s
    begin_s = -BEFORE * cycle_s * rng.uniform(1.0, 2.0)
    end_s = steps * step_s
    # The times at a level are independent with a coefficient of variation of at most 1 / sqrt(regularity), so a few
    # standard deviations more than the mean number of cycles always reach the end.
    cycles = (end_s - begin_s) / cycle_s
    cycles = math.ceil(cycles + 10 * math.sqrt(cycles / min(spec.regularity, 1.0)) + 10)
    mean_s = np.tile([spec.low_s, spec.high_s], cycles)
    times_s = mean_s * rng.gamma(spec.regularity, 1.0 / spec.regularity, 2 * cycles)
    changes_s = begin_s + np.cumsum(times_s)
    middle_s = (np.arange(steps) + 0.5) * step_s
    high = np.searchsorted(changes_s, middle_s, side="right") % 2
    mean = (spec.low * spec.low_s + spec.high * spec.high_s) / cycle_s
    return np.array([spec.low, spec.high])[high] / mean


def autoregressive(noise: Floats, decay: float) -> Floats:
    """A stationary AR(1) of standard deviation 1 from standard normal noise: x' = decay · x + √(1 - decay²) · noise."""
    scaled = noise * math.sqrt(1.0 - decay * decay)
    scaled[:1] = noise[:1]
    return np.fromiter(accumulate(scaled.tolist(), lambda x, e: decay * x + e), dtype=np.float64, count=len(noise))


def drifting(spec: Drift, steps: int, step_s: float, rng: np.random.Generator) -> Floats:
    """(steps,) a lognormal factor of mean 1."""
    x = autoregressive(rng.standard_normal(steps), math.exp(-step_s / spec.tau_s))
    return np.exp(spec.sd * x - spec.sd**2 / 2)


def waves(specs: tuple[Wave, ...], steps: int, step_s: float) -> Floats:
    """(steps,) the daily cycle, of mean 1 over a day; 1 throughout without waves."""

    def rate(hours: Floats) -> Floats:
        logs = np.zeros(len(hours))
        for wave in specs:
            logs += wave.amplitude * np.cos(2 * np.pi * (hours - wave.peak_h) / wave.period_h)
        return np.exp(logs)

    minutes = np.arange(24 * 60, dtype=np.float64)
    middle_h = (np.arange(steps, dtype=np.float64) + 0.5) * step_s / 3600.0
    return rate(middle_h) / float(rate(minutes / 60.0).mean())


def surging(spec: Surges, steps: int, step_s: float, rng: np.random.Generator) -> Floats:
    """(steps,) 1 outside surges and their height inside, divided by its mean; the higher of two that overlap."""
    gap_s = DAY_S / spec.per_day
    begin_s = -BEFORE * gap_s
    count = (steps * step_s - begin_s) / gap_s
    count = math.ceil(count + 10 * math.sqrt(count / min(spec.regularity, 1.0)) + 10)
    start_s = begin_s + np.cumsum(gap_s * rng.gamma(spec.regularity, 1.0 / spec.regularity, count))
    minutes = spec.minutes_median * np.exp(spec.minutes_sigma * rng.standard_normal(count))
    end_s = start_s + 60.0 * np.minimum(minutes, spec.minutes_max)
    height = rng.uniform(*spec.height, count)
    first = np.clip(np.rint(start_s / step_s), 0, steps).astype(np.int64)
    after = np.clip(np.rint(end_s / step_s), 0, steps).astype(np.int64)
    path = np.ones(steps)
    for begin, end, level in zip(first.tolist(), after.tolist(), height.tolist(), strict=True):
        path[begin:end] = np.maximum(path[begin:end], level)
    busy = 60.0 * spec.minutes_median * math.exp(spec.minutes_sigma**2 / 2) / gap_s
    path /= 1.0 + busy * (sum(spec.height) / 2 - 1.0)
    return path


def cumulative(rate_rps: Floats, step_s: float, end_s: float) -> tuple[Floats, Floats]:
    """(steps + 1,) the edges of the steps, the last at `end_s`, and the number of requests expected up to each."""
    edges_s = np.minimum(np.arange(len(rate_rps) + 1) * step_s, end_s)
    return edges_s, np.concatenate([[0.0], np.cumsum(rate_rps * np.diff(edges_s))])


def renewals(edges_s: Floats, expected: Floats, gaps: Floats) -> Floats:
    """Arrivals of a renewal process whose clock runs with the rate: gaps of mean 1 in expected requests.

    The clock starts `LEAD` before 0, so that the process has forgotten its start. `gaps` reach the end, see
    `gaps_wanted`.
    """
    clock = np.cumsum(gaps) - LEAD
    clock = clock[np.searchsorted(clock, 0.0) : np.searchsorted(clock, expected[-1])]
    arrivals: Floats = np.interp(clock, expected, edges_s)
    return arrivals


def gaps_wanted(expected: float, variance: float) -> int:
    """How many gaps of mean 1 and this variance surely (ten standard deviations) reach `expected`."""
    reach = expected + LEAD
    return math.ceil(reach + 10 * math.sqrt(max(variance, 1.0) * reach) + 10 * max(variance, 1.0))


def gamma_arrivals(edges_s: Floats, expected: Floats, shape: float, rng: np.random.Generator) -> Floats:
    """Arrivals with Gamma inter-arrival times of this shape (coefficient of variation 1/√shape) at a constant rate."""
    count = gaps_wanted(float(expected[-1]), 1.0 / shape)
    return renewals(edges_s, expected, rng.gamma(shape, 1.0 / shape, count))


def weibull_arrivals(edges_s: Floats, expected: Floats, shape: float, rng: np.random.Generator) -> Floats:
    """Arrivals with Weibull inter-arrival times of this shape at a constant rate."""
    mean = math.gamma(1 + 1 / shape)
    count = gaps_wanted(float(expected[-1]), math.gamma(1 + 2 / shape) / mean**2 - 1)
    return renewals(edges_s, expected, rng.weibull(shape, count) / mean)
