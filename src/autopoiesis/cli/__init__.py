"""The command line: what an operator types, and what is printed and written for it.

Modules of commands (`run`, `simulate`, `policy`, `demo`) read their flags and call `control`, `calibrate` calls `cost`,
`catalog` shows what `cluster` has, `trace` what `workload` reads, `evolved` and `log` what a store keeps, `bench` what
there is to win, `config`, `serve`, `engine` and `load` are about live traffic, `doctor` says what the machine has;
`watch`, `table`, `pages` and `output` say what happened. What is heavy is imported once a command needs it, so that
help and errors come at once.
"""

from __future__ import annotations

import argparse
import signal

from autopoiesis import __version__
from autopoiesis.cli import (
    bench,
    calibrate,
    catalog,
    config,
    demo,
    doctor,
    engine,
    load,
    log,
    policy,
    run,
    serve,
    simulate,
    trace,
)
from autopoiesis.cli.interrupts import Interrupts
from autopoiesis.cli.output import flush, open_streams, say
from autopoiesis.cli.parser import Parser, described
from autopoiesis.errors import AutopoiesisError, ConfigError

__all__ = ["main"]

FAILED = 2
BY_SIGNAL = 128
"""Plus the signal's number: the exit code that shells give to a process that a signal ended."""


def main(argv: list[str] | None = None) -> int:
    """Carry out a command line (that of the process by default) and return the exit code.

    0 done; 1 done, and the answer is no (`doctor`); 2 something is to be mended, said in one line on stderr (of a
    gateway's configuration, in a line for each thing); 130 and 143 interrupted by Ctrl-C and SIGTERM; 141 nobody reads
    the output. Raises SystemExit for `--help`, `--version` (0) and for what cannot be parsed (2).
    """
    open_streams()
    arguments = argparse.Namespace()
    interrupts = Interrupts()
    try:
        with interrupts:
            return _carry_out(argv, arguments, interrupts)
    except (KeyboardInterrupt, Exception) as error:
        if interrupts.received is not None or isinstance(error, KeyboardInterrupt):
            say("interrupted" + getattr(arguments, "after_interrupt", ""))
            return BY_SIGNAL + (interrupts.received or signal.SIGINT)
        if isinstance(error, BrokenPipeError):
            return BY_SIGNAL + signal.SIGPIPE
        if isinstance(error, AutopoiesisError):
            for text in str(error).splitlines() if isinstance(error, ConfigError) else [str(error)]:
                say(f"autopoiesis: error: {text}")
            return FAILED
        raise


def _carry_out(argv: list[str] | None, arguments: argparse.Namespace, interrupts: Interrupts) -> int:
    try:
        arguments.interrupts = interrupts
        parser().parse_args(argv, arguments)
        return int(arguments.execute(arguments))
    finally:
        flush()


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
    live = (config, serve, engine, load)
    for command in (run, *live, simulate, bench, trace, calibrate, policy, log, catalog, doctor, demo):
        command.add(commands)
    return root
