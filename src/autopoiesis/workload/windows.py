"""What a monitoring window says of the load: per request class, from what had happened by its end.

Demand is censored nowhere: requests that were queued, held or shed count as arrivals. Output lengths are those of
requests that *finished* in the window, because nobody knows the others yet.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClassWindow:
    """One request class in one window. Lengths are tokens; a statistic of nothing is 0."""

    request_class: str
    arrivals: int
    rate_rps: float
    input_mean: float
    input_p90: float
    output_mean: float
    """Over requests that finished in this window."""
    output_p90: float
    prefix_mean: float
    """Mean prompt tokens shared with the session's previous call."""
    completed: int
    good: int
    """Completed within the SLO."""
    shed: int
    lost: int
    backlog: int
    """Arrived and not finished at the window's end, the ones being served included."""
    queued: int
    """Of these, still without a first token."""
    ttft_p90_s: float
    tpot_p90_s: float


@dataclass(frozen=True, slots=True)
class Window:
    """One monitoring window, `start_s` ≤ t < `end_s`."""

    index: int
    start_s: float
    end_s: float
    classes: tuple[ClassWindow, ...]
    """One entry for each class that arrived, finished or is backlogged."""
    dispersion: float
    """Variance ÷ mean of arrivals per second; 1 for a Poisson process."""

    @property
    def rate_rps(self) -> float:
        return sum(entry.rate_rps for entry in self.classes)

    @property
    def backlog(self) -> int:
        return sum(entry.backlog for entry in self.classes)

    def of(self, request_class: str) -> ClassWindow | None:
        return next((entry for entry in self.classes if entry.request_class == request_class), None)
