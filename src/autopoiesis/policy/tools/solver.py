"""Linear and mixed-integer programs over HiGHS: one thread, a fixed seed, limits by work and never by time.

So the same program has the same answer on every machine, and what it cost can be counted: nodes and iterations go to
`state.estimator` where that keeps a meter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import highspy
import numpy as np

from autopoiesis.policy.interface import Estimator
from autopoiesis.policy.meter import SolverMeter

INFINITY = float("inf")


@dataclass(slots=True)
class Program:
    """Maximise `objective · x` subject to bounds on columns and rows; built up column by column."""

    objective: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    integer: list[bool] = field(default_factory=list)
    rows: list[tuple[float, float, dict[int, float]]] = field(default_factory=list)

    def column(self, objective: float, lower: float, upper: float, integer: bool = False) -> int:
        """Adds a variable and answers its index."""
        self.objective.append(objective)
        self.lower.append(lower)
        self.upper.append(upper)
        self.integer.append(integer)
        return len(self.objective) - 1

    def row(self, lower: float, upper: float, terms: Mapping[int, float]) -> None:
        """Adds `lower` ≤ Σ terms ≤ `upper`; terms are coefficients by column."""
        self.rows.append((lower, upper, dict(terms)))


def maximise(
    program: Program,
    estimator: Estimator,
    start: Mapping[int, float] | None = None,
    node_limit: int = 2000,
    iteration_limit: int = 20_000,
) -> list[float] | None:
    """Values of the columns at the best point found; None if there is none or the limits came first.

    `start` gives values of some columns of a point known to be feasible. Within the limits the optimum is exact up
    to a relative gap of 1e-6; beyond them the answer is the best point so far.
    """
    solver = highspy.Highs()  # type: ignore[no-untyped-call]
    options = {
        "output_flag": False,
        "threads": 1,
        "random_seed": 0,
        "mip_rel_gap": 1e-6,
        "mip_max_nodes": node_limit,
        "simplex_iteration_limit": iteration_limit,
    }
    for name, value in options.items():
        solver.setOptionValue(name, value)
    for column, objective in enumerate(program.objective):
        solver.addVar(program.lower[column], program.upper[column])
        solver.changeColCost(column, objective)
        if program.integer[column]:
            solver.changeColIntegrality(column, highspy.HighsVarType.kInteger)
    for lower, upper, terms in program.rows:
        indices = np.array(list(terms), dtype=np.int32)
        solver.addRow(lower, upper, len(terms), indices, np.array(list(terms.values()), dtype=np.float64))
    solver.changeObjectiveSense(highspy.ObjSense.kMaximize)
    if start is not None:
        columns = np.array(list(start), dtype=np.int32)
        solver.setSolution(len(columns), columns, np.array(list(start.values()), dtype=np.float64))
    solver.run()
    info = solver.getInfo()
    if isinstance(estimator, SolverMeter):
        estimator.charge_solver(max(info.mip_node_count, 0), max(info.simplex_iteration_count, 0))
    if info.primal_solution_status != 2:
        return None
    return [float(value) for value in solver.getSolution().col_value]
