"""A load on the terminal: while it runs, and at its end."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from autopoiesis.bench.load import Figures, Replay, Result
from autopoiesis.bench.load.progress import Progress, Quantiles, Snapshot
from autopoiesis.cli.interrupts import SIGNALS
from autopoiesis.cli.table import NONE, drawn, plain_table
from autopoiesis.report.numbers import change, clock, counted, short

REFRESH_S = 1.0
LINE_S = 5.0
"""Between two lines where stderr is no terminal."""


class Attendance:
    """Shows a load on stderr while it runs, and ends it at the first Ctrl-C or SIGTERM: a context manager that gives
    the signals back."""

    def __init__(self, quiet: bool) -> None:
        self.received: int | None = None
        """The signal that has come."""
        self._quiet = quiet
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in SIGNALS}
            self._before = {n: handler for n, handler in handlers.items() if handler is not signal.SIG_IGN}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    async def attend(self, replay: Replay) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        for number in self._before:
            loop.add_signal_handler(number, self._stop, number, replay)
        progress = Progress(replay)
        if self._quiet:
            await asyncio.Event().wait()
        elif sys.stderr.isatty():
            with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
                while True:
                    live.update(live_table(progress.look()), refresh=True)
                    await asyncio.sleep(REFRESH_S)
        else:
            while True:
                await asyncio.sleep(LINE_S)
                print(line(progress.look()), file=sys.stderr, flush=True)

    def _stop(self, number: int, replay: Replay) -> None:
        self.received = number
        replay.stop()


def live_table(now: Snapshot) -> Table:
    """What is shown while the load runs."""
    table = plain_table(f"{clock(now.elapsed_s)}  {now.sent} of {now.total} sent")
    for name in ("", "now", "", "p50", "p90"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    table.add_row("running", str(now.running), "TTFT ms", *_milliseconds(now.ttft_s))
    table.add_row("done", str(now.done), "TPOT ms", *_milliseconds(now.tpot_s))
    table.add_row("failed", str(sum(now.errors.values())), "sent/s", short(now.sent_per_s), "")
    table.add_row("", "", "done/s", short(now.done_per_s), "")
    table.add_row("", "", "tokens/s", short(now.tokens_per_s), "")
    for kind, count in now.errors.items():
        table.add_row(Text(f"  {kind}", style="red"), str(count))
    return table


def line(now: Snapshot) -> str:
    """The same on one line."""
    failed = f", failed {_kinds(now.errors)}" if now.errors else ""
    return (
        f"[{clock(now.elapsed_s)}] sent {now.sent} of {now.total}, running {now.running}, done {now.done}{failed}; "
        f"{short(now.done_per_s)} requests/s, {short(now.tokens_per_s)} tokens/s, "
        f"TTFT {'/'.join(_milliseconds(now.ttft_s))} ms, TPOT {'/'.join(_milliseconds(now.tpot_s))} ms (p50/p90)"
    )


def report(result: Result, measured: Figures, predicted: Figures | None) -> str:
    """What came of the load: the figures, then what else there is to know of it."""
    table = plain_table("Load")
    table.add_column("", no_wrap=True)
    for name in ("measured", "predicted", "difference %") if predicted is not None else ("measured",):
        table.add_column(name, justify="right", no_wrap=True)
    theirs = None if predicted is None else _rows(predicted)
    for name, value in _rows(measured).items():
        cells = [short(value)]
        if theirs is not None:
            percent = change(theirs[name], value)
            cells += [short(theirs[name]), NONE if percent is None else f"{percent:+.1f}"]
        table.add_row(name, *cells)
    return drawn(table) + "".join(f"{text}\n" for text in _remarks(result, measured, predicted))


def _rows(of: Figures) -> dict[str, float]:
    rows = {"good %": 100 * of.goodput}
    for name, spread in (("TTFT", of.ttft_s), ("TPOT", of.tpot_s), ("end to end", of.e2e_s)):
        rows |= {f"{name} {q} ms": 1000 * getattr(spread, q) for q in ("p50", "p90", "p99")}
    return rows | {"output tokens/s": of.output_tokens_per_s, "requests/s": of.requests_per_s}


def _remarks(result: Result, measured: Figures, predicted: Figures | None) -> list[str]:
    came, planned = result.came, len(result.requests)
    sent = len(came.rows) + came.cut
    errors = came.errors()
    lines = [
        f"{sent} of {planned} requests sent, {measured.completed} answered, {sum(errors.values())} failed"
        + (f": {_kinds(errors)}" if errors else "")
        + (f"; {came.cut} cut off" if came.cut else "")
    ]
    completed = came.served.completed
    if completed.any():
        rows = came.rows[completed]
        asked = (result.requests.input_tokens[rows].mean(), result.requests.output_tokens[rows].mean())
        served = (came.served.input_tokens[completed].mean(), came.served.output_tokens[completed].mean())
        cached = "" if came.cached_tokens is None else f", {came.cached_tokens} of them cached"
        lines.append(
            f"prompts of {served[0]:.1f} tokens on average (planned {asked[0]:.1f}){cached}; answers of "
            f"{served[1]:.1f} (planned {asked[1]:.1f})"
        )
    if predicted is not None:
        lines.append(
            f"predicted: {counted(predicted.completed, 'answer')} of {predicted.requests}; latencies and rates are of "
            "requests that both answered"
        )
    tokens = int(came.served.output_tokens.sum())
    each = f", {1e6 * result.client_cpu_s / tokens:.0f} µs a token" if tokens else ""
    lines.append(
        f"client: {100 * result.client_cpu_share:.0f} % of a core{each}; 99 % of the requests sent at most "
        f"{1e3 * result.late_p99_s:.1f} ms late"
    )
    return lines


def _kinds(errors: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in errors.items())


def _milliseconds(of: Quantiles) -> tuple[str, str]:
    return short(1000 * of.p50), short(1000 * of.p90)
