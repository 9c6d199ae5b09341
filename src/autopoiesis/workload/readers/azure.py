"""Azure's inference traces of 2023 (one hour), 2024 (a week) and 2025 (multimodal).

They have the same three columns; that of 2025 counts images too, whose tokens are part of `ContextTokens`. The times of
2023 have no offset, those of 2024 one of +00:00, with a fraction of a second or none.
Source: github.com/Azure/AzurePublicDataset, `AzureLLMInferenceDataset2023.md`, `…2024.md`, `AzureLMM…2025.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autopoiesis.workload.cells import numbers, timestamps
from autopoiesis.workload.readers.recorded import Calls, Order, Reading, lengths, numbered, tokens
from autopoiesis.workload.table import Table

TIME, INPUT, OUTPUT = "TIMESTAMP", "ContextTokens", "GeneratedTokens"


@dataclass(frozen=True, slots=True)
class Azure:
    """`TIMESTAMP,ContextTokens,GeneratedTokens`."""

    name: str = "Azure"
    marks: tuple[str, ...] = (TIME, INPUT, OUTPUT)
    others: tuple[str, ...] = ()
    order: Order = Order.NEARLY
    step_s: float = 0.0

    def read(self, given: Table, reading: Reading) -> Iterator[Calls]:
        origin: int | None = None
        for block in given.blocks():
            moments = timestamps(given, block, TIME)
            # Nanoseconds stay whole until the first is taken off: as float seconds since 1970 they lose digits.
            origin = int(moments[0]) if origin is None else origin
            yield Calls(
                lines=numbered(block.lines),
                arrival_s=(moments - origin) / 1e9,
                input_tokens=lengths(numbers(given, block, tokens(INPUT, 0))),
                output_tokens=lengths(numbers(given, block, tokens(OUTPUT, 0))),
            ).having_prompts(reading)
