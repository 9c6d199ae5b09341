"""The project's own CSV: a row a call, columns found by name, further ones ignored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autopoiesis.workload.cells import Number, labels, numbers, prefix_blocks, recorded
from autopoiesis.workload.readers.recorded import TOKENS_MAX, Calls, Order, Reading, lengths, numbered, seconds, tokens
from autopoiesis.workload.table import Table

ARRIVAL, INPUT, OUTPUT = "arrival_s", "input_tokens", "output_tokens"
SESSION, MODEL, BLOCKS = "session_id", "model", "block_ids"
PREFIX = Number("prefix_tokens", 0, TOKENS_MAX, whole=True, optional=True)
THINK = seconds("think_time_s", optional=True)
API = seconds("api_time_s", optional=True)


@dataclass(frozen=True, slots=True)
class Normalised:
    """`arrival_s,input_tokens,output_tokens` and whatever of the optional columns there is."""

    name: str = "normalised"
    marks: tuple[str, ...] = (ARRIVAL, INPUT, OUTPUT)
    others: tuple[str, ...] = (SESSION, PREFIX.name, THINK.name, API.name, BLOCKS, MODEL)
    order: Order = Order.STRICT
    step_s: float = 0.0

    def read(self, given: Table, reading: Reading) -> Iterator[Calls]:
        blocks_before = 0
        for block in given.blocks():
            input_tokens = lengths(numbers(given, block, tokens(INPUT, 1)))
            blocks = prefix_blocks(given, block, BLOCKS, input_tokens, blocks_before)
            blocks_before += 0 if blocks is None else len(blocks[1])
            yield Calls(
                lines=numbered(block.lines),
                arrival_s=numbers(given, block, seconds(ARRIVAL)),
                input_tokens=input_tokens,
                output_tokens=lengths(numbers(given, block, tokens(OUTPUT, 0))),
                session=labels(given, block, SESSION, reading.sessions),
                model=labels(given, block, MODEL, reading.models),
                prefix_tokens=recorded(given, block, PREFIX),
                think_s=recorded(given, block, THINK),
                api_s=recorded(given, block, API),
                block_count=None if blocks is None else blocks[0],
                block_ids=None if blocks is None else blocks[1],
            )
