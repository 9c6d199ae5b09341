"""Mooncake's traces: JSON lines with the prefix blocks of each prompt.

`timestamp` is milliseconds, in steps of about three seconds. An id in `hash_ids` stands for 512 tokens and all before
them; the last one may be of a block that the prompt does not fill, and is passed over.
Source: github.com/kvcache-ai/Mooncake, `FAST25-release/traces`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Annotated

import msgspec
import numpy as np

from autopoiesis.workload.cells import BLOCKS_MAX
from autopoiesis.workload.jsonl import Lines
from autopoiesis.workload.readers.recorded import TOKENS_MAX, Calls, Order, Reading, numbered
from autopoiesis.workload.requests import PREFIX_BLOCK_TOKENS
from autopoiesis.workload.source import Source, fault

Tokens = Annotated[int, msgspec.Meta(ge=0, le=int(TOKENS_MAX))]
Id = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


class _Request(msgspec.Struct):
    timestamp: Annotated[float, msgspec.Meta(ge=0, le=1e13)]
    input_length: Annotated[int, msgspec.Meta(ge=1, le=int(TOKENS_MAX))]
    output_length: Tokens
    hash_ids: list[Id] = []


LINES = Lines(_Request, "a request of a Mooncake trace")


@dataclass(frozen=True, slots=True)
class Mooncake:
    """`{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, …]}`."""

    name: str = "Mooncake"
    marks: tuple[str, ...] = ("timestamp", "input_length", "output_length")
    others: tuple[str, ...] = ("hash_ids",)
    order: Order = Order.NEARLY
    step_s: float = 3.0

    def read(self, given: Source, reading: Reading) -> Iterator[Calls]:
        reading.blocks = "field 'hash_ids'"
        blocks = 0
        for requests, lines in LINES.read(given):
            for request, line in zip(requests, lines, strict=True):
                _check_blocks(given.path, request, line)
            ids = [request.hash_ids[: request.input_length // PREFIX_BLOCK_TOKENS] for request in requests]
            counts = np.array([len(of_one) for of_one in ids], dtype=np.int64)
            blocks += int(counts.sum())
            if blocks > BLOCKS_MAX:
                text = f"field 'hash_ids': more than {BLOCKS_MAX:,} blocks up to here; read fewer hours of the trace"
                raise fault(given.path, lines[-1], text)
            yield Calls(
                lines=numbered(lines),
                arrival_s=np.array([request.timestamp for request in requests]) / 1000.0,
                input_tokens=np.array([request.input_length for request in requests], dtype=np.int64),
                output_tokens=np.array([request.output_length for request in requests], dtype=np.int64),
                block_count=counts,
                block_ids=np.fromiter(chain.from_iterable(ids), dtype=np.int64, count=int(counts.sum())),
            )


def _check_blocks(path: str, request: _Request, line: int) -> None:
    most = -(-request.input_length // PREFIX_BLOCK_TOKENS)
    if len(request.hash_ids) > most:
        text = f"field 'hash_ids': names {len(request.hash_ids)} blocks, and a prompt of {request.input_length} tokens"
        raise fault(path, line, f"{text} has {most} of {PREFIX_BLOCK_TOKENS}; a Mooncake trace names those only")
