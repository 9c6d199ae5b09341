"""Our evolution beside that of others: `python -m autopoiesis.bench.evolution`, or `make bench-evolve`.

Everybody asks a model that answers at once and evaluates programs that cost nothing, so what is left is the framework.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from autopoiesis.bench.environment import Unavailable, default_folder
from autopoiesis.bench.evolution import tables
from autopoiesis.bench.evolution.contenders import CONTENDERS, Contender
from autopoiesis.bench.evolution.measure import Import, Row, import_time, run
from autopoiesis.bench.process import machine
from autopoiesis.errors import AutopoiesisError, ScenarioError

NO_LIMIT = "not measured: it evaluates in its own process, without a time limit"


@dataclass
class Bench:
    """Rows so far."""

    venvs: Path
    iterations: int
    long: bool
    runs: list[Row] = field(default_factory=list)
    hanging: list[Row] = field(default_factory=list)
    imports: list[Import] = field(default_factory=list)

    def measure(self, contender: Contender) -> None:
        """All rows of a contender; one that cannot be had has rows that say why."""
        title = contender.title
        try:
            self._say(f"{title}: its environment")
            python = contender.python(self.venvs)
            self._say(f"{title}: import")
            self.imports.append(import_time(contender, python))
        except Unavailable as error:
            why = f"not measured: {error}"
            self.imports.append(Import(contender.name, title, contender.imports, why=why))
            self.runs.append(Row(contender.name, title, False, self.iterations, why=why))
            self.hanging.append(Row(contender.name, title, True, contender.hanging, why=why))
            return
        for iterations in (self.iterations, contender.long if self.long else None):
            if iterations is not None:
                self._say(f"{title}: {iterations} iterations")
                self.runs.append(run(contender, python, iterations))
        if contender.hanging is None:
            self.hanging.append(Row(contender.name, title, True, None, why=NO_LIMIT))
        else:
            self._say(f"{title}: {contender.hanging} iterations, of which every fifth hangs")
            self.hanging.append(run(contender, python, contender.hanging, hanging=True))

    def print(self, console: Console) -> None:
        for table in (tables.rates(self.runs), tables.hanging(self.hanging), tables.imports(self.imports)):
            console.print(table, "")

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": machine(),
            "runs": [asdict(row) for row in self.runs],
            "hanging": [asdict(row) for row in self.hanging],
            "imports": [asdict(row) for row in self.imports],
        }

    def _say(self, what: str) -> None:
        sys.stderr.write(f"{what}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 with one line on stderr for what is to be mended, 130 if interrupted."""
    arguments = _parser().parse_args(argv)
    chosen = [c for c in CONTENDERS if c.name in (arguments.only or [c.name])]
    if arguments.skip_peers:
        chosen = [contender for contender in chosen if not contender.requirement]
    bench = Bench(arguments.venvs or default_folder(), arguments.iterations, arguments.long)
    try:
        if arguments.json is not None and not arguments.json.parent.is_dir():
            raise ScenarioError(f"--json {arguments.json}: folder {str(arguments.json.parent)!r} does not exist")
        for contender in chosen:
            bench.measure(contender)
        bench.print(Console(width=None if sys.stdout.isatty() else 140))
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(bench.as_json(), indent=2) + "\n", encoding="utf-8")
    except KeyboardInterrupt:
        sys.stderr.write("autopoiesis.bench.evolution: interrupted\n")
        return 130
    except (AutopoiesisError, OSError) as error:
        sys.stderr.write(f"autopoiesis.bench.evolution: error: {error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m autopoiesis.bench.evolution", description=__doc__.split("\n")[0])
    names = [contender.name for contender in CONTENDERS]
    parser.add_argument("--only", metavar="NAME", action="append", choices=names, help=f"one of {', '.join(names)}")
    parser.add_argument("--skip-peers", action="store_true", help="ours alone; nothing is installed")
    parser.add_argument("--iterations", metavar="N", type=_positive, default=200, help="of everybody's first run (200)")
    parser.add_argument(
        "--long", action=argparse.BooleanOptionalAction, default=True, help="also 10000 of ours, 1000 of OpenEvolve"
    )
    parser.add_argument("--venvs", metavar="DIR", type=Path, help="where peers are installed (user's cache)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures here, too")
    return parser


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    # whoever ends us ends what we have started
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
