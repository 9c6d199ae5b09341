"""Samples and what became of requests, as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from rich.table import Table

from autopoiesis.bench.figures import number
from autopoiesis.bench.gateway.answer import Ending
from autopoiesis.bench.gateway.cells import Cell, Memory, Sample
from autopoiesis.bench.gateway.claims import Claim
from autopoiesis.bench.gateway.drain import Drains
from autopoiesis.bench.gateway.failover import Failover
from autopoiesis.bench.gateway.load_plan import Spread
from autopoiesis.bench.gateway.swaps import Swaps


def loads(cell: Cell, samples: Sequence[Sample], titles: Mapping[str, str]) -> Table:
    """What a cell cost each gateway: the median of the rounds, and their range."""
    columns = ("requests/s", "CPU, µs each", "added p50, ms", "added p99, ms", "token p99, ms", "not whole", "foreign")
    table = _table(cell.title, "gateway", *columns)
    for name, title in titles.items():
        mine = [sample for sample in samples if sample.cell == cell.name and sample.target == name]
        if mine:
            table.add_row(
                title,
                _range([sample.rate for sample in mine]),
                _range([sample.cpu_us for sample in mine]),
                _range([_of(sample.report.added, lambda s: s.p50) for sample in mine]),
                _range([_of(sample.report.added, lambda s: s.p99) for sample in mine]),
                _range([_of(sample.report.token, lambda s: s.p99) for sample in mine]),
                str(sum(sample.report.failed for sample in mine)),
                _range([sample.foreign for sample in mine]),
            )
    return table


def memory(rows: Mapping[str, Memory], titles: Mapping[str, str]) -> Table:
    """What each gateway has resident after its loads."""
    table = _table("Memory after the loads", "gateway", "PSS, MiB", "RSS, MiB")
    for name, row in rows.items():
        table.add_row(titles[name], number(row.pss), number(row.rss))
    return table


def failovers(rows: Sequence[Failover]) -> Table:
    """What became of requests when a replica was killed."""
    table = _table(
        "A replica killed under load, and started again", "gateway", "plain", "failed", "worst, ms", "streams",
        "whole", "error event", "cut", "short", "hung", "other", "requests at the replica once it was back",
    )  # fmt: skip
    shown = (Ending.WHOLE, Ending.ERROR_EVENT, Ending.CUT, Ending.SHORT, Ending.HUNG)
    for row in rows:
        endings = row.streams.endings
        counts = [endings.get(ending, 0) for ending in shown]
        every = sum(endings.values())
        table.add_row(
            row.title, str(sum(row.plain.endings.values())), str(row.plain.failed),
            _value(_of(row.plain.total, lambda s: s.worst)), str(every), *map(str, counts), str(every - sum(counts)),
            str(row.returned),
        )  # fmt: skip
    return table


def drains(result: Drains) -> Table:
    """What came of drains."""
    table = _table("Replicas drained under load", "", "median", "most")
    for what, values in (("empty after, s", result.drained_s), ("back after, s", result.back_s)):
        table.add_row(what, number(median(values)), number(max(values)))
    return table


def swapped(result: Swaps) -> Table:
    """Latency with swaps and without, in the order in which the loads were."""
    table = _table(f"{result.swaps} policy swaps under load: added latency, ms", "load", "p50", "p90", "p99", "worst")
    for name, reports in (("without swaps", result.without), ("with swaps", result.during)):
        spreads = [report.added for report in reports]
        table.add_row(
            name,
            _range([_of(spread, lambda s: s.p50) for spread in spreads]),
            _range([_of(spread, lambda s: s.p90) for spread in spreads]),
            _range([_of(spread, lambda s: s.p99) for spread in spreads]),
            _range([_of(spread, lambda s: s.worst) for spread in spreads]),
        )
    return table


def claims(rows: Sequence[Claim]) -> Table:
    """What is claimed, what was measured, and whether that reaches it."""
    table = _table("Claims", "claim", "limit", "measured", "range", "reached", "note")
    for row in rows:
        measured = "-" if row.measured is None else number(row.measured)
        reached = {None: "not measured", True: "yes", False: "no"}[row.reached]
        spread = f"{number(min(row.values))} … {number(max(row.values))}" if len(row.values) > 1 else ""
        unit = f" {row.unit}" if row.unit else ""
        limit = f"{'≥' if row.at_least else '≤'} {number(row.limit)}{unit}"
        table.add_row(row.text, limit, f"{measured}{unit}", spread, reached, row.note)
    return table


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in columns:
        table.add_column(name, justify="left" if name == "note" else "right", overflow="fold")
    return table


def _range(values: Sequence[float | None]) -> str:
    """The median, and from the least to the most."""
    there = [value for value in values if value is not None]
    if not there:
        return "-"
    middle = number(median(there))
    return middle if len(there) == 1 else f"{middle} ({number(min(there))}–{number(max(there))})"


def _of(spread: Spread | None, value: Callable[[Spread], float]) -> float | None:
    return None if spread is None else value(spread)


def _value(value: float | None) -> str:
    return "-" if value is None else number(value)
