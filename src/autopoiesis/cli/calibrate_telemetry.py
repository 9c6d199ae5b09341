"""`autopoiesis calibrate --telemetry`: step coefficients of one engine from what a client saw of it under load."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from autopoiesis.cli.output import dumps, emit, write_whole
from autopoiesis.cli.parser import whole

TELEMETRY_FORMAT = (
    "A telemetry file has one JSON object a line for every request that an engine answered under a load: "
    '{"sent_s": seconds, "prompt_tokens": count, "token_s": [seconds, ...]}, the arrival of every generated token by '
    "one monotonic clock. It must be complete: a request that is left out is work that nobody explains."
)
"""For the notes of a command's help."""


def add_telemetry(parser: argparse.ArgumentParser) -> None:
    """The flags of `calibrate_from_telemetry` that name no configuration."""
    parser.add_argument("--telemetry", metavar="FILE.jsonl", help="what a client saw of the engine under a load")
    parser.add_argument(
        "--batched-tokens",
        metavar="N",
        type=whole("tokens", 1, 1 << 20),
        default=8192,
        help="the engine's token budget of one step while it was recorded (default 8192)",
    )
    parser.add_argument(
        "--max-sequences",
        metavar="N",
        type=whole("sequences", 1, 1 << 20),
        default=256,
        help="how many sequences it ran at once (default 256)",
    )


def calibrate_from_telemetry(arguments: argparse.Namespace) -> int:
    """Fit, print a table and, with `--json`, write the coefficients.

    Takes `telemetry`, `batched_tokens`, `max_sequences`, `json` (a path or None) and the configuration: `model`, `gpu`,
    `tensor_parallel`, `pipeline_parallel`, `engine`, `dtype`. Raises TraceError for a file that cannot be used.
    """
    from autopoiesis.cost.observed_steps import observed_steps
    from autopoiesis.cost.step_fit import fit_steps
    from autopoiesis.cost.telemetry import read_telemetry

    streams = read_telemetry(arguments.telemetry)
    fit = fit_steps(observed_steps(streams, arguments.batched_tokens, arguments.max_sequences))
    coefficients = fit.coefficients(
        model=arguments.model,
        gpu=arguments.gpu,
        tensor_parallel=arguments.tensor_parallel,
        pipeline_parallel=arguments.pipeline_parallel,
        engine=arguments.engine,
        dtype=arguments.dtype,
    )
    if arguments.json is not None:
        write_whole(arguments.json, dumps({"coefficients": [asdict(coefficients)], "request_s": fit.request_s}))
    terms = [(name, value) for name, value in asdict(coefficients).items() if name.endswith("_s")]
    lines = [f"{name:18}{1e6 * value:14.4f} µs" for name, value in [*terms, ("request_s", fit.request_s)]]
    emit(
        "\n".join(lines)
        + f"\n{len(streams)} requests, {fit.steps} steps; median error of a step {fit.error:.1%}, all steps together "
        f"{fit.explained - 1:+.1%}\n"
    )
    return 0
