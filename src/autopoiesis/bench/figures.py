"""Measured figures: what was measured, against which goal, and how it is shown."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of a benchmark; `values` are the repeats, none where it could not be measured and `note` says why."""

    name: str
    unit: str
    values: tuple[float, ...]
    goal: float | None = None
    more: bool = True
    """Whether more is better."""
    note: str = ""

    @property
    def best(self) -> float | None:
        """What the machine can do when nothing else disturbs it."""
        return (max if self.more else min)(self.values, default=None)

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    @property
    def met(self) -> bool | None:
        """Whether the best reaches the goal; None without a goal or a value."""
        if self.goal is None or self.best is None:
            return None
        return self.best >= self.goal if self.more else self.best <= self.goal

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "best": self.best,
            "median": self.median,
            "repeats": len(self.values),
            "goal": self.goal,
            "more_is_better": self.more,
            "met": self.met,
            "note": self.note,
        }


def drawn(title: str, figures: list[Figure]) -> Table:
    """The figures as a table."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("measured", overflow="fold", min_width=30)
    for name in ("best", "median", "goal"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("")
    table.add_column("note", overflow="fold", ratio=1)
    for figure in figures:
        goal = "" if figure.goal is None else f"{'≥' if figure.more else '≤'} {number(figure.goal)}"
        met = {None: "", True: "met", False: "missed"}[figure.met]
        best, median = (("-" if value is None else number(value)) for value in (figure.best, figure.median))
        table.add_row(figure.name, best, median, goal, figure.unit, met, figure.note)
    return table


def number(value: float) -> str:
    """Three significant digits; thousands apart: `612 000`, `41.3`, `0.87`."""
    if abs(value) >= 999.5:
        digits = len(str(round(abs(value)))) - 3
        return f"{round(value / 10**digits) * 10**digits:,}".replace(",", " ")
    return f"{value:.3g}"
