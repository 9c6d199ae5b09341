"""What an emulated engine says: words of a small fixed vocabulary, drawn from the seed and the prompt.

Every word has as many bytes, its space included, as a token of a prompt counts for. So an answer has as many tokens by
the rule for prompts as it was generated with, and an answer that comes back in the next prompt of a conversation ends
where its KV blocks end.
"""

from __future__ import annotations

import math
import struct

TOKEN_BYTES = 4
"""Bytes of text that count as one token."""
WORDS = (
    b"act add age ago air all and any arm art ask bar bed big box bus but buy can car cup cut day die dry due eat end "
    b"eye far few fit fly for get gas had her his hot how ice key law let lie map may net new now off old one our out "
    b"own pay put red run say see she "
)
VOCABULARY = tuple(WORDS[i : i + TOKEN_BYTES] for i in range(0, len(WORDS), TOKEN_BYTES))
"""64 words."""
MULTIPLIER, INCREMENT, MASK = 6364136223846793005, 1442695040888963407, (1 << 64) - 1
EMBEDDING_NUMBERS = 64


class Words:
    """The endless answer that belongs to a digest of seed and prompt."""

    __slots__ = ("_state",)

    def __init__(self, digest: int) -> None:
        self._state = digest

    def draw(self) -> bytes:
        """The next word. The low bits of such a generator repeat soon; the high ones choose."""
        self._state = (self._state * MULTIPLIER + INCREMENT) & MASK
        return VOCABULARY[self._state >> 58]


def text(digest: int, words: int) -> bytes:
    """The first words of an answer."""
    source = Words(digest)
    return b"".join([source.draw() for _ in range(words)])


def answer_tokens(digest: int, mean: float) -> int:
    """How long an answer gets that nobody limits: geometric with this mean, at least one token."""
    uniform = ((digest * MULTIPLIER + INCREMENT & MASK) >> 11) / (1 << 53)
    if mean <= 1:
        return 1
    return 1 + int(math.log(1 - uniform) / math.log(1 - 1 / mean))


def embedding(digest: int, numbers: int) -> list[float]:
    """A vector of length 1; its numbers are exact in 32 bits."""
    state, raw = digest, []
    for _ in range(numbers):
        state = (state * MULTIPLIER + INCREMENT) & MASK
        raw.append((state >> 40) / (1 << 23) - 1)
    length = math.sqrt(sum(x * x for x in raw)) or 1.0
    return list(struct.unpack(f"{numbers}f", struct.pack(f"{numbers}f", *(x / length for x in raw))))
