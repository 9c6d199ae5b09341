"""How long a requested node takes to come, as distributions that a pool can name instead of two quantiles."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DelayDistribution:
    """Seconds by quantile, rising; between two of them seconds grow geometrically, or linearly from 0."""

    quantiles: tuple[float, ...]
    seconds: tuple[float, ...]

    def at(self, quantile: float) -> float:
        """Seconds that a share `quantile` (0 to 1) of nodes does not exceed."""
        upper = min(bisect_right(self.quantiles, quantile), len(self.quantiles) - 1)
        low, high = self.seconds[upper - 1], self.seconds[upper]
        left, right = self.quantiles[upper - 1], self.quantiles[upper]
        part = (quantile - left) / (right - left)
        return low + part * (high - low) if low <= 0 else low * math.exp(part * math.log(high / low))


DELAYS = {
    # Alibaba GPU inference services, 31 days, from creation to being scheduled (cluster-trace-gpu-v2025). Percentiles
    # from the 50th to the 99th are measured; the end is where it must be for the mean to be the measured 654 s.
    "alibaba-2025": DelayDistribution((0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0), (0, 0, 44, 134, 853, 11_396, 118_000)),
}
"""By name."""
