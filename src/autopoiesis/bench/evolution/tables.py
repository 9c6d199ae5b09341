"""Rows as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from autopoiesis.bench.evolution.drivers.drive import LIMIT_S
from autopoiesis.bench.evolution.measure import Import, Row
from autopoiesis.bench.evolution.stub_model import HANG_EVERY
from autopoiesis.bench.figures import number


def rates(rows: Sequence[Row]) -> Table:
    """Iterations per second, and what one costs."""
    columns = ("iterations", "loop, s", "per s", "CPU, ms each", "main, MB", "all, MB", "right", "load")
    table = _table("An iteration, when model and evaluation cost nothing", *columns)
    for row in rows:
        values = (row.run_s, row.per_s, row.cpu_ms, row.main_peak_mb, row.tree_peak_mb)
        cells = (_count(row.iterations), *map(_value, values), _count(row.correct), _value(row.load))
        table.add_row(row.framework, *cells, row.why)
    return table


def hanging(rows: Sequence[Row]) -> Table:
    """What becomes of programs that never return, and of those beside them."""
    title = f"Every {HANG_EVERY}th program hangs; each may take {LIMIT_S} s"
    table = _table(title, "programs", "hung", "stopped", "right", "loop, s", "ended", "left over")
    for row in rows:
        hung = None if row.programs is None else row.programs // HANG_EVERY
        counts = map(_count, (row.programs, hung, row.timeouts, row.correct))
        cells = (*counts, _value(row.run_s), row.ended or "-", _count(row.left_over))
        table.add_row(row.framework, *cells, row.why)
    return table


def imports(rows: Sequence[Import]) -> Table:
    """Seconds until a user can begin."""
    table = _table("Import, over a bare interpreter", "s")
    for row in rows:
        table.add_row(row.framework, _value(row.import_s), row.why or row.statement)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("framework", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("note", overflow="fold", ratio=1)
    return table


def _value(value: float | None) -> str:
    return "-" if value is None else number(value)


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)
