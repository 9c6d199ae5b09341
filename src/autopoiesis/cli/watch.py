"""Progress for whoever is watching, on stderr: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from autopoiesis.cli.interrupts import Interrupts
from autopoiesis.cli.output import printable
from autopoiesis.report.numbers import clock

if TYPE_CHECKING:
    from autopoiesis.control.config import Watch
    from autopoiesis.simulate.run import Notice

STYLES = {
    "swap": "bold green",
    "capacity": "yellow",
    "repair": "yellow",
    "refusal": "red",
    "failure": "red",
    "transition": "cyan",
    "reschedule": "cyan",
}


@contextmanager
def watching(arguments: argparse.Namespace, background: Collection[str] = ()) -> Iterator[Watch]:
    """The watch that fits the flags and stderr; being told anything, it also looks whether a signal has come.

    `background` names the rows whose events are told only on a terminal, or with `--verbose`.
    """
    if arguments.quiet:
        yield Interruptible(Silence(), arguments.interrupts)
    elif sys.stderr.isatty():
        with Bars() as bars:
            yield Interruptible(bars, arguments.interrupts)
    else:
        yield Interruptible(Lines(() if arguments.verbose else background), arguments.interrupts)


class Interruptible:
    """Passes on what it is told, unless a signal has come; then it raises KeyboardInterrupt."""

    def __init__(self, watch: Watch, interrupts: Interrupts) -> None:
        self._watch = watch
        self._interrupts = interrupts

    def stage(self, text: str) -> None:
        self._interrupts.check()
        self._watch.stage(text)

    def progress(self, row: str, mode: str, fraction: float) -> None:
        self._interrupts.check()
        self._watch.progress(row, mode, fraction)

    def notice(self, row: str, mode: str, notice: Notice) -> None:
        self._interrupts.check()
        self._watch.notice(row, mode, notice)


class Silence:
    """A watch that says nothing."""

    def stage(self, text: str) -> None:
        """Say nothing."""

    def progress(self, row: str, mode: str, fraction: float) -> None:
        """Say nothing."""

    def notice(self, row: str, mode: str, notice: Notice) -> None:
        """Say nothing."""


class Lines:
    """A line per stage, event and row served; the events of the rows in `hidden` are left out."""

    def __init__(self, hidden: Collection[str]) -> None:
        self._hidden = frozenset(hidden)
        self._served: set[str] = set()

    def stage(self, text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)

    def progress(self, row: str, mode: str, fraction: float) -> None:
        name = row_title(row, mode)
        if fraction >= 1 and name not in self._served:
            self._served.add(name)
            print(f"{name}: served", file=sys.stderr, flush=True)

    def notice(self, row: str, mode: str, notice: Notice) -> None:
        if row not in self._hidden:
            print(event_line(row, mode, notice), file=sys.stderr, flush=True)


class Bars:
    """A bar per row and mode, with the lines of events above; a context manager, for the terminal's sake."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._stage: TaskID | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end_stage()
        self._progress.stop()

    def stage(self, text: str) -> None:
        self._end_stage()
        self._stage = self._progress.add_task(printable(text), total=None)

    def progress(self, row: str, mode: str, fraction: float) -> None:
        self._end_stage()
        name = row_title(row, mode)
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=1.0)
        self._progress.update(self._tasks[name], completed=min(max(fraction, 0.0), 1.0))

    def notice(self, row: str, mode: str, notice: Notice) -> None:
        line = Text(event_line(row, mode, notice), style=STYLES.get(notice.kind, ""))
        self._progress.console.print(line, soft_wrap=True)

    def _end_stage(self) -> None:
        if self._stage is not None:
            self._progress.remove_task(self._stage)
            self._stage = None


def row_title(row: str, mode: str) -> str:
    """The row's name, with its mode where that is not the usual one."""
    return printable(row if mode == "operator" else f"{row} ({mode})")


def event_line(row: str, mode: str, notice: Notice) -> str:
    """`[ 0:12:00] milp-replan  transition  done in 8 s: …`, with virtual time."""
    return f"[{clock(notice.at_s):>8}] {row_title(row, mode)}  {notice.kind:<10}  {printable(notice.text)}"
