"""Results of the serving benchmarks of vLLM and SGLang, with the lengths of every request.

vLLM writes one JSON object (`vllm bench serve --save-result --save-detailed`, or `--append-result` for a line a run),
SGLang a line a run (`bench_serving --output-file … --output-details`). Newer versions of vLLM record `start_times`;
where a run has none, arrivals are drawn as a Poisson process of its `request_rate`, which is what both tools do.
Source: `vllm/benchmarks/serve.py` and `sglang/benchmark/metrics.py` of the two projects.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from autopoiesis.workload.jsonl import Lines
from autopoiesis.workload.readers.recorded import SECONDS_MAX, TOKENS_MAX, Calls, Order, Reading
from autopoiesis.workload.source import Source, fault

DOCUMENT_BYTES = 128 << 20
"""Largest result: its answers may stand in it, which are skipped."""

Tokens = Annotated[int, msgspec.Meta(ge=0, le=int(TOKENS_MAX))]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=SECONDS_MAX)]


class _Run(msgspec.Struct):
    input_lens: list[Tokens] | None = None
    output_lens: list[Tokens] | None = None
    start_times: list[Seconds] | None = None
    request_rate: float | str | None = None
    max_concurrency: float | None = None
    burstiness: float | None = None
    model_id: str = ""


RUNS = Lines(_Run, "the result of a benchmark run")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The result of one run of one of the tools."""

    name: str
    marks: tuple[str, ...]
    details: str
    """The flag that makes the tool write the lengths of every request."""
    others: tuple[str, ...] = ("input_lens", "output_lens", "start_times", "request_rate")
    order: Order = Order.ANY
    step_s: float = 0.0

    def read(self, given: Source, reading: Reading) -> Iterator[Calls]:
        run, line = self._only_run(given)
        if run.input_lens is None or run.output_lens is None:
            text = f"no field 'input_lens' or 'output_lens': run the benchmark with {self.details}"
            raise fault(given.path, line, text)
        if len(run.output_lens) != len(run.input_lens):
            text = f"field 'output_lens': {len(run.output_lens)} values for {len(run.input_lens)} requests"
            raise fault(given.path, line, f"{text}; write the result again")
        yield Calls(
            lines=np.full(len(run.input_lens), line, dtype=np.int64),
            arrival_s=self._arrivals(given.path, line, run, len(run.input_lens), reading),
            input_tokens=np.array(run.input_lens, dtype=np.int64),
            output_tokens=np.array(run.output_lens, dtype=np.int64),
            model=reading.models([run.model_id] * len(run.input_lens)),
        ).having_prompts(reading)

    def _only_run(self, source: Source) -> tuple[_Run, int]:
        text = source.whole(DOCUMENT_BYTES)
        filled = ((line, number) for number, line in enumerate(io.BytesIO(text), 1) if line.strip())
        (first, number), *more = islice(filled, 2)
        if more and not first.rstrip().endswith(b"}"):
            return RUNS.one(source, text, number), number  # one object, indented
        if more:
            raise fault(source.path, more[0][1], "a second run follows the first; keep the line of one run")
        return RUNS.one(source, first, number), number

    def _arrivals(self, path: str, line: int, run: _Run, n: int, reading: Reading) -> NDArray[np.float64]:
        if run.start_times is not None:
            if len(run.start_times) != n:
                text = f"field 'start_times': {len(run.start_times)} values for {n} requests; write the result again"
                raise fault(path, line, text)
            return np.array(run.start_times, dtype=np.float64)
        try:
            rate = math.nan if run.request_rate is None else float(run.request_rate)
        except ValueError:
            rate = math.nan
        if rate == math.inf and run.max_concurrency is None:
            return np.zeros(n)
        if not 1e-6 <= rate <= 1e6 or run.burstiness not in (None, 1.0):
            text = "neither field 'start_times' nor a 'request_rate' of a Poisson process: when the requests came is"
            raise fault(path, line, f"{text} not known; run the benchmark with a finite --request-rate")
        reading.drawn = f"arrivals: Poisson at the recorded {rate:g} requests/s, seed {reading.draw.seed}"
        rng = np.random.default_rng([reading.draw.seed, n])
        return np.cumsum(rng.exponential(1.0 / rate, n))


VLLM = Benchmark("vLLM benchmark", ("total_input_tokens", "request_throughput"), "--save-detailed")
SGLANG = Benchmark("SGLang benchmark", ("total_input", "request_throughput"), "--output-details")
