"""Comparisons in which one driver of a cell was set to a value."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from autopoiesis.bench.suite.results import Results
from autopoiesis.bench.suite.statistics import Comparison, Entry, Variant, compared


@dataclass(frozen=True)
class Setting:
    """A driver of a cell set to a value."""

    driver: str
    value: float
    own: bool
    """Whether the value is the cell's own."""
    comparison: Comparison


def settings(results: Results) -> list[Setting]:
    """By driver, group, cell, objective and value, planned or found."""
    entries: defaultdict[tuple[str, float], list[Entry]] = defaultdict(list)
    for group, cell, objective, driver, value, seed, policy, kind in results.meta.planned_sweeps:
        entries[driver, value].append((group, cell, objective, seed, Variant(policy, kind), None))
    own = set()
    for row in results.sweeps:
        of = Variant(row.policy, row.kind)
        entries[row.driver, row.value].append((row.group, row.cell, row.objective, row.seed, of, row.measured))
        if row.own:
            own.add((row.driver, row.value, row.group, row.cell))
    found = [
        Setting(driver, value, (driver, value, of.group, of.cell) in own, of)
        for (driver, value), there in entries.items()
        for of in compared(there)
    ]
    return sorted(found, key=_order)


def _order(setting: Setting) -> tuple[str, str, str, str, float]:
    of = setting.comparison
    return setting.driver, of.group, of.cell, of.objective, setting.value
