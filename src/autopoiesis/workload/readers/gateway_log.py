"""The request log of our own gateway: a JSON object a line, numbers and labels only, never text.

A line is written when its request ends, so the lines are not in order of arrival. `docs/traces.md` is its contract.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np

from autopoiesis.workload.jsonl import Lines
from autopoiesis.workload.readers.recorded import SECONDS_MAX, TOKENS_MAX, Calls, Order, Reading, numbered
from autopoiesis.workload.source import Source

Seconds = Annotated[float, msgspec.Meta(ge=0, le=SECONDS_MAX)]
Tokens = Annotated[int, msgspec.Meta(ge=0, le=int(TOKENS_MAX))]
Label = Annotated[str, msgspec.Meta(max_length=200)]


class LoggedRequest(msgspec.Struct):
    """One request of the gateway's log."""

    arrival_unix_s: Seconds
    model: Label
    prompt_tokens: Tokens
    output_tokens: Tokens
    """Generated until it ended, however it ended."""
    status: Literal["completed", "lost", "shed", "rejected"]
    session: Label | None = None
    """A keyed hash; None for a single request."""
    ttft_s: Seconds | None = None
    e2e_s: Seconds | None = None


LINES = Lines(LoggedRequest, "a request of the gateway's log")


@dataclass(frozen=True, slots=True)
class GatewayLog:
    """All requests count as demand, whatever became of them."""

    name: str = "gateway log"
    marks: tuple[str, ...] = ("arrival_unix_s", "prompt_tokens", "output_tokens")
    others: tuple[str, ...] = ("model", "session", "ttft_s", "e2e_s", "status")
    order: Order = Order.ANY
    step_s: float = 0.0

    def read(self, given: Source, reading: Reading) -> Iterator[Calls]:
        for requests, lines in LINES.read(given):
            yield Calls(
                lines=numbered(lines),
                arrival_s=np.array([request.arrival_unix_s for request in requests]),
                input_tokens=np.array([request.prompt_tokens for request in requests], dtype=np.int64),
                output_tokens=np.array([request.output_tokens for request in requests], dtype=np.int64),
                session=reading.sessions(request.session or "" for request in requests),
                model=reading.models(request.model for request in requests),
                api_s=np.array([np.nan if request.e2e_s is None else request.e2e_s for request in requests]),
            ).having_prompts(reading)
