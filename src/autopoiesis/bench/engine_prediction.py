"""How well the simulator predicts a real engine: calibrate on one load, predict the latencies of another.

Two loads with unlike rates and lengths go to the engine in turns, part by part, so that whatever else the machine does
in the meantime meets both. Step coefficients are fitted to what the client saw of the first load. The second is served
by the event simulator with these coefficients, and its percentiles of TTFT and end-to-end latency are held against
those of the engine.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from autopoiesis.bench.engine_process import cpu_s_of_others, running_engine
from autopoiesis.bench.load import Asking, Endpoint, Fleet, Result, Settings, send
from autopoiesis.bench.load import predict as served_by
from autopoiesis.cluster import Hardware
from autopoiesis.cluster.hardware import GPU, Model
from autopoiesis.cost import CostModel
from autopoiesis.cost.observed_steps import observed_steps
from autopoiesis.cost.step_fit import StepFit, fit_steps
from autopoiesis.cost.telemetry import Stream, write_telemetry
from autopoiesis.errors import AutopoiesisError
from autopoiesis.plan import Replica
from autopoiesis.workload import Requests
from autopoiesis.workload.requests import single_requests
from autopoiesis.workload.synopsis import nearest_rank

GOAL = 0.20
"""Largest error of a percentile that we aim at."""
DRAIN_S = 60.0
"""Seconds that a part of a load may take beyond its last arrival."""
LENGTH_SIGMA = 0.6
"""Deviation of the log lengths."""
LENGTHS = (4, 512)
QUANTILES = (0.5, 0.9)

ENGINE, MACHINE = "engine", "machine"
PLACEHOLDER = Model(ENGINE, 1, 64, 64, 1, 1, 64, 256, 1 << 30)
"""The engine's architecture enters only through its measured coefficients; its KV cache is never full here."""
HARDWARE = Hardware({MACHINE: GPU(MACHINE, 1e12, 1e11, 64e9, 1e10, 1e9, 0.0)}, {ENGINE: PLACEHOLDER})


@dataclass(frozen=True, slots=True)
class Load:
    """Poisson arrivals, log-normal lengths."""

    rate_rps: float
    prompt_tokens: float
    """Median."""
    answer_tokens: float
    """Median."""
    seconds: float

    def draw(self, rng: np.random.Generator) -> Requests:
        arrivals = np.sort(rng.uniform(0.0, self.seconds, max(rng.poisson(self.rate_rps * self.seconds), 1)))

        def lengths(median: float) -> NDArray[np.int64]:
            drawn = median * np.exp(LENGTH_SIGMA * rng.standard_normal(len(arrivals)))
            return np.clip(np.rint(drawn), *LENGTHS).astype(np.int64)

        return single_requests(arrivals, lengths(self.prompt_tokens), lengths(self.answer_tokens))


@dataclass(frozen=True, slots=True)
class Latencies:
    ttft_s: NDArray[np.float64]
    e2e_s: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Percentile:
    """One number that was predicted and measured."""

    name: str
    measured_s: float
    predicted_s: float
    error: float
    """predicted ÷ measured − 1"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of it."""

    percentiles: tuple[Percentile, ...]
    fit: StepFit
    calibration_requests: int
    predicted_requests: int
    failures: tuple[str, ...]
    client_cpu_s_per_token: float
    late_p99_s: float
    others: float
    """Cores that other processes kept busy meanwhile, on average; 0 where that is unknown."""

    @property
    def worst(self) -> float:
        return max(abs(entry.error) for entry in self.percentiles)


