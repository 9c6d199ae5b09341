"""BurstGPT: calls of ChatGPT and GPT-4 through a campus service, over four months, in whole seconds.

The files of the first releases have six columns; `BurstGPT_3.csv` has `Session ID`, blank for calls of the API, and
`Elapsed time`, whole seconds from request to response. `Response tokens` is 0 where a call failed.
Source: github.com/HPMLL/BurstGPT.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autopoiesis.workload.cells import labels, numbers, recorded
from autopoiesis.workload.readers.recorded import Calls, Order, Reading, lengths, numbered, seconds, tokens
from autopoiesis.workload.table import Table

TIME, INPUT, OUTPUT = "Timestamp", "Request tokens", "Response tokens"
MODEL, SESSION, ELAPSED = "Model", "Session ID", "Elapsed time"


@dataclass(frozen=True, slots=True)
class BurstGPT:
    """`Timestamp,[Session ID,Elapsed time,]Model,Request tokens,Response tokens,Total tokens,Log Type`."""

    name: str = "BurstGPT"
    marks: tuple[str, ...] = (TIME, INPUT, OUTPUT)
    others: tuple[str, ...] = (MODEL, SESSION, ELAPSED)
    order: Order = Order.NEARLY
    step_s: float = 1.0

    def read(self, given: Table, reading: Reading) -> Iterator[Calls]:
        for block in given.blocks():
            yield Calls(
                lines=numbered(block.lines),
                arrival_s=numbers(given, block, seconds(TIME)),
                input_tokens=lengths(numbers(given, block, tokens(INPUT, 0))),
                output_tokens=lengths(numbers(given, block, tokens(OUTPUT, 0))),
                session=labels(given, block, SESSION, reading.sessions),
                model=labels(given, block, MODEL, reading.models),
                api_s=recorded(given, block, seconds(ELAPSED, optional=True)),
            ).having_prompts(reading)
