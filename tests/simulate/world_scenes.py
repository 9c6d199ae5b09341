"""A simulated world without a loop: commands by hand, and everything that comes of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from run_scenes import ELASTIC

from autopoiesis.cluster import Cluster
from autopoiesis.loop.messages import Event
from autopoiesis.plan import Capacity, ServingPlan
from autopoiesis.simulate.scenario import Mode, Scenario
from autopoiesis.simulate.world import SimulatedWorld


def world_of(
    scenario: Scenario, plan: ServingPlan, capacity: Capacity | None = None, mode: Mode = Mode.OPERATOR
) -> SimulatedWorld:
    return SimulatedWorld(scenario, plan, capacity or Capacity.at_minimum(scenario.cluster), mode)


def elastic(gpus: int, cluster: Cluster = ELASTIC) -> Capacity:
    return Capacity.at_minimum(cluster).with_pool("a100", gpus)


def events_until(world: SimulatedWorld, until_s: float) -> list[tuple[float, Event]]:
    """Every event up to then and when it happened. Fails if time stands still."""
    events: list[tuple[float, Event]] = []
    for _ in range(10_000):
        new = world.advance(until_s)
        events += [(world.now_s, event) for event in new]
        if not new:
            return events
    raise AssertionError("time stands still")


def phases(world: SimulatedWorld) -> Counter[str]:
    return Counter(world.fleet.phases.values())


def in_flight(world: SimulatedWorld) -> list[int]:
    return [status[2] for status in world.statuses()]


def requests_of(world: SimulatedWorld) -> Any:
    return world.simulation.state.requests
