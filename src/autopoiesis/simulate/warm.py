"""Compile everything once: `python -m autopoiesis.simulate.warm`, after an installation or an upgrade.

Compiled code is kept on disk, so this only moves the half minute of compiling from the first run to here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autopoiesis.cluster import Hardware, catalog
from autopoiesis.cost import CostModel
from autopoiesis.plan import Replica, ServingPlan
from autopoiesis.simulate import fluid, fluid_horizon
from autopoiesis.simulate.simulation import Simulation
from autopoiesis.workload import SLO, single_requests


def warm() -> None:
    """Load, or compile and keep, the fluid model and the event kernel."""
    fluid.warm()
    model = "llama-3.1-8b"
    cost = CostModel(Hardware(catalog.gpus(), catalog.models()))
    few = single_requests(np.arange(4.0), np.full(4, 100), np.full(4, 10))
    # a session, so that prompts are chains
    few = replace(few, previous=np.array([-1, 0, -1, -1]), prefix_tokens=np.array([0, 100, 0, 0]))
    simulation = Simulation(few, (model,), {model: SLO()}, cost, seed=0)
    slots = [simulation.start(Replica(model, "h100"), 1.0, 0.0, seed) for seed in range(2)]
    simulation.advance(1.5)
    simulation.sample()
    simulation.drain(slots[0])
    simulation.stop(slots[0])
    simulation.advance(float("inf"))
    load = fluid.ClassLoad(f"{model}/<512", model, 1.0, 100.0, 150.0, 10.0, 15.0)
    plan = ServingPlan((Replica(model, "h100"),))
    fluid_horizon.warm(fluid.Coefficients(cost), plan, load, {model: SLO()})


if __name__ == "__main__":
    warm()
