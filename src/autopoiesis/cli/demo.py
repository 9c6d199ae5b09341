"""`autopoiesis demo`: a short run on generated traffic, with nothing to prepare and nothing left behind but a page."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from autopoiesis.cli.flags import add_talk, check_output
from autopoiesis.cli.jobs import evaluators
from autopoiesis.cli.output import emit, printable
from autopoiesis.cli.parser import Commands, described, whole
from autopoiesis.report import INSTALL, can_draw, check_drawing

if TYPE_CHECKING:
    from autopoiesis.control.config import Report

MODELS = ("llama-3.1-8b", "llama-3.1-70b")
CLUSTER = "demo-8"
LOAD = 1.6
HOURS = 0.2
WINDOW_S = 30.0
OBJECTIVE = "cost_per_good"
PAGE = "autopoiesis-demo.html"
BUDGET = 0.1
"""More than a run's default, so that something happens within minutes."""

NEXT = f"""\
What to try next:
  autopoiesis policy list                      the fixed policies
  autopoiesis policy show milp-replan          one of them: a program of a page
  autopoiesis run --help                       the same on your own traffic:
  autopoiesis run --cluster homogeneous-32 --workload {MODELS[0]}=trace.csv.gz --json out.json
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "demo",
        help="watch a short run on generated traffic",
        **described(
            f"Serve {HOURS * 60:g} minutes of generated chat traffic for two models on eight simulated H100, while the "
            "policy evolves, and the same under every fixed policy. Needs no file, no GPU and no key, and leaves "
            f"nothing behind but a page about it, {PAGE} in the current folder.",
            "autopoiesis demo",
        ),
    )
    parser.add_argument(
        "--seed", metavar="N", type=whole("a whole number", 0, 2**63 - 1), default=0, help="of the traffic (default 0)"
    )
    parser.add_argument("--report", metavar="FILE.html", help=f"write the page about the run here (default {PAGE})")
    add_talk(parser)
    parser.set_defaults(execute=show, parser=parser)


def show(arguments: argparse.Namespace) -> int:
    """Run, write the page, print the tables, and say in plain words what they show."""
    wanted = arguments.report or (PAGE if can_draw() else None)
    if wanted is not None:
        check_drawing("--report")
        check_output("--report", wanted, {})

    from autopoiesis.cli.pages import page_writer
    from autopoiesis.cli.table import render
    from autopoiesis.cli.watch import watching
    from autopoiesis.control.config import EvolutionConfig, RunConfig, ScenarioConfig, WorkloadFile
    from autopoiesis.control.run import run
    from autopoiesis.policy.library import starters

    scenario = ScenarioConfig(
        workloads=tuple(WorkloadFile(model, None) for model in MODELS),
        cluster=CLUSTER,
        load=LOAD,
        window_s=WINDOW_S,
        objective=OBJECTIVE,
        hours=HOURS,
        seed=arguments.seed,
    )
    with (
        tempfile.TemporaryDirectory(prefix="autopoiesis-demo-") as folder,
        watching(arguments, background=starters()) as watch,
    ):
        store = str(Path(folder) / "demo.db")
        config = RunConfig(scenario, EvolutionConfig(budget=BUDGET), store=store, jobs=evaluators())
        report = run(config, watch, page_writer(wanted))
    emit(f"{render(report, OBJECTIVE)}\n{in_words(report)}\n\n{_where(wanted)}\n\n{NEXT}")
    return 0


def _where(page: str | None) -> str:
    if page is None:
        return f"With matplotlib it also writes a page with plots: {INSTALL}"
    return f"The whole story, with plots: {printable(Path(page).resolve().as_uri())}"


def in_words(report: Report) -> str:
    """What a newcomer should have seen in the tables, in a few sentences."""
    from autopoiesis.report.ranking import best_baseline

    evolving = next(row for row in report.rows if row.kind == "evolving")
    books = evolving.operator
    said = [
        f"In {HOURS * 60:g} simulated minutes {books.requests} requests came for {' and '.join(MODELS)}.",
        f"The evolving system answered {100 * books.goodput:.1f} % of them within their SLO and lost {books.lost}.",
    ]
    best = best_baseline(report.rows, OBJECTIVE)
    if best is not None and best.operator.cost_per_good_usd and books.cost_per_good_usd:
        change = 100 * (books.cost_per_good_usd / best.operator.cost_per_good_usd - 1)
        compared = (
            "which is what the best fixed policy paid"
            if abs(change) < 0.05
            else f"{abs(change):.1f} % {'less' if change < 0 else 'more'} than the best fixed policy"
        )
        said.append(
            f"It paid ${1000 * books.cost_per_good_usd:.3g} for a thousand good answers, {compared} "
            f"({printable(best.name)})."
        )
    swaps = [swap for swap in report.swaps if swap.mode == "operator"]
    match len(swaps):
        case 0:
            said.append("No evolved policy passed all gates in this time, so it kept the one it started with.")
        case 1:
            said.append("Once a better policy passed all gates and took over while requests kept flowing.")
        case count:
            said.append(f"{count} times a better policy passed all gates and took over while requests kept flowing.")
    return "\n".join(said)
