"""What a run came to: the books and the latencies of operator mode, the seconds of paper mode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopoiesis.simulate.layout import SECOND
from autopoiesis.simulate.scenario import Scenario
from autopoiesis.simulate.simulation import Simulation
from autopoiesis.simulate.views import good_rows, latencies
from autopoiesis.workload.status import Status
from autopoiesis.workload.synopsis import nearest_rank


@dataclass(frozen=True, slots=True)
class Spread:
    """Of one latency, in seconds; percentiles by nearest rank. All zero where nothing was measured."""

    mean: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class Books:
    """Operator mode. requests = completed + lost + shed + rejected."""

    requests: int
    completed: int
    lost: int
    shed: int
    rejected: int
    good: int
    """Completed within the SLO."""
    goodput: float
    """good ÷ requests."""
    cost_usd: float
    cost_per_good_usd: float | None
    """None if no request is good."""
    delay_s: float
    """Sum over completed requests of the time beyond the unloaded time."""
    gpu_hours: float
    ttft_s: Spread
    tpot_s: Spread
    e2e_s: Spread


@dataclass(frozen=True, slots=True)
class PaperTimes:
    """Paper mode: the sum of the windows' makespans, every instant attributed once."""

    total_s: float
    scheduling_s: float
    reconfiguration_s: float
    serving_s: float


def spread(values: NDArray[np.float64]) -> Spread:
    """Mean and nearest-rank percentiles; NaN entries are left out."""
    values = np.sort(values[~np.isnan(values)])
    if not len(values):
        return Spread(0.0, 0.0, 0.0, 0.0)
    return Spread(
        float(values.mean()), nearest_rank(values, 0.5), nearest_rank(values, 0.9), nearest_rank(values, 0.99)
    )


def keep_books(scenario: Scenario, simulation: Simulation, cost_usd: float, gpu_hours: float) -> Books:
    """The books of a finished simulation. Requests that never arrived (none, after a drain) would break the sum."""
    requests = simulation.state.requests
    status = requests["status"]
    completed = np.flatnonzero(status == Status.COMPLETED)
    good = int(good_rows(simulation, np.arange(len(requests))).sum())
    ttft_s, tpot_s = latencies(simulation, completed)
    e2e_s = (requests["done"][completed] - requests["arrival"][completed]) / SECOND
    delay_s = np.maximum(e2e_s - scenario.unloaded_s[completed], 0.0)
    return Books(
        requests=len(requests),
        completed=len(completed),
        lost=int((status == Status.LOST).sum()),
        shed=int((status == Status.SHED).sum()),
        rejected=int((status == Status.REJECTED).sum()),
        good=good,
        goodput=good / max(len(requests), 1),
        cost_usd=cost_usd,
        cost_per_good_usd=cost_usd / good if good else None,
        delay_s=float(delay_s.sum()),
        gpu_hours=gpu_hours,
        ttft_s=spread(ttft_s),
        tpot_s=spread(tpot_s),
        e2e_s=spread(e2e_s.astype(np.float64)),
    )


def score(objective: str, books: Books | None, paper: PaperTimes | None) -> float:
    """The objective as one number, smaller is better; infinite where no request was good."""
    if objective == "total_time":
        if paper is None:
            raise ValueError("total_time is an objective of paper mode")
        return paper.total_s
    if books is None:
        raise ValueError(f"{objective} is an objective of operator mode")
    if objective == "cost_per_good":
        return float("inf") if books.cost_per_good_usd is None else books.cost_per_good_usd
    if objective == "goodput":
        return 1.0 - books.goodput
    return books.delay_s / max(books.completed, 1) + 600.0 * (1 - books.completed / max(books.requests, 1))