def compare(
    endpoint: Endpoint,
    options: Replica,
    calibration: Load,
    other: Load,
    *,
    token_ids: tuple[int, int],
    parts: int,
    turns: int,
    seed: int,
    group: int | None = None,
) -> tuple[Comparison, tuple[Stream, ...]]:
    """Load the engine in turns, calibrate and predict; also the telemetry of the calibration.

    A turn is one part of each load, of `parts`. Of `turns` turns those are taken in which other processes used least of
    the machine, so that it is the engine that is measured; with as many turns as parts all are taken. `options` says
    the engine's token budget and sequence cap, `token_ids` the first and last of which prompts are drawn, `group` its
    process group, without which nobody knows who used what.
    Raises AutopoiesisError if too little was answered to calibrate on or to compare.
    """
    rng = np.random.default_rng(seed)
    loads = [replace(load, seconds=load.seconds / parts) for load in (calibration, other)]
    taken = [_turn(endpoint, loads, rng, token_ids, seed + 2 * number, group) for number in range(turns)]
    taken = sorted(taken, key=lambda turn: turn.others)[:parts]
    period_s = calibration.seconds / parts + DRAIN_S
    streams = [_shifted(stream, i * period_s) for i, turn in enumerate(taken) for stream in turn.results[0].streams()]
    results = [result for turn in taken for result in turn.results]
    if not any(result.came.served.completed.any() for result in results):
        reason = next(failure for result in results for failure in _failures(result))
        raise AutopoiesisError(f"no request was answered: {reason}")
    fit = fit_steps(observed_steps(streams, options.batched_tokens, options.max_sequences))
    answered = [stream for turn in taken for stream in turn.results[1].streams()]
    measured = Latencies(
        np.array([stream.ttft_s for stream in answered]), np.array([stream.e2e_s for stream in answered])
    )
    predictions = [predict(turn.requests[1], fit, options) for turn in taken]
    predicted = Latencies(
        np.concatenate([prediction.ttft_s for prediction in predictions]),
        np.concatenate([prediction.e2e_s for prediction in predictions]),
    )
    tokens = sum(int(result.came.served.output_tokens.sum()) for result in results)
    comparison = Comparison(
        percentiles=tuple(_percentiles(measured, predicted)),
        fit=fit,
        calibration_requests=len(streams),
        predicted_requests=len(answered),
        failures=tuple(failure for result in results for failure in _failures(result)),
        client_cpu_s_per_token=sum(result.client_cpu_s for result in results) / max(tokens, 1),
        late_p99_s=max(result.late_p99_s for result in results),
        others=float(np.mean([turn.others for turn in taken])),
    )
    return comparison, tuple(streams)


@dataclass(frozen=True, slots=True)
class _Turn:
    """One part of each load, one after the other."""

    requests: tuple[Requests, ...]
    results: tuple[Result, ...]
    others: float
    """Cores that other processes kept busy meanwhile; 0 where that is unknown."""


def _turn(
    endpoint: Endpoint,
    loads: list[Load],
    rng: np.random.Generator,
    token_ids: tuple[int, int],
    seed: int,
    group: int | None,
) -> _Turn:
    requests = tuple(load.draw(rng) for load in loads)
    began_s, before_s = time.monotonic(), None if group is None else cpu_s_of_others(group)
    results = tuple(
        send(endpoint, part, _settings(token_ids, seed + i, load.seconds + DRAIN_S))
        for i, (part, load) in enumerate(zip(requests, loads, strict=True))
    )
    after_s = None if group is None else cpu_s_of_others(group)
    others = 0.0 if before_s is None or after_s is None else (after_s - before_s) / (time.monotonic() - began_s)
    return _Turn(requests, results, others)


def _settings(token_ids: tuple[int, int], seed: int, timeout_s: float) -> Settings:
    """Every prompt computed as a whole, on a connection of its own: what is fitted is the engine."""
    first, last = token_ids
    return Settings(
        timeout_s=timeout_s,
        keep_alive=False,
        seed=seed,
        first_token=first,
        last_token=last,
        asking=Asking(more={"cache_prompt": False}),
    )


def _failures(result: Result) -> Iterator[str]:
    """A reason for every request that was not answered in full."""
    came = result.came
    wanted = result.requests.output_tokens[came.rows]
    for fault, tokens, full in zip(came.faults, came.served.output_tokens.tolist(), wanted.tolist(), strict=True):
        if fault or tokens != full:
            yield fault or f"{tokens} of {full} tokens came"


def predict(requests: Requests, fit: StepFit, options: Replica) -> Latencies:
    """What the event simulator says of these requests on one such engine; the constant per request comes on top."""
    coefficients = fit.coefficients(
        model=ENGINE, gpu=MACHINE, tensor_parallel=1, pipeline_parallel=1, engine=ENGINE, dtype="bf16"
    )
    cost = CostModel(HARDWARE, measured=(coefficients,), engine=ENGINE)
    served = served_by(Fleet((options,), cost), requests, closed_loop=False)
    return Latencies(served.ttft_s + fit.request_s, served.e2e_s + fit.request_s)


def engine_options(max_sequences: int, batched_tokens: int) -> Replica:
    """The simulated replica of an engine with these limits."""
    return Replica(ENGINE, MACHINE, batched_tokens=batched_tokens, max_sequences=max_sequences)


def _shifted(stream: Stream, by_s: float) -> Stream:
    return Stream(stream.sent_s + by_s, stream.prompt_tokens, tuple(token + by_s for token in stream.token_s))


