"""`autopoiesis bench`: what there is to win over fixed and human policies, measured cell by cell."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from autopoiesis.cli.interrupts import Interrupts
from autopoiesis.cli.jobs import MOST_JOBS, cores
from autopoiesis.cli.output import emit
from autopoiesis.cli.parser import Commands, described, whole
from autopoiesis.errors import ScenarioError
from autopoiesis.report.numbers import clock

if TYPE_CHECKING:
    from autopoiesis.bench.suite.work import Watch

GOES_ON = "; the same command goes on from here"
MOST_SEEDS = 100
LINES_EVERY_S = 30.0
"""Where no terminal shows a bar."""
SOONEST_S = 5.0
"""Before that an estimate of the time left says nothing."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "bench",
        help="measure how much fixed and human policies leave to be won",
        **described(
            "Serve the cells of a suite under every human policy, as it ships and tuned, under the evolving system, "
            "and under the best plans that can be found knowing the future; write results.json and print the tables. "
            "What is measured is kept in the output folder, and a run that was interrupted goes on from there.",
            "autopoiesis bench --suite quick --out bench-quick",
            "autopoiesis bench --suite headroom --jobs 8 --out bench-headroom",
            "autopoiesis bench --suite headroom --cells 'sharing' --seeds 5 --out bench-sharing",
        ),
    )
    parser.add_argument(
        "--suite", metavar="NAME", default="quick", help="quick: 3 minutes; headroom: 100, on two cores (default quick)"
    )
    parser.add_argument("--cells", metavar="PATTERN", help="only cells whose name or group matches, such as 'two-*'")
    parser.add_argument(
        "--traces", metavar="DIR", help="serve recorded traces from this folder in place of the presets like them"
    )
    parser.add_argument(
        "--seeds",
        metavar="N",
        type=whole("a number of seeds", 1, MOST_SEEDS),
        help="days and worlds a cell is measured on (default: the suite's)",
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=whole("a number of processes", 1, MOST_JOBS),
        default=cores(),
        help="processes that work beside one another (default: one a core)",
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for results, made if it is not there")
    parser.add_argument("--quiet", action="store_true", help="print no progress, only the tables")
    parser.set_defaults(execute=run_suite, parser=parser, after_interrupt=GOES_ON)


def run_suite(arguments: argparse.Namespace) -> int:
    """Carry out the suite, print the tables."""
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise ScenarioError(f"--out {arguments.out}: is a file; name a folder")
    if arguments.traces is not None and not Path(arguments.traces).is_dir():
        raise ScenarioError(f"--traces {arguments.traces}: there is no such folder; check the path")

    from dataclasses import replace

    from autopoiesis.bench.suite.cells import suite
    from autopoiesis.bench.suite.tables import terminal
    from autopoiesis.bench.suite.work import Order, carry_out_suite

    asked = suite(arguments.suite)
    if arguments.cells is not None:
        asked = asked.only(arguments.cells)
    if arguments.seeds is not None:
        asked = replace(asked, seeds=arguments.seeds)
    order = Order(asked, out, arguments.traces, arguments.jobs, _command(arguments))
    with _watching(arguments) as watch:
        results = carry_out_suite(order, watch)
    emit(terminal(results))
    return 0


def _command(arguments: argparse.Namespace) -> str:
    """The command line that repeats the run; where files lie is left out."""
    words = ["autopoiesis", "bench", "--suite", arguments.suite]
    for flag, value in (("--cells", arguments.cells), ("--seeds", arguments.seeds), ("--jobs", arguments.jobs)):
        words += [] if value is None else [flag, str(value)]
    words += [] if arguments.traces is None else ["--traces", "DIR"]
    return shlex.join([*words, "--out", "DIR"])


@contextmanager
def _watching(arguments: argparse.Namespace) -> Iterator[Watch]:
    if arguments.quiet:
        yield _Silent(arguments.interrupts)
    elif sys.stderr.isatty():
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=Console(stderr=True),
        ) as progress:
            yield _Bar(arguments.interrupts, progress)
    else:
        yield _Lines(arguments.interrupts)


class _Silent:
    """Says nothing, but stops where a signal has come."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._began_s = time.monotonic()
        self._before: float | None = None
        """Of the whole, what earlier runs had done: the first jobs end at once."""

    def progress(self, done: float, total: float, at_work: Sequence[str]) -> None:
        self._interrupts.check()

    def ended(self, job: str, seconds: float) -> None:
        """Say nothing."""

    def _left(self, done: float, total: float) -> str:
        """An estimate of the time that is left, from what has been done in this run."""
        passed_s = time.monotonic() - self._began_s
        if self._before is None:
            self._before, self._began_s = done, time.monotonic()
            return ""
        if passed_s < SOONEST_S:
            return ""
        rate = (done - self._before) / passed_s
        return f"about {clock((total - done) / rate)} left" if rate > 0 else ""


class _Bar(_Silent):
    """A bar with what the workers do."""

    def __init__(self, interrupts: Interrupts, progress: Progress) -> None:
        super().__init__(interrupts)
        self._progress = progress
        self._task = progress.add_task("bench", total=1.0, left="")

    def progress(self, done: float, total: float, at_work: Sequence[str]) -> None:
        super().progress(done, total, at_work)
        self._progress.update(
            self._task, completed=done / max(total, 1e-9), description="; ".join(at_work), left=self._left(done, total)
        )


class _Lines(_Silent):
    """A line for each job, and one now and then."""

    def __init__(self, interrupts: Interrupts) -> None:
        super().__init__(interrupts)
        self._said_s = time.monotonic()

    def progress(self, done: float, total: float, at_work: Sequence[str]) -> None:
        super().progress(done, total, at_work)
        left = self._left(done, total)
        if time.monotonic() - self._said_s >= LINES_EVERY_S:
            self._said_s = time.monotonic()
            print(f"{done / max(total, 1e-9):4.0%} {left}: {'; '.join(at_work)}", file=sys.stderr, flush=True)

    def ended(self, job: str, seconds: float) -> None:
        print(f"{job}: done in {clock(seconds)}", file=sys.stderr, flush=True)
