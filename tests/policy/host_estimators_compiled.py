"""An estimator on numba: one function compiled before the lock, one only when it is first asked."""

from __future__ import annotations

from typing import Any

import host_estimators
import numba

from autopoiesis.plan import ServingPlan
from autopoiesis.policy.interface import Estimate, Observation


def _triple(x: float) -> float:
    return 3.0 * x


early: Any = numba.njit(_triple)
late: Any = numba.njit(_triple)


def warm() -> None:
    early(1.0)


class Compiled(host_estimators.Counting):
    def estimate(self, observation: Observation, plan: ServingPlan) -> Estimate:
        return Estimate(True, early(self.base), late(self.base), 0.0, 0.0, 0.0, 0.0)
