"""The command line: what an operator types, and what is printed and written for it.

Modules of commands (`run`, `simulate`, `policy`, `demo`) read their flags and call `control`; `watch`, `table` and
`output` say what happened. What is heavy is imported once a command needs it, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from autopoiesis import __version__
from autopoiesis.cli import demo, policy, run, simulate
from autopoiesis.cli.output import flush, say
from autopoiesis.cli.parser import Parser, described
from autopoiesis.errors import AutopoiesisError

__all__ = ["main"]

FAILED = 2
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
BROKEN_PIPE = 128 + signal.SIGPIPE


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends whatever runs on the same way as Ctrl-C."""


def main(argv: list[str] | None = None) -> int:
    """Carry out a command line (that of the process by default) and return the exit code.

    0 done; 2 something is to be mended, said in one line on stderr; 130 and 143 interrupted by Ctrl-C and SIGTERM.
    Raises SystemExit for `--help`, `--version` (0) and for what cannot be parsed (2).
    """
    arguments = argparse.Namespace()
    try:
        try:
            arguments = parser().parse_args(argv)
            with _sigterm_interrupts():
                return int(arguments.execute(arguments))
        finally:
            flush()
    except AutopoiesisError as error:
        say(f"autopoiesis: error: {error}")
        return FAILED
    except KeyboardInterrupt as interrupt:
        goes_on = getattr(arguments, "resumable", False)
        say("interrupted" + ("; the next run with the same arguments and store goes on from here" if goes_on else ""))
        return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE


def parser() -> Parser:
    """The whole command line; every command sets `execute`."""
    root = Parser(
        prog="autopoiesis",
        **described(
            "Serve large language models under a policy that evolves while it serves, and compare it with fixed "
            "policies on recorded traffic.",
            "autopoiesis demo",
            "autopoiesis run --cluster homogeneous-32 --workload llama-3.1-8b=trace.csv.gz --json out.json",
            "autopoiesis policy list",
        ),
    )
    root.add_argument("--version", action="version", version=f"autopoiesis {__version__}")
    commands = root.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="command")
    for command in (run, simulate, policy, demo):
        command.add(commands)
    return root


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    # Only the main thread may set signals; embedded elsewhere, the embedding program minds them.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
