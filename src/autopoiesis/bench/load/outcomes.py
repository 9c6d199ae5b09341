"""What came of a load, as columns, and the figures that are read off them: measured ones and predicted ones alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autopoiesis.bench.load.exchange import CUT, Exchange
from autopoiesis.bench.load.prompts import shared_tokens
from autopoiesis.simulate.outcome import Spread, spread
from autopoiesis.workload import PREFIX_BLOCK_TOKENS, SLO, Requests

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Served:
    """k requests and how they were served; times in seconds from the origin of the load."""

    sent_s: Floats
    first_s: Floats
    """First token, NaN where there was none."""
    last_s: Floats
    """Last token, NaN where there was none."""
    end_s: Floats
    """End of the answer, or of the attempt."""
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    completed: NDArray[np.bool_]

    @property
    def ttft_s(self) -> Floats:
        return self.first_s - self.sent_s

    @property
    def tpot_s(self) -> Floats:
        """NaN with fewer than two tokens."""
        gaps = self.output_tokens - 1
        return np.where(gaps > 0, (self.last_s - self.first_s) / np.maximum(gaps, 1), np.nan)

    @property
    def e2e_s(self) -> Floats:
        return self.last_s - self.sent_s

    def good(self, slo: SLO) -> NDArray[np.bool_]:
        """Completed within the SLO."""
        tpot_s = self.tpot_s
        in_time = self.ttft_s <= slo.ttft_s + slo.ttft_s_per_input_token * self.input_tokens
        return self.completed & in_time & (np.isnan(tpot_s) | (tpot_s <= slo.tpot_s))


@dataclass(frozen=True, slots=True)
class Figures:
    """Of the requests that were not cut off by the end of the load."""

    requests: int
    completed: int
    good: int
    goodput: float
    """good ÷ requests."""
    ttft_s: Spread
    tpot_s: Spread
    """Mean time per output token after the first, of each request."""
    e2e_s: Spread
    """To the last token."""
    output_tokens_per_s: float
    """Of completed requests, from the first sending to the last token."""
    requests_per_s: float
    """Completed, over the same time."""


def figures(served: Served, slo: SLO, answered: NDArray[np.bool_]) -> Figures:
    """Latencies and rates are those of the requests `answered`, in this world and in the one it is compared with."""
    span_s = float(served.last_s[answered].max() - served.sent_s.min()) if answered.any() else 0.0
    good, requests = int(served.good(slo).sum()), len(served.sent_s)
    return Figures(
        requests=requests,
        completed=int(served.completed.sum()),
        good=good,
        goodput=good / max(requests, 1),
        ttft_s=spread(served.ttft_s[answered]),
        tpot_s=spread(served.tpot_s[answered]),
        e2e_s=spread(served.e2e_s[answered]),
        output_tokens_per_s=int(served.output_tokens[answered].sum()) / span_s if span_s else 0.0,
        requests_per_s=int(answered.sum()) / span_s if span_s else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The requests that were sent, ascending by row, without those cut off."""

    rows: NDArray[np.int64]
    served: Served
    faults: tuple[str, ...]
    """By kind, empty where there was none."""
    prompt_tokens: NDArray[np.int64]
    """As the engine counted them, 0 where it did not say."""
    cached_tokens: int | None
    """Of all prompts, as the engine says; None where it does not."""
    cut: int
    """Requests under way when the load was ended."""
    late_s: Floats
    """How much later than due each request was sent."""

    def errors(self) -> dict[str, int]:
        """Failed requests by kind, the most frequent first."""
        return dict(Counter(fault for fault in self.faults if fault).most_common())


def outcomes(requests: Requests, exchanges: Sequence[Exchange], origin_s: float) -> Outcomes:
    """What came of a load of these requests."""
    ended = sorted((exchange for exchange in exchanges if exchange.fault != CUT), key=lambda exchange: exchange.row)
    rows = np.array([exchange.row for exchange in ended], dtype=np.int64)
    tokens = [exchange.answer.token_s for exchange in ended]
    faults = tuple(
        exchange.fault or ("" if token_s else "malformed") for exchange, token_s in zip(ended, tokens, strict=True)
    )
    prompt_tokens = np.array([exchange.answer.prompt_tokens for exchange in ended], dtype=np.int64)
    cached = [e.answer.cached_tokens for e in ended if e.answer.cached_tokens is not None]

    def column(values: list[float]) -> Floats:
        return np.array(values, dtype=np.float64) - origin_s

    return Outcomes(
        rows=rows,
        served=Served(
            sent_s=column([exchange.sent_s for exchange in ended]),
            first_s=column([token_s[0] if token_s else np.nan for token_s in tokens]),
            last_s=column([token_s[-1] if token_s else np.nan for token_s in tokens]),
            end_s=column([exchange.end_s for exchange in ended]),
            input_tokens=np.where(prompt_tokens > 0, prompt_tokens, requests.input_tokens[rows]),
            output_tokens=np.array([len(token_s) for token_s in tokens], dtype=np.int64),
            completed=np.array([not fault for fault in faults], dtype=np.bool_),
        ),
        faults=faults,
        prompt_tokens=prompt_tokens,
        cached_tokens=sum(cached) if cached else None,
        cut=len(exchanges) - len(ended),
        late_s=np.array([exchange.sent_s - exchange.due_s for exchange in exchanges], dtype=np.float64),
    )


def as_sent(requests: Requests, came: Outcomes) -> Requests:
    """The requests that really went out: those of `came`, prompts and answers as long as the engine counted them, and
    in common with the call before what was."""
    shared = shared_tokens(requests)
    sent = replace(requests, prefix_tokens=shared).take(came.rows)
    served = came.served
    return replace(
        sent,
        input_tokens=served.input_tokens,
        output_tokens=np.where(served.completed, served.output_tokens, np.maximum(sent.output_tokens, 1)),
        prefix_tokens=np.minimum(sent.prefix_tokens, served.input_tokens),
        block_count=np.minimum(sent.block_count, served.input_tokens // PREFIX_BLOCK_TOKENS),
    )
