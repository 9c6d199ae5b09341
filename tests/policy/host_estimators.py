"""Estimators that the tests inject into policy hosts by import path."""

from __future__ import annotations

import msgspec

from autopoiesis.plan import Replica, ServingPlan
from autopoiesis.policy.interface import Estimate, Observation, Transition

warmed: list[bool] = []


def warm() -> None:
    warmed.append(True)


class Counting:
    """Goodput is the belief's number plus how often this very object was asked."""

    def __init__(self, belief: bytes) -> None:
        self.base: float = msgspec.msgpack.decode(belief, type=float)
        self.asked = 0

    def estimate(self, observation: Observation, plan: ServingPlan) -> Estimate:
        self.asked += 1
        return Estimate(bool(warmed), 1.0, self.base + self.asked, 0.0, 0.0, 0.0, 0.0)

    def transition(self, observation: Observation, plan: ServingPlan) -> Transition:
        return Transition(1.0, 2.0, 0.5)

    def throughput(self, observation: Observation, replica: Replica) -> dict[str, float]:
        return {}
