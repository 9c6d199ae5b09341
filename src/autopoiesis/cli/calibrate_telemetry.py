"""`autopoiesis calibrate --telemetry`: step coefficients of one engine from what a client saw of it under load."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import asdict

from autopoiesis.cli.output import dumps, emit, write_whole
from autopoiesis.cli.parser import one_of, whole
from autopoiesis.errors import ScenarioError

TELEMETRY_FORMAT = (
    "A telemetry file has one JSON object a line for every request that an engine answered under a load: "
    '{"sent_s": seconds, "prompt_tokens": count, "token_s": [seconds, ...]}, the arrival of every generated token by '
    "one monotonic clock. It must be complete: a request that is left out is work that nobody explains."
)
"""For the notes of a command's help."""
ONLY_HERE = ("model", "gpu", "tp", "pp", "dtype", "batched_tokens", "max_sequences")
"""What a table of steps says by itself."""
ENGINE, DTYPE, TWO_BYTES = "vllm", "bf16", ("bf16", "fp16")
"""As in `cost.coefficients`, which a command's help need not load."""


def add_telemetry(parser: argparse.ArgumentParser) -> None:
    """The flags of `calibrate_from_telemetry`: the engine that was recorded."""
    engine = parser.add_argument_group("the engine that was recorded, with --telemetry")
    engine.add_argument("--model", metavar="NAME", type=one_of("model", _models), help="what it served")
    engine.add_argument("--gpu", metavar="NAME", type=one_of("GPU", _gpus), help="on what")
    engine.add_argument("--tp", metavar="N", type=whole("GPUs", 1, 1024), help="tensor parallel (default 1)")
    engine.add_argument("--pp", metavar="N", type=whole("stages", 1, 1024), help="pipeline parallel (default 1)")
    engine.add_argument(
        "--dtype", metavar="NAME", choices=TWO_BYTES, help=f"of its weights: {', '.join(TWO_BYTES)} (default {DTYPE})"
    )
    engine.add_argument(
        "--batched-tokens",
        metavar="N",
        type=whole("tokens", 1, 1 << 20),
        help="its token budget of one step (default 8192)",
    )
    engine.add_argument(
        "--max-sequences",
        metavar="N",
        type=whole("sequences", 1, 1 << 20),
        help="how many sequences it ran at once (default 256)",
    )


def calibrate_from_telemetry(arguments: argparse.Namespace) -> int:
    """Fit, print the coefficients and write the files asked for.

    Raises TraceError for telemetry that cannot be used, ScenarioError where the configuration is not said.
    """
    for flag in ("model", "gpu"):
        if getattr(arguments, flag) is None:
            raise ScenarioError(f"--telemetry: say with --{flag} what was recorded")

    from autopoiesis.cost import Fitted
    from autopoiesis.cost.fitted import rounded_coefficients, written
    from autopoiesis.cost.observed_steps import observed_steps
    from autopoiesis.cost.step_fit import fit_steps
    from autopoiesis.cost.telemetry import read_telemetry

    streams = read_telemetry(arguments.telemetry)
    fit = fit_steps(observed_steps(streams, arguments.batched_tokens or 8192, arguments.max_sequences or 256))
    coefficients = rounded_coefficients(
        fit.coefficients(
            model=arguments.model,
            gpu=arguments.gpu,
            tensor_parallel=arguments.tp or 1,
            pipeline_parallel=arguments.pp or 1,
            engine=arguments.engine,
            dtype=arguments.dtype or DTYPE,
        )
    )
    if arguments.json is not None:
        shape = {arguments.gpu: {"measured": [asdict(coefficients)]}}
        # the phases of steps that a client reconstructs are mixed up by its clock: one error stands for all
        fitted = {"prefill_mape": None, "decode_mape": None, "mixed_mape": None, "step_median": fit.error}
        told = {"fit": fitted, "holdout": None, "coefficients": shape, "request_s": fit.request_s}
        write_whole(arguments.json, dumps(told))
    if arguments.out is not None:
        comment = f"Fitted by autopoiesis calibrate to {fit.steps} steps of {len(streams)} requests."
        write_whole(arguments.out, written(Fitted(measured=(coefficients,)), comment))
    terms = [(name, value) for name, value in asdict(coefficients).items() if name.endswith("_s")]
    lines = [f"{name:18}{1e6 * value:14.4f} µs" for name, value in [*terms, ("request_s", fit.request_s)]]
    emit(
        "\n".join(lines)
        + f"\n{len(streams)} requests, {fit.steps} steps; median error of a step {fit.error:.1%}, all steps together "
        f"{fit.explained - 1:+.1%}\n"
    )
    return 0


def _models() -> Collection[str]:
    from autopoiesis.cluster import catalog

    return catalog.models()


def _gpus() -> Collection[str]:
    from autopoiesis.cluster import catalog

    return catalog.gpus()
