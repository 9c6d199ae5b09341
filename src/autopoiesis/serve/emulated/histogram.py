"""Counts of durations by bucket, as Prometheus has them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator


class Histogram:
    """Cumulative on the page, plain in memory; `bounds` are the upper bounds in seconds, ascending."""

    def __init__(self, name: str, help: str, bounds: tuple[float, ...]) -> None:
        self.name = name
        self.count = 0
        self.sum = 0.0
        self._help = help
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, seconds: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += times
        self.count += times
        self.sum += seconds * times

    def lines(self, labels: str) -> Iterator[str]:
        """The text exposition, with these labels on every sample."""
        yield f"# HELP {self.name} {self._help}"
        yield f"# TYPE {self.name} histogram"
        total = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            yield f'{self.name}_bucket{{{labels},le="{bound}"}} {total}'
        yield f"{self.name}_sum{{{labels}}} {self.sum!r}"
        yield f"{self.name}_count{{{labels}}} {self.count}"
