"""Replicas that nothing is known of."""

from __future__ import annotations

from autopoiesis.serve.config import HealthConfig
from autopoiesis.serve.health import Health
from autopoiesis.serve.replica import Replica

HEALTH = HealthConfig()


def idle_fleet(size: int) -> list[Replica]:
    """So many replicas of one model, by ascending slot."""
    return [Replica(f"r{slot}", "http://r", "r", 80, "m", slot=slot, health=Health(HEALTH)) for slot in range(size)]
