"""What an emulated engine tells Prometheus: vLLM's names, and how far the process lags behind its own clock."""

from __future__ import annotations

from collections.abc import Iterator

from autopoiesis.serve.emulated.batch import Batch
from autopoiesis.serve.emulated.histogram import Histogram
from autopoiesis.serve.emulated.sequence import Sequence
from autopoiesis.simulate.layout import BLOCK_TOKENS, SECOND

TTFT_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
    640.0, 2560.0,
)  # fmt: skip
ITL_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
REQUEST_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip
REASONS = ("stop", "length", "abort", "error", "repetition")
SLEEP_STATES = ("awake", "weights_offloaded", "discard_all")


class Metrics:
    """Counters and histograms of one engine; the clock of its sequences runs `speed` times as fast as the scraper's."""

    def __init__(self, model: str, batch: Batch, speed: float) -> None:
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.ended = dict.fromkeys(REASONS, 0)
        """Requests by how they ended."""
        self.lag_s = 0.0
        """How late the last step was carried out."""
        self._batch = batch
        self._second = SECOND * speed
        quoted = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        self._labels = f'engine="0",model_name="{quoted}"'
        self.ttft = Histogram("vllm:time_to_first_token_seconds", "Histogram of time to first token.", TTFT_S)
        self.itl = Histogram("vllm:inter_token_latency_seconds", "Histogram of time between tokens.", ITL_S)
        self.e2e = Histogram("vllm:e2e_request_latency_seconds", "Histogram of requests from end to end.", REQUEST_S)
        self.queued = Histogram("vllm:request_queue_time_seconds", "Histogram of time until admission.", REQUEST_S)
        self._stepped = 0

    def step(self, out: list[Sequence], now: int) -> None:
        """A step has ended now with a token for each of these. Call it before the next step ends."""
        together = 0
        before, self._stepped = self._stepped, now
        self.generation_tokens += len(out)
        for sequence in out:
            if sequence.generated == 1:
                self.prompt_tokens += sequence.prompt_tokens
                self.ttft.observe(self._seconds(now - sequence.arrived))
                self.queued.observe(self._seconds(sequence.scheduled - sequence.arrived))
            elif sequence.previous == before:
                together += 1
            else:
                self.itl.observe(self._seconds(now - sequence.previous))
            sequence.previous = now
        if together:
            self.itl.observe(self._seconds(now - before), together)

    def end(self, sequence: Sequence, reason: str) -> None:
        """It has ended, now or with its last token."""
        self.ended[reason] += 1
        if reason != "abort":
            self.e2e.observe(self._seconds(sequence.last - sequence.arrived))

    def _seconds(self, time: int) -> float:
        # a step that is carried out late begins when it should have, which may be before somebody came
        return max(time, 0) / self._second

    def page(self, asleep: str) -> str:
        """The text exposition; `asleep` is one of `SLEEP_STATES`."""
        return "\n".join(self._lines(asleep)) + "\n"

    def _lines(self, asleep: str) -> Iterator[str]:
        batch, counts, labels = self._batch, self._batch.counts, self._labels
        gauges: tuple[tuple[str, str, float], ...] = (
            ("vllm:num_requests_running", "Number of requests in model execution batches.", batch.running),
            ("vllm:num_requests_waiting", "Number of requests waiting to be processed.", batch.waiting),
            ("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", batch.kv_use),
            ("autopoiesis:engine_lag_seconds", "How late the last step was carried out.", self.lag_s),
        )
        for name, help, value in gauges:
            yield from _head(name, "gauge", help)
            yield f"{name}{{{labels}}} {float(value)!r}"
        yield from _head("vllm:engine_sleep_state", "gauge", "Engine sleep state.")
        for state in SLEEP_STATES:
            yield f'vllm:engine_sleep_state{{{labels},sleep_state="{state}"}} {float(state == asleep)!r}'
        yield from _head("vllm:cache_config_info", "gauge", "Information of the KV cache.")
        config = f'block_size="{BLOCK_TOKENS}",num_gpu_blocks="{batch.blocks.capacity}"'
        yield f'vllm:cache_config_info{{engine="0",{config}}} 1.0'
        for name, help, count in (
            ("vllm:prefix_cache_queries", "Prompt tokens for which the prefix cache was asked.", counts.cache_queries),
            ("vllm:prefix_cache_hits", "Prompt tokens found in the prefix cache.", counts.cache_hits),
            ("vllm:num_preemptions", "Cumulative number of preemptions.", counts.preemptions),
            ("vllm:prompt_tokens", "Number of prefill tokens processed.", self.prompt_tokens),
            ("vllm:generation_tokens", "Number of generation tokens processed.", self.generation_tokens),
        ):
            yield from _head(f"{name}_total", "counter", help)
            yield f"{name}_total{{{labels}}} {float(count)!r}"
        yield from _head("vllm:request_success_total", "counter", "Count of finished requests.")
        for reason, count in self.ended.items():
            yield f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {float(count)!r}'
        for histogram in (self.ttft, self.itl, self.e2e, self.queued):
            yield from histogram.lines(labels)


def _head(name: str, kind: str, help: str) -> tuple[str, str]:
    return f"# HELP {name} {help}", f"# TYPE {name} {kind}"
