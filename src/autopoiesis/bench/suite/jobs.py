"""The pieces of work of a suite, in the order in which they are done, and what each is to measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autopoiesis.bench.suite.cells import Cell, Suite
from autopoiesis.bench.suite.statistics import BEST_FIXED, BEST_FOUND, EVOLVING, PER_WINDOW
from autopoiesis.bench.suite.tuning import spaces

TRAINING_SEEDS = (1000, 1001)
"""Days and worlds on which parameters are searched."""
COLOCATED = "best-colocated"
BOUND, REFERENCE = "bound", "reference"
SWEPT = ("static", "milp-replan", "threshold", "amortised", "distserve", "scale-to-load")
"""Human policies that are measured wherever one thing is varied."""
PAPER = (
    "static",
    "greedy-replan",
    "milp-replan",
    "threshold",
    "amortised",
    "distserve",
    "oserve",
    "thunderserve",
    "spotserve",
)
"""Human policies that are measured in paper mode."""
WEIGHTS = {"tune": (20.0, 150.0), "measure": (20.0, 110.0), "sweep": (15.0, 25.0), "paper": (15.0, 60.0)}
"""Seconds that a job takes at least, and for an hour of its slice."""
SETTLED_ANEW = ("load", "amplitude")
"""Drivers that find load and first plan anew; under the others they are those of the cell."""


@dataclass(frozen=True)
class Job:
    """One cell and seed, with one thing to do."""

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

    @property
    def weight(self) -> float:
        """About how many seconds it takes: settling the day, then mostly as long as the slice is."""
        each, per_hour = WEIGHTS[self.kind]
        return each + per_hour * self.cell.slice_hours

    @property
    def settled_as(self) -> Cell:
        """The cell whose load and first plan it takes."""
        return self.cell if self.driver in SETTLED_ANEW else self.base


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
            jobs += [Job("sweep", cell, cell.with_driver(driver, value), 0, driver, value) for value in values]
    return jobs


def variants(job: Job, suite: Suite) -> Iterator[tuple[str, str]]:
    """Name and kind of everything that a job measures; in paper mode under each accounting."""
    human, tunable = suite.human(), spaces()
    wanted = {"tune": (), "measure": tuple(human), "sweep": SWEPT, "paper": PAPER}[job.kind]
    for name in wanted:
        if name in human:
            if job.kind == "measure" or name not in tunable:
                yield name, "default"
            if name in tunable:
                yield name, "tuned"
    if job.kind in ("measure", "paper"):
        yield EVOLVING, EVOLVING
    if job.kind in ("measure", "sweep"):
        yield from ((name, BOUND) for name in (BEST_FIXED, PER_WINDOW, BEST_FOUND))
    if job.kind == "measure" and job.cell.colocated:
        yield COLOCATED, REFERENCE
