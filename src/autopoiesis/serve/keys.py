"""API keys: known by their hashes alone, with what each may use."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autopoiesis.serve.rate import TokenBucket

if TYPE_CHECKING:
    from autopoiesis.serve.config import KeyConfig

ANONYMOUS = "anonymous"
"""Everybody's name where no keys are configured."""
REQUESTS_BURST = 6.0
"""A key may send a sixth of its requests per minute (ten seconds' worth) at once, and at least one."""


@dataclass(frozen=True, slots=True)
class Key:
    """Whoever sends a request. The buckets hold the levels; what was spent stands on the board."""

    name: str
    index: int
    models: frozenset[str] | None = None
    concurrent: int | None = None
    requests: TokenBucket | None = None
    tokens: TokenBucket | None = None


class KeyRing:
    """The keys of a configuration; without any, everybody is let in."""

    def __init__(self, configs: Sequence[KeyConfig]) -> None:
        self._keys = {config.sha256: _key(index, config) for index, config in enumerate(configs)}
        self._anonymous = None if configs else Key(ANONYMOUS, 0)
        self.limited = tuple(key for key in self._keys.values() if key.requests or key.tokens)
        """Those with a rate."""

    @property
    def names(self) -> tuple[str, ...]:
        """In order of their indexes."""
        return tuple(key.name for key in self._keys.values()) or (ANONYMOUS,)

    def find(self, authorization: bytes | None) -> Key | None:
        """Whose `Authorization` header that is; None if nobody's."""
        if self._anonymous is not None:
            return self._anonymous
        if authorization is None or authorization[:7].lower() != b"bearer ":
            return None
        # To look a hash up takes the same time whatever part of a key was guessed.
        return self._keys.get(hashlib.sha256(authorization[7:].strip()).hexdigest())


def _key(index: int, config: KeyConfig) -> Key:
    requests, tokens = config.requests_per_minute, config.tokens_per_minute
    return Key(
        config.name,
        index,
        None if config.models is None else frozenset(config.models),
        config.concurrent,
        None if requests is None else TokenBucket(requests, max(1.0, requests / REQUESTS_BURST)),
        None if tokens is None else TokenBucket(tokens, tokens),
    )
