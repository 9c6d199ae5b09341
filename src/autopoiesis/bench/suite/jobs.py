"""The pieces of work of a suite, in the order in which they are done.

A job that is done again finds what it had measured and goes on behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

from autopoiesis.bench.suite.cells import Cell, Suite

TRAINING_SEEDS = (1000, 1001)
"""Days and worlds on which parameters are searched."""


@dataclass(frozen=True)
class Job:
    """One cell and seed, with one thing to do. Weights are about seconds; they only tell how much is left."""

    kind: str
    """`tune`, `measure`, `sweep` or `paper`."""
    base: Cell
    cell: Cell
    """`base`, or with one thing varied."""
    seed: int
    driver: str = ""
    value: float = 0.0

    @property
    def title(self) -> str:
        varied = f" {self.driver}={self.value:g}" if self.driver else ""
        return f"{self.cell.name} {self.kind}{varied}" + ("" if self.kind == "tune" else f" seed {self.seed}")


def jobs_of(suite: Suite) -> list[Job]:
    """All there is to do, group by group; a cell's tuning comes before everything that needs it."""
    jobs = []
    for cell in suite.cells:
        jobs.append(Job("tune", cell, cell, TRAINING_SEEDS[0]))
        jobs += [Job("measure", cell, cell, seed) for seed in range(suite.seeds)]
    for cell in suite.cells:
        if cell.paper:
            jobs.append(Job("paper", cell, cell, 0))
        for driver, values in cell.sweeps.items():
            own = {"window_s": cell.window_s, "load": cell.load, "amplitude": 1.0, "planner_cost": 1.0, "price": 1.0}
            jobs += [
                Job("sweep", cell, cell.with_driver(driver, value), 0, driver, value)
                for value in values
                if own.get(driver) != value
            ]
    return jobs


def weight(job: Job) -> float:
    """About how long a job takes: settling the day, then mostly as long as the slice is."""
    each, per_hour = {"tune": (20.0, 150.0), "measure": (20.0, 110.0), "sweep": (15.0, 25.0), "paper": (15.0, 60.0)}[
        job.kind
    ]
    return each + per_hour * job.cell.slice_hours
