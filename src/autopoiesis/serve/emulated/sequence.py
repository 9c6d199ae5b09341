"""A prompt and its answer in the engine: how far they have come and which KV blocks they hold."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Series

from autopoiesis.errors import ScenarioError


class Sequence:
    """What is asked of the engine once. Times are picoseconds of the engine's clock."""

    __slots__ = (
        "admission", "arrived", "cached_tokens", "chunk", "continued", "ended", "first", "generated", "keys", "last",
        "left", "number", "output_tokens", "pinned", "preemptions", "previous", "priority", "prompt_tokens",
        "scheduled", "state",
    )  # fmt: skip

    def __init__(
        self,
        prompt_tokens: int,
        output_tokens: int,
        keys: Series[int] = (),
        *,
        priority: int = 0,
        continued: Callable[[], Series[int]] | None = None,
    ) -> None:
        """`keys` name the full KV blocks of the prompt: equal keys, equal beginnings. `continued` gives, once all
        tokens are out, those of prompt and answer, with which a later prompt may begin. Raises ScenarioError for a
        prompt or an answer without a token."""
        if min(prompt_tokens, output_tokens) < 1:
            raise ScenarioError(
                f"a sequence needs a prompt and an answer, not {prompt_tokens} and {output_tokens} tokens"
            )
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.keys = keys
        self.priority = priority
        """Smaller goes first."""
        self.continued = continued
        self.number = -1
        """Order of arrival."""
        self.admission = -1
        """Order of the last admission: the newest is preempted first."""
        self.generated = 0
        """Tokens that are out."""
        self.left = 0
        """Tokens still to prefill …"""
        self.chunk = 0
        """… and of these, in the step under way."""
        self.pinned: list[int] = []
        """Of its keys, the first ones: blocks that it holds in common with others."""
        self.cached_tokens = 0
        """Of the prompt, found cached when it was admitted first."""
        self.preemptions = 0
        self.state = WAITING
        self.arrived = 0
        self.scheduled = -1
        """First admission; -1 before."""
        self.first = -1
        """First token; -1 before."""
        self.last = -1
        """Last token so far …"""
        self.previous = -1
        """… and the one before it, once that has been counted."""
        self.ended = False
        """All tokens are out."""

    @property
    def tokens(self) -> int:
        """Prompt and what is out of the answer."""
        return self.prompt_tokens + self.generated


WAITING, PREFILLS, DECODES, GONE = range(4)
"""Where a sequence is."""
