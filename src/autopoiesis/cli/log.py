"""`autopoiesis log`: what happened in a row of a run, one line each: events and commands, gates and swaps."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from autopoiesis.cli.flags import STORE
from autopoiesis.cli.output import emit, printable
from autopoiesis.cli.parser import Commands, described
from autopoiesis.cli.references import existing
from autopoiesis.errors import StoreError, unknown_name

if TYPE_CHECKING:
    from autopoiesis.evolve.store import GateRecord, Store, SwapRecord
    from autopoiesis.loop.log import EventLog
    from autopoiesis.loop.messages import Command, Event

EVOLVING = "evolving"
MODE = "operator"


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "log",
        help="show what happened in a row of a run",
        **described(
            "Show what happened in a row of a run, a line each in order of time: what the control loop was told and "
            "what it commanded; in the evolving row also what gates said of policies, and who took over, on what "
            "evidence.",
            f"autopoiesis log --store {STORE}",
            "autopoiesis log --store run.db --run 0992 --mode overlapped --name milp-replan",
        ),
    )
    parser.add_argument("--store", metavar="PATH", default=STORE, help=f"where the run is kept (default {STORE})")
    parser.add_argument("--run", metavar="KEY", help="beginning of the run's key (default: the run used last)")
    parser.add_argument("--mode", metavar="M", default=MODE, help="operator, overlapped or additive (default operator)")
    parser.add_argument("--name", metavar="ROW", default=EVOLVING, help="row of the table (default evolving)")
    parser.set_defaults(execute=print_log, parser=parser)


def print_log(arguments: argparse.Namespace) -> int:
    """A heading, then a line for everything that happened."""
    from autopoiesis.evolve.store import Store
    from autopoiesis.loop.log import EventLog

    mode, name = arguments.mode, arguments.name
    with Store(existing(arguments.store)) as store:
        run = _run(store, arguments.run)
        blob = store.get_log(run, mode, name)
        evolving = name == EVOLVING
        gates, swaps = (store.gates(run, mode), store.swaps(run, mode)) if evolving else ((), ())
        if blob is None and not gates:
            raise StoreError(_no_row(store, run, mode, name))
    log = EventLog() if blob is None else EventLog.from_lines(blob.decode().splitlines(), f"log of {name}")
    lines = [f"run {run}, {mode} mode, {name}"]
    if blob is None:
        lines.append("the row has not ended: events are kept when it does; so far its gates and swaps")
    emit("".join(f"{printable(line)}\n" for line in (*lines, *_told(log, gates, swaps))))
    return 0


def _run(store: Store, beginning: str | None) -> str:
    """The key that begins so, or that of the run used last."""
    keys = [record.key for record in store.runs()]
    if not keys:
        raise StoreError(f"store {store.path}: holds no run; autopoiesis run --store {store.path} makes one")
    if beginning is None:
        return keys[-1]
    matches = [key for key in keys if key.startswith(beginning)]
    if len(matches) > 1:
        raise StoreError(f"run {beginning!r} stands for {' and '.join(matches)}; give more digits")
    if not matches:
        raise StoreError(unknown_name("run", beginning, keys))
    return matches[0]


def _no_row(store: Store, run: str, mode: str, name: str) -> str:
    rows = store.rows_with_log(run)
    modes = sorted({kept for kept, _ in rows})
    if not rows:
        return f"run {run}: no row has ended yet; look again later"
    if mode not in modes:
        return f"--mode: {unknown_name('mode', mode, modes)}"
    return f"--name: {unknown_name('row', name, [row for kept, row in rows if kept == mode])}"


def _told(log: EventLog, gates: Sequence[GateRecord], swaps: Sequence[SwapRecord]) -> Iterator[str]:
    """By time; at one time first the gates, then the swap, then what the loop did with it."""
    from autopoiesis.cli.table import evidence_summary

    told: list[tuple[float, int, str]] = []
    for gate in gates:
        verdict = f"gate {gate.gate}: {gate.policy} {'passed' if gate.passed else 'refused'}"
        evidence = evidence_summary(gate.evidence)
        told.append((gate.t, 0, verdict + (f" ({evidence})" if evidence else "")))
    for swap in swaps:
        text = f"swap: {swap.policy} ({swap.provider}) takes over from {swap.parent or 'nobody'}"
        told.append((swap.t, 1, f"{text} ({evidence_summary(swap.evidence)})"))
    for record in log.records:
        commands = "; ".join(_said(command) for command in record.commands)
        told.append((record.now_s, 2, _said(record.event) + (f" -> {commands}" if commands else "")))
    for at_s, _, text in sorted(told, key=lambda line: line[:2]):
        yield f"{_time(at_s)}  {text}"


def _said(message: Event | Command) -> str:
    """`Apply plan 2× llama-3.1-8b on l40s tp1`: the message's name and its fields that say something."""
    from autopoiesis.policy.interface import Decision

    parts = []
    for field in fields(message):
        value = getattr(message, field.name)
        if isinstance(value, Decision):
            parts.append(f"plan {value.plan}")
        elif field.name in ("ticket", "move", "memory"):
            continue
        elif isinstance(value, float):
            parts.append(f"{field.name} {value:.6g}")
        elif isinstance(value, bool) or value is None:
            parts.append(f"{field.name} {'failed' if value is None else 'yes' if value else 'no'}")
        else:
            parts.append(f"{field.name} {value}")
    return " ".join((type(message).__name__, ", ".join(parts))).rstrip()


def _time(seconds: float) -> str:
    """`h:mm:ss.mmm`: a log tells apart what happens within a second."""
    from autopoiesis.report.numbers import clock

    milliseconds = round(1000 * seconds)
    return f"{clock(milliseconds // 1000)}.{milliseconds % 1000:03}"
