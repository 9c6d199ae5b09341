"""Prompts: how many tokens they count, which KV blocks they begin with, and the digest that their answer is drawn from.

Text counts a token for every four bytes, begun ones included; a list of token ids counts its entries.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from autopoiesis.serve.emulated.sequence import Sequence
from autopoiesis.serve.emulated.words import TOKEN_BYTES, text
from autopoiesis.simulate.layout import BLOCK_TOKENS

BLOCK_BYTES = BLOCK_TOKENS * TOKEN_BYTES
KEY_MASK = (1 << 62) - 1


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the engine knows it. Raises ValueError for an empty one."""

    content: bytes | array[int]
    digest: int

    @property
    def tokens(self) -> int:
        if isinstance(self.content, bytes):
            return -(-len(self.content) // TOKEN_BYTES)
        return len(self.content)

    def sequence(self, output_tokens: int, priority: int = 0) -> Sequence:
        """What is asked of the engine: this prompt with so long an answer."""
        return Sequence(
            self.tokens,
            output_tokens,
            block_keys(self.content),
            priority=priority,
            continued=partial(self._continued, output_tokens) if isinstance(self.content, bytes) else None,
        )

    def _continued(self, output_tokens: int) -> list[int]:
        """The last token of an answer has no KV entry."""
        assert isinstance(self.content, bytes)
        return block_keys(padded(self.content) + text(self.digest, output_tokens - 1))


def text_prompt(content: bytes, seed: int) -> Prompt:
    return Prompt(content, _digest(content, seed))


def ids_prompt(ids: array[int], seed: int) -> Prompt:
    return Prompt(ids, _digest(ids.tobytes(), seed))


def chat_prompt(messages: Iterable[tuple[str, bytes]], seed: int) -> Prompt:
    """Messages, as roles and contents, by the engine's template: each begins with its role on a line and is padded to
    whole tokens, and the answer's role stands at the end. So a conversation that goes on begins with all there was."""
    parts = [padded(f"<{role}>\n".encode(errors="replace") + content) for role, content in messages]
    return text_prompt(b"".join(parts) + b"<assistant>\n", seed)


def padded(content: bytes) -> bytes:
    """With spaces to whole tokens."""
    return content + b" " * (-len(content) % TOKEN_BYTES)


def block_keys(content: bytes | array[int]) -> list[int]:
    """A key for every full block: equal if, and but for one in 2⁶² only if, all up to and including it is equal."""
    size = BLOCK_BYTES if isinstance(content, bytes) else BLOCK_TOKENS
    keys = []
    key = size
    for end in range(size, len(content) + 1, size):
        part = content[end - size : end]
        key = hash((key, part if isinstance(part, bytes) else part.tobytes())) & KEY_MASK
        keys.append(key)
    return keys


def _digest(content: bytes, seed: int) -> int:
    word = hashlib.blake2b(content, digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(word, "little")
