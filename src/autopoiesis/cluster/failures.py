"""Hardware that breaks: data of a pool. Without it nothing breaks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autopoiesis.errors import ScenarioError

SHORTEST_MTBF_H = 0.01
"""Nothing serves on what breaks more often, and drawing the failures would take all the time."""


@dataclass(frozen=True, slots=True)
class Failures:
    """Nodes that break without a word, and come back repaired. A node breaks when one of its GPUs does."""

    gpu_mtbf_h: float
    """Mean hours between failures of one GPU and what belongs to it (exponential)."""
    repair_s: float
    """Mean seconds until a machine stands in its place again (exponential)."""

    def __post_init__(self) -> None:
        if not SHORTEST_MTBF_H <= self.gpu_mtbf_h < math.inf:
            raise ScenarioError(
                f"field 'failures.gpu_mtbf_h' must be a finite number of hours, at least {SHORTEST_MTBF_H:g}"
            )
        if not 0 <= self.repair_s < math.inf:
            raise ScenarioError("field 'failures.repair_s' must be a finite number of seconds, at least 0")
