"""How many tokens a prompt has, judged by its bytes: the gateway has no tokenizer, but engines report `usage`."""

from __future__ import annotations

LEAST_BYTES_PER_TOKEN = 0.1
MOST_BYTES_PER_TOKEN = 20.0
"""What an engine reports beyond these is taken for these: an image, or a defect."""
HALF_LIFE = 200
"""Requests after which a request counts half."""
PRIOR_TOKENS = 1_000.0
"""Tokens that the first guess counts for."""

_DECAY = 0.5 ** (1 / HALF_LIFE)


class PromptLength:
    """Bytes per token of one model's prompts, as of late: bytes over tokens of all prompts, old ones fading."""

    __slots__ = ("_bytes", "_tokens")

    def __init__(self, bytes_per_token: float = 4.0) -> None:
        """`bytes_per_token` is the first guess."""
        self._tokens = PRIOR_TOKENS
        self._bytes = PRIOR_TOKENS * min(max(bytes_per_token, LEAST_BYTES_PER_TOKEN), MOST_BYTES_PER_TOKEN)

    @property
    def bytes_per_token(self) -> float:
        return self._bytes / self._tokens

    def estimate(self, prompt_bytes: int) -> int:
        """Tokens of a prompt of so many bytes, at least 1."""
        return max(1, round(prompt_bytes * self._tokens / self._bytes))

    def learn(self, prompt_bytes: int, tokens: int) -> None:
        """A prompt of so many bytes had so many tokens, as the engine says. One without bytes tells nothing."""
        if prompt_bytes <= 0:
            return
        likely = min(max(tokens, prompt_bytes / MOST_BYTES_PER_TOKEN), prompt_bytes / LEAST_BYTES_PER_TOKEN)
        self._tokens = self._tokens * _DECAY + likely
        self._bytes = self._bytes * _DECAY + prompt_bytes
