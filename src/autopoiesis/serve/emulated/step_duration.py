"""How long a step of the emulated engine takes: the cost model's coefficients as whole picoseconds.

The arithmetic is the event kernel's to the last bit, so that an engine that is emulated and one that is simulated end
their steps at the same instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from autopoiesis.cost import StepTimes
from autopoiesis.simulate.layout import ATTENTION_BITS, NOISE_BITS, SECOND

NO_NOISE = 1 << NOISE_BITS


@dataclass(frozen=True, slots=True)
class StepDuration:
    """Picoseconds of a step by what is in it. A pipeline's stages work on different parts of a batch, and the step
    lasts as long as the largest part times the stages."""

    fixed: int
    prefill_fixed: int
    weights: int
    token: int
    communication: int
    attention: int
    """In 2^-ATTENTION_BITS."""
    context: int
    sequence: int
    stages: int

    @classmethod
    def of(cls, times: StepTimes) -> Self:
        """Rounded from seconds."""

        def whole(seconds: float) -> int:
            return round(seconds * SECOND)

        return cls(
            fixed=whole(times.fixed_s),
            prefill_fixed=whole(times.prefill_fixed_s),
            weights=whole(times.weights_s),
            token=whole(times.token_s),
            communication=whole(times.communication_s),
            attention=whole(times.attention_s * (1 << ATTENTION_BITS)),
            context=whole(times.context_s),
            sequence=whole(times.sequence_s),
            stages=times.stages,
        )

    def decode(self, sequences: int, contexts: int, noise: int) -> int:
        """One token more for each of these sequences, whose tokens are `contexts` in all; `noise` is a factor in
        2^-NOISE_BITS."""
        worked = max(sequences, self.stages)
        time = self.fixed + max(self.weights, self.token * worked) + (self.communication + self.sequence) * worked
        each = self.context * worked // sequences * noise >> NOISE_BITS
        return (time * noise >> NOISE_BITS) + each * contexts

    def mixed(self, chunks: list[tuple[int, int]], sequences: int, contexts: int, noise: int) -> int:
        """The same with prompt chunks: pairs of the chunk's tokens and those before it."""
        squares = [tokens * (2 * before + tokens) for tokens, before in chunks]
        attention = max(sum(squares), self.stages * max(squares))
        worked = max(sum(tokens for tokens, _ in chunks) + sequences, self.stages * max(tokens for tokens, _ in chunks))
        time = self.fixed + self.prefill_fixed + (self.attention * attention >> ATTENTION_BITS)
        time += max(self.weights, self.token * worked) + self.communication * worked
        time += self.context * contexts + self.sequence * sequences
        return time * noise >> NOISE_BITS