def _percentiles(measured: Latencies, predicted: Latencies) -> Iterator[Percentile]:
    for name, real, said in (
        ("TTFT", measured.ttft_s, predicted.ttft_s),
        ("end to end", measured.e2e_s, predicted.e2e_s),
    ):
        for q in QUANTILES:
            one, other = nearest_rank(real, q), nearest_rank(said, q)
            yield Percentile(f"{name} p{100 * q:.0f}", one, other, other / one - 1 if one else 0.0)


def table(comparison: Comparison) -> str:
    """For a terminal."""
    lines = [f"{'':16}{'engine':>12}{'simulator':>12}{'error':>9}"]
    for entry in comparison.percentiles:
        lines.append(
            f"{entry.name:16}{1e3 * entry.measured_s:9.1f} ms{1e3 * entry.predicted_s:9.1f} ms{entry.error:+9.1%}"
        )
    fit = comparison.fit
    lines.append(
        f"worst {comparison.worst:.1%}, goal {GOAL:.0%}; {comparison.predicted_requests} requests predicted from "
        f"{comparison.calibration_requests} others ({fit.steps} steps, median error of a step {fit.error:.1%})"
    )
    lines.append(
        f"client: {1e6 * comparison.client_cpu_s_per_token:.0f} µs of CPU per token, p99 of lateness "
        f"{1e3 * comparison.late_p99_s:.1f} ms; {len(comparison.failures)} requests failed; other processes "
        f"used {comparison.others:.2f} cores"
    )
    return "\n".join(lines)


@contextmanager
def _engine(arguments: argparse.Namespace) -> Iterator[tuple[str, int | None]]:
    if arguments.url is not None:
        yield arguments.url, None
        return
    with running_engine(shlex.split(arguments.start), arguments.start_s) as engine:
        yield f"{engine.address}/v1", engine.group


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m autopoiesis.bench.engine_prediction", description=(__doc__ or "").partition("\n")[0]
    )
    engine = parser.add_mutually_exclusive_group(required=True)
    engine.add_argument("--start", metavar="COMMAND", help="start this engine; its first line must be its address")
    engine.add_argument("--url", help="an engine that serves already, such as http://127.0.0.1:8000/v1")
    parser.add_argument("--start-s", type=float, default=300.0, help="seconds an engine may take to start")
    parser.add_argument("--model", default=ENGINE, help="the engine's name of the model")
    parser.add_argument("--first-token", type=int, required=True, help="prompts are drawn from these token ids ...")
    parser.add_argument("--last-token", type=int, required=True, help="... to this one")
    parser.add_argument("--max-sequences", type=int, required=True)
    parser.add_argument("--batched-tokens", type=int, required=True)
    for flag, purpose, load in (
        ("calibrate", "calibrate on", "3.5,64,16"),
        ("predict", "predict", "2.5,32,48"),
    ):
        parser.add_argument(
            f"--{flag}", metavar="RATE,PROMPT,ANSWER", type=_load, default=load, help=f"requests/s, tokens to {purpose}"
        )
    parser.add_argument("--seconds", type=float, default=32.0, help="of each load")
    parser.add_argument("--parts", type=int, default=8, help="into which each load is cut; they take turns")
    parser.add_argument("--turns", type=int, default=0, help="of these, take the quietest as many as there are parts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the comparison")
    parser.add_argument("--telemetry", type=Path, metavar="FILE.jsonl", help="write what the calibration saw")
    return parser


def _load(text: str) -> Load:
    """A load whose length is still to be set."""
    try:
        rate, prompt, answer = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError("must be three numbers: requests/s, prompt tokens, answer tokens") from None
    if not min(rate, prompt, answer) > 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return Load(rate, prompt, answer, seconds=0.0)


def main(argv: list[str] | None = None) -> int:
    """0 if every percentile is within the goal, 1 if not, 2 if it could not be told."""
    arguments = _parser().parse_args(argv)
    try:
        with _engine(arguments) as (url, group):
            comparison, streams = compare(
                Endpoint(url, arguments.model),
                engine_options(arguments.max_sequences, arguments.batched_tokens),
                replace(arguments.calibrate, seconds=arguments.seconds),
                replace(arguments.predict, seconds=arguments.seconds),
                token_ids=(arguments.first_token, arguments.last_token),
                parts=arguments.parts,
                turns=max(arguments.turns, arguments.parts),
                seed=arguments.seed,
                group=group,
            )
        if arguments.telemetry is not None:
            write_telemetry(arguments.telemetry, streams)
    except AutopoiesisError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(comparison))
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(asdict(comparison))) + b"\n")
    if comparison.failures:
        print(f"error: requests failed, the first: {comparison.failures[0]}", file=sys.stderr)
        return 2
    return 0 if comparison.worst <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
