"""`autopoiesis calibrate`: fit the cost model to measured steps, or to what a client saw of a live engine."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from autopoiesis.cli.calibrate_telemetry import (
    ENGINE,
    ONLY_HERE,
    TELEMETRY_FORMAT,
    add_telemetry,
    calibrate_from_telemetry,
)
from autopoiesis.cli.flags import check_output
from autopoiesis.cli.output import dumps, emit, write_whole
from autopoiesis.cli.parser import Commands, described, pair
from autopoiesis.errors import ScenarioError, unknown_name

if TYPE_CHECKING:
    from rich.table import Table

    from autopoiesis.cost import CostModel, Fitted
    from autopoiesis.cost.measurements import MeasuredShape, MeasuredSteps

Errors = dict[str, "float | None"]
"""Mean absolute relative error by phase."""

MEASURED = "measured"
ROOFLINE = "roofline"
NONE = "-"


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "calibrate",
        help="fit the cost model to measured engine steps",
        **described(
            "Fit the cost model to measured engine steps: coefficients of every shape in the file, and efficiencies of "
            "every GPU kind for the shapes that are not. Prints mean absolute errors by phase. With --telemetry, the "
            "coefficients of one engine from a load that it served.",
            "autopoiesis calibrate --steps steps.csv --out mine.toml",
            "autopoiesis calibrate --steps steps.csv --holdout tp=4 --json errors.json",
            "autopoiesis calibrate --telemetry load.jsonl --model llama-3.1-8b --gpu h100 --out mine.toml",
            "autopoiesis simulate --coefficients mine.toml --policy static --cluster demo-8 \\\n"
            "      --workload llama-3.1-8b=trace.csv.gz",
            notes="Steps are CSV, plain or gzipped, with the columns system,model,dtype,tp,kind,batch,isl,osl_or_ctx,"
            "prefill_tokens,decode_seqs,latency_ms; kind is prefill_step, decode_step or mixed_step. "
            + TELEMETRY_FORMAT,
        ),
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--steps", metavar="FILE", help="measured steps")
    source.add_argument("--telemetry", metavar="FILE", help="what a client saw of an engine under a load")
    parser.add_argument(
        "--holdout",
        metavar="tp=N|model=NAME",
        type=pair("tp=4 or model=NAME"),
        help="leave these steps out of the fit and predict them",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write errors (fractions) and coefficients here as JSON, in one step at the end"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="write the coefficients here as TOML, for --coefficients of run and simulate"
    )
    parser.add_argument(
        "--engine", metavar="NAME", default=ENGINE, help=f"what was measured, for --engine of run (default {ENGINE})"
    )
    add_telemetry(parser)
    parser.set_defaults(execute=calibrate, parser=parser)


def calibrate(arguments: argparse.Namespace) -> int:
    """Fit, write the files, print the tables."""
    for flag, path in (("--json", arguments.json), ("--out", arguments.out)):
        if path is not None:
            others = {"--steps": [arguments.steps], "--telemetry": [arguments.telemetry]}
            check_output(flag, path, {**others, "--json": [arguments.json] if flag == "--out" else []})
    if arguments.telemetry is not None:
        if arguments.holdout is not None:
            raise ScenarioError("--holdout: telemetry is of one engine; predict another load of it with --coefficients")
        return calibrate_from_telemetry(arguments)
    for name in ONLY_HERE:
        if getattr(arguments, name) is not None:
            flag = "--" + name.replace("_", "-")
            raise ScenarioError(f"{flag}: says what was recorded with --telemetry; a table of steps says it by itself")
    if arguments.out is not None and arguments.holdout is not None:
        raise ScenarioError("--out: with --holdout the coefficients would lack the steps held out; drop one of the two")

    from autopoiesis.cluster import Hardware, catalog
    from autopoiesis.cost import CostModel, Fitted
    from autopoiesis.cost.fit import fit, mape
    from autopoiesis.cost.fitted import written
    from autopoiesis.cost.measurements import read_measured_steps

    hardware = Hardware(catalog.gpus(), catalog.models())
    steps = read_measured_steps(arguments.steps, hardware.models, hardware.gpus)
    held = () if arguments.holdout is None else held_out(steps.shapes, *arguments.holdout)
    fitting = steps.of(*(shape for shape in steps.shapes if shape not in held))
    fitted = fit(fitting, hardware)
    fitted = Fitted(fitted.efficiencies, tuple(replace(shape, engine=arguments.engine) for shape in fitted.measured))
    cost = CostModel(hardware, measured=fitted.measured, efficiencies=fitted.efficiencies, engine=arguments.engine)
    holdout = mape(cost, steps.of(*held)) if held else None
    if arguments.json is not None:
        write_whole(arguments.json, dumps(calibration_json(mape(cost, fitting), holdout, fitted)))
    if arguments.out is not None:
        write_whole(arguments.out, written(fitted, f"Fitted by autopoiesis calibrate to {len(steps)} measured steps."))

    from autopoiesis.cli.table import drawn

    tables = [error_table("In sample", cost, fitting)]
    if held:
        tables.append(error_table(f"Held out: {'='.join(arguments.holdout)}", cost, steps.of(*held)))
    emit(drawn(*tables))
    return 0


def held_out(shapes: Sequence[MeasuredShape], name: str, value: str) -> tuple[MeasuredShape, ...]:
    """The shapes that `--holdout name=value` leaves out of the fit.

    Raises ScenarioError if there are none, or if nothing of their GPU is left to fit.
    """
    flag = f"--holdout {name}={value}"
    if name == "tp":
        degrees = {str(shape.tensor_parallel) for shape in shapes}
        if value not in degrees:
            raise ScenarioError(f"{flag}: {unknown_name('tensor parallel degree', value, degrees)}")
        held = tuple(shape for shape in shapes if str(shape.tensor_parallel) == value)
    elif name == "model":
        models = {shape.model for shape in shapes}
        if value.casefold() not in models:
            raise ScenarioError(f"{flag}: {unknown_name('model', value, models)}")
        held = tuple(shape for shape in shapes if shape.model == value.casefold())
    else:
        raise ScenarioError(f"{flag}: must be tp=N or model=NAME")
    for gpu in sorted({shape.gpu for shape in held} - {shape.gpu for shape in shapes if shape not in held}):
        raise ScenarioError(f"{flag}: leaves no step of {gpu} to fit; hold out something else, or measure more shapes")
    return held


def calibration_json(fit: Errors, holdout: Errors | None, fitted: Fitted) -> dict[str, Any]:
    """The keys of `calibrate --json`: errors as fractions, null where a phase has no steps."""

    def mapes(errors: Errors) -> dict[str, Any]:
        return {f"{phase}_mape": error for phase, error in errors.items()}

    measured: dict[str, list[dict[str, Any]]] = {gpu: [] for gpu in fitted.efficiencies}
    for shape in fitted.measured:
        measured[shape.gpu].append(asdict(shape))
    return {
        "fit": mapes(fit),
        "holdout": None if holdout is None else mapes(holdout),
        "coefficients": {
            gpu: {"efficiencies": asdict(efficiencies), "measured": measured[gpu]}
            for gpu, efficiencies in fitted.efficiencies.items()
        },
    }


def error_table(title: str, cost: CostModel, steps: MeasuredSteps) -> Table:
    """Mean absolute errors in percent: of every shape, every GPU kind and all, by phase.

    A shape is predicted by its own coefficients where it was measured, else by its GPU's efficiencies.
    """
    from rich.table import Table

    from autopoiesis.cost.fit import mape
    from autopoiesis.cost.measurements import PHASES

    table = Table(
        title=f"{title}: mean absolute error of a step, %",
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
        header_style="bold",
    )
    for name in ("GPU", "model"):
        table.add_column(name)
    for name in ("TP", "steps", *PHASES):
        table.add_column(name, justify="right")
    table.add_column("coefficients")

    def row(head: Iterable[str], chosen: Sequence[MeasuredShape], by: str, style: str | None = None) -> None:
        part = steps.of(*chosen)
        cells = (NONE if error is None else f"{100 * error:.1f}" for error in mape(cost, part).values())
        table.add_row(*head, str(len(part)), *cells, by, style=style)

    known = {(shape.model, shape.gpu, shape.tensor_parallel) for shape in cost.measured}
    gpus = sorted({shape.gpu for shape in steps.shapes})
    for gpu in gpus:
        shapes = [shape for shape in steps.shapes if shape.gpu == gpu]
        for shape in shapes:
            by = MEASURED if (shape.model, gpu, shape.tensor_parallel) in known else ROOFLINE
            row((gpu, shape.model, str(shape.tensor_parallel)), [shape], by)
        row((gpu, "all", ""), shapes, "", "bold")
    if len(gpus) > 1:
        row(("all", "", ""), steps.shapes, "", "bold")
    return table
