"""The tables at the end of a run: the evolving system beside the fixed policies, on a page of 100 columns."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from autopoiesis.cli.output import printable
from autopoiesis.report.numbers import change, clock, dollars, short
from autopoiesis.report.ranking import WORTHS, best_baseline, delay_per_request_s

if TYPE_CHECKING:
    from autopoiesis.control.config import Report, Row, SwapEntry
    from autopoiesis.simulate.outcome import PaperTimes

WIDTH = 100
EVIDENCE = 160
"""Most characters of a swap's evidence; the whole of it is in the JSON."""
NONE = "-"


def render(report: Report, objective: str) -> str:
    """All tables of a run; those of paper mode and of swaps if there is anything to say."""
    parts: list[RenderableType] = [operator_table(report.rows, objective)]
    if any(row.paper is not None for row in report.rows):
        parts.append(paper_table(report.rows))
    if report.swaps:
        parts.append(swap_table(report.swaps))
    return drawn(*parts)


def drawn(*parts: RenderableType) -> str:
    """Text of what is given, one after the other; coloured if stdout is a terminal that shows colours."""
    colours = Console(file=sys.stdout).color_system if sys.stdout.isatty() else None
    page = io.StringIO()
    console = Console(file=page, width=WIDTH, force_terminal=bool(colours), legacy_windows=False)
    for position, part in enumerate(parts):
        if position:
            console.print()
        console.print(part)
    lines = page.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def operator_table(rows: Sequence[Row], objective: str = "cost_per_good") -> Table:
    """Operator mode: what each policy gave and cost, and how its objective stands to the best baseline's."""
    title, more, value = WORTHS[objective]
    best = best_baseline(rows, objective) if len(rows) > 1 else None
    table = plain_table("Operator mode", _against(best, title, more))
    _policy_columns(table)
    _numbers(table, "good\n%", "$/1k\ngood")
    if best is not None:
        _numbers(table, "vs\nbest %")
    _numbers(table, "TTFT s\np50/p90/p99", "TPOT\np90 ms", "delay\ns", "GPU-\nhours", "lost/shed\n/rejected", "moves")
    for row in rows:
        books = row.operator
        cost = books.cost_per_good_usd
        cells = [f"{100 * books.goodput:.2f}", NONE if cost is None else dollars(1000 * cost)]
        if best is not None:
            cells.append(_change(value(books), value(best.operator)))
        ttft = books.ttft_s
        cells += [
            "/".join(short(seconds) for seconds in (ttft.p50, ttft.p90, ttft.p99)),
            short(1000 * books.tpot_s.p90),
            NONE if (delay := delay_per_request_s(books)) is None else short(delay),
            short(books.gpu_hours),
            f"{books.lost}/{books.shed}/{books.rejected}",
            str(row.reschedules),
        ]
        _add(table, row, cells)
    return table


def paper_table(rows: Sequence[Row]) -> Table:
    """Paper mode: total seconds and what they went into, under both accountings."""
    baselines = [row.paper for row in rows if row.kind == "baseline" and row.paper is not None]
    baselines = baselines if len(rows) > 1 else []
    table = plain_table(
        "Paper mode: seconds in all, and of these scheduling / reconfiguration / serving",
        "vs best: change of the total against that of the best baseline; less is better" * bool(baselines),
    )
    _policy_columns(table)
    accountings: list[tuple[str, Callable[[Any], PaperTimes]]] = [
        ("overlapped", lambda paper: paper.overlapped),
        ("additive", lambda paper: paper.additive),
    ]
    for name, _ in accountings:
        _numbers(table, f"{name}\ns", "sched/reconf/\nserving s", *(["vs\nbest %"] if baselines else []))
    for row in rows:
        cells: list[str] = []
        for _, of in accountings:
            if row.paper is None:
                cells += [NONE] * (3 if baselines else 2)
                continue
            times = of(row.paper)
            parts = (times.scheduling_s, times.reconfiguration_s, times.serving_s)
            cells += [short(times.total_s), "/".join(short(seconds) for seconds in parts)]
            if baselines:
                cells.append(_change(times.total_s, min(of(paper).total_s for paper in baselines)))
        _add(table, row, cells)
    return table


def swap_table(swaps: Iterable[SwapEntry]) -> Table:
    """Which policy took over when, from whom, and on what grounds."""
    table = plain_table("Swaps", "")
    table.add_column("time", justify="right", no_wrap=True)
    for name in ("mode", "policy", "parent", "provider"):
        table.add_column(name, overflow="fold", min_width=10)
    table.add_column("evidence", overflow="fold", ratio=1)
    for swap in swaps:
        cells = (swap.mode, swap.policy, swap.parent or NONE, swap.provider, evidence_summary(swap.evidence))
        table.add_row(clock(swap.t), *(Text(printable(cell)) for cell in cells))
    return table


def evidence_summary(evidence: dict[str, Any]) -> str:
    """`name value` pairs, nested names joined with dots; numbers before words, and cut at 160 characters."""
    pairs = list(_flat(evidence, ""))
    words = [pair for pair in pairs if pair[1][:1].isalpha()]
    text = ", ".join(f"{name} {value}" for name, value in [pair for pair in pairs if pair not in words] + words)
    return text if len(text) <= EVIDENCE else text[: EVIDENCE - 1] + "…"


def _flat(value: Any, name: str) -> Iterable[tuple[str, str]]:
    match value:
        case dict():
            for key, item in value.items():
                yield from _flat(item, f"{name}.{key}" if name else str(key))
        case list() | tuple():
            yield name, f"[{len(value)}]"
        case bool() | None:
            yield name, str(value).lower()
        case float():
            yield name, f"{value:.3g}"
        case _:
            yield name, str(value)


def _change(value: float | None, reference: float | None) -> str:
    percent = change(value, reference)
    return NONE if percent is None else f"{percent:+.1f}"


def _against(best: Row | None, title: str, more: bool) -> str:
    if best is None:
        return ""
    direction = "more" if more else "less"
    return f"vs best: change of {title} against the best baseline, {printable(best.name)}; {direction} is better"


def plain_table(title: str, caption: str = "") -> Table:
    """A table without lines, columns to be added."""
    return Table(
        title=title,
        caption=caption or None,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        caption_style="dim",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="bold",
    )


def _policy_columns(table: Table) -> None:
    table.add_column("policy", overflow="fold", min_width=14, vertical="bottom")
    table.add_column("kind", no_wrap=True)


def _numbers(table: Table, *names: str) -> None:
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)


def _add(table: Table, row: Row, cells: Iterable[str]) -> None:
    style = "bold green" if row.kind == "evolving" else "dim" if row.kind == "bound" else None
    table.add_row(Text(printable(row.name)), row.kind, *cells, style=style)
