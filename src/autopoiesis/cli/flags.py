"""The flags that commands share, and their way into a configuration. All is checked before anything heavy starts."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from autopoiesis.cli.output import check_writable
from autopoiesis.cli.parser import number, one_of, pair, whole
from autopoiesis.errors import ScenarioError, TraceError, unknown_name
from autopoiesis.report import check_drawing

if TYPE_CHECKING:
    from autopoiesis.control.config import ScenarioConfig

STORE = "./autopoiesis.db"
OBJECTIVES = ("cost_per_good", "goodput", "delay")
SHARES_SLACK = 1e-9

FORMATS = (
    "A trace is CSV, plain or gzipped, with the columns arrival_s,input_tokens,output_tokens (optional: session_id, "
    "prefix_tokens, think_time_s, api_time_s, block_ids), or one of Azure, BurstGPT, Mooncake, a vLLM or SGLang "
    "benchmark, ServeGen or the gateway; see docs/traces.md and autopoiesis trace info."
)


def add_scenario(parser: argparse.ArgumentParser) -> None:
    """What is served, on what, how hard, and to what end."""
    what = parser.add_argument_group("what is served")
    what.add_argument(
        "--workload",
        metavar="MODEL=FILE",
        type=pair("MODEL=FILE"),
        action="append",
        required=True,
        help="a model and the trace of its requests; repeat for several models, each once",
    )
    what.add_argument(
        "--cluster",
        metavar="NAME|FILE",
        required=True,
        help="a cluster by name (see autopoiesis cluster list) or the path of a .toml file",
    )
    what.add_argument(
        "--load",
        metavar="RHO",
        type=number("a load", above=0, most=10),
        default=0.9,
        help="load, as a multiple of the largest that the best fixed plan serves with 99 %% good (default 0.9)",
    )
    what.add_argument(
        "--share",
        metavar="MODEL=X",
        type=pair("MODEL=X"),
        action="append",
        default=[],
        help="with several models: part of the cluster, 0 to 1, that the load of a model is scaled to; the shares set "
        "the ratio of the models' loads; repeat for several models (default: equal shares of what is left)",
    )
    what.add_argument(
        "--hours",
        metavar="H",
        type=number("hours", above=0),
        help="use only the first H hours of every trace (default: all of it)",
    )
    what.add_argument(
        "--engine",
        metavar="NAME",
        default="vllm",
        help="whose measured step times count: vllm, or an engine of the file of --coefficients (default vllm)",
    )
    what.add_argument(
        "--coefficients",
        metavar="FILE",
        help="TOML file of step times that autopoiesis calibrate --out wrote (default: those of the package)",
    )
    how = parser.add_argument_group("how it is judged")
    how.add_argument(
        "--objective",
        metavar="NAME",
        type=_objective,
        default="cost_per_good",
        help="cost_per_good: US dollars per request answered within its SLO; goodput: the fraction answered so; delay: "
        "mean seconds of completed requests beyond their unloaded time, plus 600 s times the fraction not completed "
        "(default cost_per_good)",
    )
    how.add_argument(
        "--slo",
        metavar="FILE",
        help="TOML file of what requests are promised, a table per model (default: TTFT 1 s + 0.5 ms per prompt token; "
        "TPOT 50 ms, above 15B parameters 100 ms)",
    )
    how.add_argument(
        "--envelope",
        metavar="FILE",
        help="TOML file of bounds that no policy crosses: replicas, GPUs, money, moves (default: one replica a model)",
    )
    how.add_argument(
        "--window",
        metavar="S",
        type=number("seconds", least=1, most=86400),
        default=60.0,
        help="seconds from one monitoring point to the next, 1 to 86400 (default 60)",
    )
    how.add_argument(
        "--paper",
        action="store_true",
        help="also serve every window as one batch and report the total time, overlapped and additive",
    )
    how.add_argument(
        "--router",
        metavar="NAME",
        type=one_of("router", _routers),
        default="balanced",
        help="who places the requests of a policy that has no route: balanced (fewest in flight relative to share or "
        "speed), round-robin, least-outstanding, power-of-two, weighted (cached prefix, load, KV use) or shares (the "
        "plan's, dealt out evenly) (default balanced)",
    )
    how.add_argument(
        "--seed",
        metavar="N",
        type=whole("a whole number", 0, 2**63 - 1),
        default=0,
        help="seed of everything random; the same seed gives the same results (default 0)",
    )


def add_store(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("--store", metavar="PATH", default=STORE, help=f"{help} (default {STORE})")


def add_output(parser: argparse.ArgumentParser) -> None:
    """What is printed and written."""
    output = parser.add_argument_group("output")
    output.add_argument("--json", metavar="FILE", help="write the results here as JSON, in one step at the end")
    output.add_argument(
        "--report",
        metavar="FILE.html",
        help="write a page for people here: what happened, with plots, in one file that needs no network",
    )
    add_talk(output)


TABLES = {
    "--requests-csv": "a row for every request",
    "--windows-csv": "a row for every window and each of: everything, a model, a request class",
    "--replicas-csv": "a row for every replica that there was",
    "--replica-windows-csv": "a row for every window of every replica",
}
"""Flags of the tables of a simulation, and what they hold."""


def add_tables(parser: argparse.ArgumentParser) -> None:
    """What is written of every request, window and replica."""
    tables = parser.add_argument_group("tables", "CSV, gzipped where the name ends with .gz; docs/outputs.md has them")
    for flag, holds in TABLES.items():
        tables.add_argument(flag, metavar="FILE", help=f"write {holds} here")


def table_paths(arguments: argparse.Namespace) -> dict[str, str]:
    """The paths of the tables asked for, by flag."""
    named = {flag: getattr(arguments, flag[2:].replace("-", "_"), None) for flag in TABLES}
    return {flag: path for flag, path in named.items() if path is not None}


def add_talk(parser: argparse._ActionsContainer) -> None:
    talk = parser.add_mutually_exclusive_group()
    talk.add_argument("--quiet", action="store_true", help="print no progress, only the tables")
    talk.add_argument(
        "--verbose", action="store_true", help="print the events of every policy even where stderr is no terminal"
    )


def scenario_config(arguments: argparse.Namespace) -> ScenarioConfig:
    """The flags of `add_scenario` and the files they name. Raises ScenarioError and TraceError."""
    from autopoiesis.cluster import catalog

    paths = _workloads(arguments.workload, catalog.models())
    catalog.cluster(arguments.cluster)
    shares = _shares(arguments.share, paths)
    used = {"--workload": list(paths.values()), "--slo": [arguments.slo], "--envelope": [arguments.envelope]}
    used["--coefficients"] = [arguments.coefficients]
    used |= {"--store": [arguments.store], "--cluster": [arguments.cluster]}
    used["--replay"] = [getattr(arguments, "replay", None)]
    record = {"--record": getattr(arguments, "record", None)}
    written = {"--json": arguments.json, "--report": arguments.report, **record, **table_paths(arguments)}
    for flag, path in written.items():
        if path is not None:
            check_output(flag, path, used)
            used[flag] = [path]
    check_store(arguments.store)
    if arguments.report is not None:
        check_drawing("--report")

    from autopoiesis.control.config import ScenarioConfig, WorkloadFile
    from autopoiesis.control.files import read_coefficients, read_envelope, read_slos
    from autopoiesis.cost import Fitted
    from autopoiesis.plan import Envelope

    return ScenarioConfig(
        workloads=tuple(WorkloadFile(model, path) for model, path in paths.items()),
        cluster=arguments.cluster,
        load=arguments.load,
        shares=shares,
        window_s=arguments.window,
        objective=arguments.objective,
        slos={} if arguments.slo is None else read_slos(arguments.slo, tuple(paths)),
        envelope=Envelope() if arguments.envelope is None else read_envelope(arguments.envelope, tuple(paths)),
        hours=arguments.hours,
        seed=arguments.seed,
        router=arguments.router,
        engine=arguments.engine,
        coefficients=Fitted() if arguments.coefficients is None else read_coefficients(arguments.coefficients),
    )


def check_store(path: str) -> None:
    """ScenarioError if no store can be at `path`."""
    if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
        raise ScenarioError(f"--store {path}: not a regular file; name another one")
    check_writable(path, "--store")


def _routers() -> Collection[str]:
    from autopoiesis.simulate.routers import ROUTERS

    return ROUTERS


def check_output(flag: str, path: str, others: dict[str, list[str | None]]) -> None:
    """ScenarioError if the file of `flag` cannot be written, or is one of the `others`, by their flags."""
    check_writable(path, flag)
    for other, names in others.items():
        for name in names:
            if name is not None and os.path.realpath(name) == os.path.realpath(path) and not _is_device(path):
                raise ScenarioError(f"{flag} {path}: is the file of {other}, which it would replace; name another file")


def _objective(text: str) -> str:
    if text == "total_time":
        raise argparse.ArgumentTypeError("total_time is the objective of paper mode: use --paper")
    return one_of("objective", lambda: OBJECTIVES)(text)


def _workloads(pairs: list[tuple[str, str]], models: Collection[str]) -> dict[str, str]:
    paths: dict[str, str] = {}
    for model, path in pairs:
        if model not in models:
            raise ScenarioError(f"--workload {model}={path}: {unknown_name('model', model, models)}")
        if model in paths:
            raise ScenarioError(f"--workload {model}={path}: the model has a workload already; give each model once")
        if Path(path).is_dir():
            raise TraceError(f"--workload {model}={path}: is a folder; give the path of a trace file")
        if not Path(path).exists():
            raise TraceError(f"--workload {model}={path}: there is no such file; check the path")
        if not os.access(path, os.R_OK):
            raise TraceError(f"--workload {model}={path}: no permission to read it; change its permissions")
        paths[model] = path
    return paths


def _shares(pairs: list[tuple[str, str]], models: Collection[str]) -> dict[str, float]:
    read = number("a part of the cluster", above=0, most=1)
    shares: dict[str, float] = {}
    for model, text in pairs:
        if model not in models:
            raise ScenarioError(f"--share {model}={text}: {unknown_name('model', model, models)}")
        if model in shares:
            raise ScenarioError(f"--share {model}={text}: the model has a share already; give each model once")
        try:
            shares[model] = read(text)
        except argparse.ArgumentTypeError as error:
            raise ScenarioError(f"--share {model}={text}: {error}") from error
    if shares and len(models) < 2:
        raise ScenarioError("--share divides the cluster among workloads; it needs at least two")
    total = sum(shares.values())
    if total > 1 + SHARES_SLACK:
        raise ScenarioError(f"--share: the shares add up to {total:g}; they may come to 1 at most")
    if len(shares) < len(models) and total > 1 - SHARES_SLACK:
        others = ", ".join(model for model in models if model not in shares)
        raise ScenarioError(f"--share: the shares leave nothing for {others}; lower them")
    return shares


def _is_device(path: str) -> bool:
    return Path(path).exists() and not Path(path).is_file()
