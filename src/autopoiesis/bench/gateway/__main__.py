"""Our gateway beside those of others: `python -m autopoiesis.bench.gateway`, or `make bench-gateway`.

The engines behind all of them cost next to nothing, so what is left is the gateway.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from autopoiesis.bench.environment import Unavailable, default_folder
from autopoiesis.bench.gateway import tables
from autopoiesis.bench.gateway.agreement import Agreement, agreement
from autopoiesis.bench.gateway.cells import CELLS, PLAIN_256, WARM_UP, Cell, Memory, Sample, memory, rounds
from autopoiesis.bench.gateway.claims import Claim, of_cells
from autopoiesis.bench.gateway.drain import Drains, drain
from autopoiesis.bench.gateway.engines import Engines
from autopoiesis.bench.gateway.failover import Failover, failover
from autopoiesis.bench.gateway.scene import Scene
from autopoiesis.bench.gateway.swaps import COMPILED_S, Swaps, swaps
from autopoiesis.bench.gateway.targets import DIRECT, OURS, TARGETS, Target
from autopoiesis.bench.process import machine
from autopoiesis.errors import AutopoiesisError, ScenarioError

SCENARIOS = ("two-workers", "failover", "drain", "swaps")


@dataclass
class Bench:
    """What has been measured so far."""

    scene: Scene
    targets: Sequence[Target]
    rounds: int
    titles: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Why a gateway was not measured."""
    samples: list[Sample] = field(default_factory=list)
    memory: dict[str, Memory] = field(default_factory=dict)
    agreement: Agreement | None = None
    failovers: list[Failover] = field(default_factory=list)
    drains: Drains | None = None
    swaps: Swaps | None = None

    def measure(self, names: Sequence[str]) -> None:
        """Cells and scenarios of these names."""
        cells = [cell for cell in CELLS if cell.name in names]
        if cells:
            self._side_by_side(cells)
        if "failover" in names:
            for target in self.targets:
                if target is not DIRECT and target.name not in self.missing:
                    self._try(target, "failover", partial(self._fail_over, target))
        if OURS in self.targets:
            for name, measure in (("two-workers", self._agree), ("drain", self._drain), ("swaps", self._swap)):
                if name in names:
                    self._try(OURS, name, measure)

    def _side_by_side(self, cells: Sequence[Cell]) -> None:
        """All gateways run at once, and get their loads in turns."""
        with ExitStack() as stack:
            engines = stack.enter_context(Engines(self.scene.cores, self.scene.folder))
            gateways = []
            for target in self.targets:
                say(f"{target.name}: start")
                try:
                    gateway = stack.enter_context(self.scene.gateway(target, engines))
                except Unavailable as error:
                    self.missing[target.name] = str(error)
                    continue
                gateways.append(gateway)
                self.titles[target.name] = gateway.title
                self.scene.load(gateway, **WARM_UP)
            began = time.monotonic()
            for cell in cells:
                for sample in rounds(self.scene, engines, gateways, cell, self.rounds):
                    say(f"{cell.name} {sample.round + 1}: {sample.target} {sample.rate:.0f}/s")
                    self.samples.append(sample)
            time.sleep(max(0.0, began + COMPILED_S - time.monotonic()))
            for gateway in gateways:
                if (resident := memory(gateway)) is not None:
                    self.memory[gateway.target.name] = resident

    def _fail_over(self, target: Target) -> None:
        self.failovers.append(failover(self.scene, target))

    def _agree(self) -> None:
        self.agreement = agreement(self.scene, self.rounds)

    def _drain(self) -> None:
        self.drains = drain(self.scene)

    def _swap(self) -> None:
        self.swaps = swaps(self.scene)

    def _try(self, target: Target, name: str, measure: Callable[[], None]) -> None:
        say(f"{target.name}: {name}")
        try:
            measure()
        except (Unavailable, AutopoiesisError) as error:
            self.missing[f"{target.name}, {name}"] = str(error)

    def claims(self) -> list[Claim]:
        rows = of_cells(self.samples, self.memory.get(OURS.name)) if self.samples else []
        for result in (self.agreement, *self.failovers, self.drains, self.swaps):
            rows += [] if result is None else result.claims()
        return rows

    def print(self, console: Console) -> None:
        for cell in CELLS:
            if any(sample.cell == cell.name for sample in self.samples):
                console.print(tables.loads(cell, self.samples, self.titles), "")
        if self.memory:
            console.print(tables.memory(self.memory, self.titles), "")
        if self.agreement is not None:
            console.print(tables.loads(PLAIN_256, self.agreement.samples, self.agreement.titles), "")
        if self.failovers:
            console.print(tables.failovers(self.failovers), "")
        if self.drains is not None:
            console.print(tables.drains(self.drains), "")
        if self.swaps is not None:
            console.print(tables.swapped(self.swaps), "")
        if claims := self.claims():
            console.print(tables.claims(claims), "")
        for name, why in self.missing.items():
            console.print(f"not measured: {name}: {why}", markup=False)

    def as_json(self) -> dict[str, Any]:
        measured = {
            "machine": machine(),
            "titles": self.titles,
            "missing": self.missing,
            "samples": self.samples,
            "memory": self.memory,
            "two_workers": self.agreement,
            "failover": self.failovers,
            "drain": self.drains,
            "swaps": self.swaps,
        }
        claims = [
            {
                "claim": row.text, "unit": row.unit, "limit": row.limit, "at_least": row.at_least,
                "measured": row.measured, "values": row.values, "reached": row.reached, "note": row.note,
            }
            for row in self.claims()
        ]  # fmt: skip
        return {**msgspec.to_builtins(measured), "claims": claims}


def say(what: str) -> None:
    sys.stderr.write(f"{what}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 with one line on stderr for what is to be mended, 130 if interrupted."""
    arguments = _parser().parse_args(argv)
    targets = [target for target in TARGETS if target.name in (arguments.only or [target.name])]
    try:
        if arguments.json is not None and not arguments.json.parent.is_dir():
            raise ScenarioError(f"--json {arguments.json}: folder {str(arguments.json.parent)!r} does not exist")
        with tempfile.TemporaryDirectory(prefix="autopoiesis-gateway-") as folder:
            scene = Scene.here(Path(folder), arguments.venvs or default_folder())
            os.sched_setaffinity(0, scene.cores.rest)
            bench = Bench(scene, targets, arguments.rounds)
            bench.measure(arguments.cells or _names())
            bench.print(Console(width=None if sys.stdout.isatty() else 160))
            if arguments.json is not None:
                arguments.json.write_text(json.dumps(bench.as_json(), indent=2) + "\n", encoding="utf-8")
    except KeyboardInterrupt:
        sys.stderr.write("autopoiesis.bench.gateway: interrupted\n")
        return 130
    except (AutopoiesisError, Unavailable, OSError) as error:
        sys.stderr.write(f"autopoiesis.bench.gateway: error: {error}\n")
        return 2
    return 0


def _names() -> list[str]:
    return [*(cell.name for cell in CELLS), *SCENARIOS]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m autopoiesis.bench.gateway", description=__doc__.split("\n")[0])
    names = [target.name for target in TARGETS]
    parser.add_argument("--only", metavar="NAME", nargs="+", choices=names, help=f"of {', '.join(names)}")
    parser.add_argument("--cells", metavar="CELL", nargs="+", choices=_names(), help=f"of {', '.join(_names())}")
    parser.add_argument("--rounds", metavar="N", type=_positive, default=5, help="of each load side by side (5)")
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
