"""Results small enough to be worked by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autopoiesis.bench.suite.results import Measured, Meta, PaperResult, Results, RowResult, SweepResult

SEEDS = [1, 2, 3]
SHIFT: dict[tuple[str, str], Sequence[float]] = {
    ("best-found", "bound"): (10, 20, 30),
    ("best-fixed", "bound"): (14, 28, 42),
    ("evolving", "evolving"): (11, 22, 36.5),
    ("amortised", "default"): (20, 30, 40),
    ("amortised", "tuned"): (12.5, 25, 40),
    ("milp-replan", "default"): (15, 30, 45),
    ("milp-replan", "tuned"): (13, 26, 39),
}
"""Scores with seeds 1, 2 and 3 in a cell with something to win."""
CALM: dict[tuple[str, str], Sequence[float]] = {
    ("best-found", "bound"): (100, 100, 100),
    ("best-fixed", "bound"): (101, 101, 101),
    ("evolving", "evolving"): (103, 103, 103),
    ("amortised", "default"): (110, 110, 110),
    ("amortised", "tuned"): (102, 102, 102),
    ("milp-replan", "default"): (125, 125, 125),
    ("milp-replan", "tuned"): (120, 120, 120),
}
"""The same in a control."""


def measured(score: float, **changed: Any) -> Measured:
    given: dict[str, Any] = {
        "score": float(score),
        "goodput": 0.9,
        "cost_per_good_usd": float(score),
        "delay_s": 0.5,
        "cost_usd": 12.0,
        "reschedules": 3,
        "failures": 0,
        "charged_s": 1.5,
        "completed": 90,
        "requests": 100,
        "wall_s": 2.0,
    }
    return Measured(**{**given, **changed})


def rows(
    scores: Mapping[tuple[str, str], Sequence[float]],
    cell: str = "shift",
    group: str = "shared",
    objective: str = "cost_per_good",
) -> list[RowResult]:
    """A row for each score, the first with seed 1."""
    return [
        RowResult(cell, group, objective, seed, policy, kind, measured(score), {})
        for (policy, kind), of in scores.items()
        for seed, score in enumerate(of, start=1)
    ]


def meta(**changed: Any) -> Meta:
    given: dict[str, Any] = {
        "suite": "headroom",
        "version": "0.1.0",
        "seeds": SEEDS,
        "jobs": 2,
        "cores": 2,
        "wall_s": 60.0,
        "cpu_s": 100.0,
        "machine": "a processor",
        "commands": "autopoiesis bench --suite headroom --out DIR",
    }
    return Meta(**{**given, **changed})


def planned(rows: Sequence[RowResult]) -> list[tuple[str, str, str, int, str, str]]:
    """What a run was to measure that was to measure just these."""
    return [(of.group, of.cell, of.objective, of.seed, of.policy, of.kind) for of in rows]


def sample(**changed: Any) -> Results:
    """Both cells with all seeds, a sweep of two loads, of which 0.7 is the cell's own, with one, and paper mode."""
    given: dict[str, Any] = {
        "meta": meta(),
        "rows": rows(SHIFT) + rows(CALM, "calm", "controls"),
        "sweeps": [
            SweepResult(of.cell, of.group, of.objective, 1, "load", load, of.policy, of.kind, of.measured, load == 0.7)
            for load, scores in ((0.7, CALM), (1.0, SHIFT))
            for of in rows(scores)
            if of.seed == 1 and of.policy != "evolving"
        ],
        "papers": [
            PaperResult("shift", "shared", seed, policy, kind, accounting, total, planning, moving, serving)
            for seed in SEEDS
            for accounting, policy, kind, total, planning, moving, serving in (
                ("overlapped", "amortised", "tuned", 90.0, 2.0, 3.0, 85.0),
                ("additive", "amortised", "tuned", 110.0, 12.0, 8.0, 90.0),
                ("overlapped", "static", "default", 100.0, 0.0, 0.0, 100.0),
                ("additive", "static", "default", 100.0, 0.0, 0.0, 100.0),
            )
        ],
    }
    return Results(**{**given, **changed})
