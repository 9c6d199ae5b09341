"""`autopoiesis load`: replay a trace or a rate against an OpenAI-compatible endpoint."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from autopoiesis.cli.flags import FORMATS, check_output
from autopoiesis.cli.load_flags import add_how, add_slo, add_what
from autopoiesis.cli.load_predict import add_prediction, fleet
from autopoiesis.cli.output import dumps, emit, say, write_whole
from autopoiesis.cli.parser import Commands, described
from autopoiesis.errors import ScenarioError, TraceError, unknown_name

if TYPE_CHECKING:
    from autopoiesis.bench.load import Endpoint, Fleet, Result, Settings
    from autopoiesis.workload import SLO, Requests

INTERRUPTED = 128
"""Plus the signal's number."""
LATE_S = 0.005
"""Requests sent later than that were not sent as the trace says."""
BUSY = 0.8
"""Share of a core above which the client may be what is measured."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "load",
        help="replay a trace or a rate against an endpoint",
        **described(
            "Send a load to an OpenAI-compatible endpoint, stream the answers, and say what came of it: latencies, "
            "goodput, errors by kind, and beside them what the simulator predicts for the same requests.",
            "autopoiesis load http://127.0.0.1:8000 --model m --rate 5 --input 512 --output 128 --duration 60",
            "autopoiesis load http://127.0.0.1:8000 --model m --workload trace.csv.gz --duration 300 --json load.json",
            "autopoiesis load http://127.0.0.1:8000 --model m --workload conversation --predict llama-3.1-8b:h100",
            notes=FORMATS,
        ),
    )
    parser.add_argument("url", metavar="URL", help="the endpoint, such as http://127.0.0.1:8000/v1")
    parser.add_argument("--model", metavar="NAME", required=True, help="the endpoint's name of the model")
    add_what(parser)
    add_how(parser)
    add_slo(parser)
    add_prediction(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--json", metavar="FILE", help="write the figures here as JSON")
    output.add_argument("--requests-csv", metavar="FILE", help="write a row for every request here, as CSV")
    output.add_argument(
        "--telemetry", metavar="FILE.jsonl", help="write when each token came, for autopoiesis calibrate --telemetry"
    )
    output.add_argument("--quiet", action="store_true", help="print no progress, only the table")
    parser.set_defaults(execute=load, parser=parser)


def load(arguments: argparse.Namespace) -> int:
    """Send the load, predict it, print the figures and write what was asked for."""
    _check_files(arguments)
    endpoint = _endpoint(arguments)
    endpoint.address()
    behind = fleet(arguments)
    requests = _requests(arguments)
    if arguments.time_scale != 1.0 and not arguments.quiet:
        say(f"arrivals and think times are {arguments.time_scale:g} times as long as in the workload")

    from autopoiesis.bench.load import send
    from autopoiesis.bench.load.tables import requests_csv
    from autopoiesis.cli.load_view import Attendance
    from autopoiesis.cost.telemetry import write_telemetry

    with Attendance(arguments.quiet) as attendance:
        result = send(endpoint, requests, _settings(arguments), attendance.attend)
    _report(arguments, result, behind)
    if arguments.requests_csv is not None:
        write_whole(arguments.requests_csv, requests_csv(result.came), "--requests-csv")
    if arguments.telemetry is not None:
        write_telemetry(arguments.telemetry, result.streams())
    if attendance.received is None:
        return 0
    say("interrupted; the figures are of what had been sent")
    return INTERRUPTED + attendance.received


def _report(arguments: argparse.Namespace, result: Result, behind: Fleet | None) -> None:
    from autopoiesis.bench.load.tables import load_json
    from autopoiesis.cli.load_view import report

    slo = _slo(arguments)
    measured = result.measured(slo)
    predicted = None if behind is None or not len(result.came.rows) else result.predicted(slo, behind)
    if arguments.json is not None:
        asked = {"url": arguments.url, "model": arguments.model, "endpoint": arguments.endpoint, "seed": arguments.seed}
        asked |= {"time_scale": arguments.time_scale, "closed_loop": result.closed_loop}
        write_whole(arguments.json, dumps(asked | load_json(result, measured, predicted)))
    emit(report(result, measured, predicted))
    if result.late_p99_s > LATE_S:
        say(
            f"warning: 1 % of the requests were sent {1e3 * result.late_p99_s:.1f} ms or more after they were due; "
            "this machine is too busy for the load"
        )
    if result.client_cpu_share > BUSY:
        say("warning: the client used most of a core; its own work may be part of the latencies")


def _check_files(arguments: argparse.Namespace) -> None:
    used = {"--workload": [arguments.workload], "--coefficients": [arguments.coefficients]}
    for flag in ("--json", "--requests-csv", "--telemetry"):
        path = getattr(arguments, flag[2:].replace("-", "_"))
        if path is not None:
            check_output(flag, path, used)
            used[flag] = [path]


def _endpoint(arguments: argparse.Namespace) -> Endpoint:
    from autopoiesis.bench.load import Endpoint, Kind

    key = None
    if arguments.api_key_env is not None:
        key = os.environ.get(arguments.api_key_env)
        if not key or not key.isascii() or not key.isprintable():
            raise ScenarioError(f"--api-key-env {arguments.api_key_env}: the variable holds no key; export it")
    return Endpoint(arguments.url, arguments.model, Kind(arguments.endpoint), key, arguments.allow_remote)


def _requests(arguments: argparse.Namespace) -> Requests:
    import numpy as np

    from autopoiesis.bench.load import cut, steady, stretched
    from autopoiesis.workload import Draw, presets, read_trace

    given, seconds = arguments.workload, arguments.duration
    if given is None:
        for flag in ("rate", "input", "output"):
            if getattr(arguments, flag) is None:
                raise ScenarioError(f"--{flag}: say it, or give a trace or a preset with --workload")
    elif arguments.input is not None or arguments.output is not None:
        raise ScenarioError("--input and --output belong to --rate without --workload; leave them out")
    if given is None:
        rng = np.random.default_rng(arguments.seed)
        seconds = seconds or 60.0
        requests = steady(rng, arguments.rate, seconds, arguments.cv, arguments.input, arguments.output)
    elif os.path.isfile(given):
        if arguments.rate is not None:
            raise ScenarioError("--rate: a trace has its own; leave it out, or resample the trace")
        hours = None if seconds is None else seconds / 3600.0
        requests = read_trace(given, hours=hours, draw=Draw(arguments.seed)).requests
    elif given in presets.names():
        seconds = seconds or 60.0
        requests = presets.generate(given, max(seconds / 3600.0, 0.001), arguments.seed, rate=arguments.rate)
    elif os.sep in given or given.endswith((".csv", ".gz", ".jsonl", ".json")):
        raise TraceError(f"--workload {given}: there is no such file; check the path")
    else:
        raise ScenarioError(f"--workload {given}: no file, and {unknown_name('preset', given, presets.names())}")
    return stretched(cut(requests, seconds, arguments.requests), arguments.time_scale)


def _settings(arguments: argparse.Namespace) -> Settings:
    from autopoiesis.bench.load import Asking, Settings

    first, last = arguments.token_ids
    return Settings(
        closed_loop=not arguments.open,
        concurrency_limit=arguments.concurrency_limit,
        timeout_s=arguments.timeout,
        keep_alive=arguments.keep_alive,
        seed=arguments.seed,
        first_token=first,
        last_token=last,
        asking=Asking(arguments.ignore_eos, arguments.min_tokens, arguments.running_usage),
    )


def _slo(arguments: argparse.Namespace) -> SLO:
    from autopoiesis.workload import SLO

    return SLO(arguments.slo_ttft, arguments.slo_ttft_per_token, arguments.slo_tpot)
