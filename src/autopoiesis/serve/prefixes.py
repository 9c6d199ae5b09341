"""Which replicas should have the beginning of a prompt cached: what was sent where, in bounded memory.

A prompt is known by chained hashes of its leading blocks, and by nothing else. Engines do not say what their caches
hold; a replica is believed to have a block until as many prompt tokens have been sent there since as its KV cache
holds, as in the simulator (`simulate.routers`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate, pairwise

from autopoiesis.serve.replica import Replica

BLOCK_BYTES = 512
"""Length of the first blocks."""
DOUBLING = 8
"""After so many blocks they are twice as long, so that a long prompt costs few hashes."""
MOST_BLOCKS = 64
"""They cover the first mebibyte but for four kibibytes; what comes after is not looked at."""
EXTENTS = tuple(accumulate((BLOCK_BYTES << i // DOUBLING for i in range(MOST_BLOCKS)), initial=0))
"""Bytes of so many blocks."""
_SPANS = tuple(pairwise(EXTENTS))

KV_TOKENS = 100_000
"""What the KV cache of a replica is taken to hold until it is known."""


def blocks(prompt: bytes | memoryview, *, seed: bytes) -> tuple[int, ...]:
    """A hash of 64 bits for each whole block of the prompt, of all up to its end.

    The seed, at most 64 bytes, is a secret: who does not know it cannot make prompts collide. Processes that share
    replicas share it.
    """
    size = len(prompt)
    if size < BLOCK_BYTES:
        return ()
    view = memoryview(prompt)
    hashed = blake2b(key=seed, digest_size=8)
    found: list[int] = []
    for start, end in _SPANS:
        if end > size:
            break
        hashed.update(view[start:end])
        found.append(int.from_bytes(hashed.copy().digest(), "little"))
    return tuple(found)


class PrefixIndex:
    """What was sent where. Of each replica it forgets first what was sent there longest ago, tails before heads, so
    that who has a block has those before it. For one thread."""

    def __init__(self, entries: int) -> None:
        """Keeps that many pairs of a block and a replica, some 200 bytes each."""
        self._entries = entries
        self._held = 0
        self._sent: dict[int, _Sent] = {}

    def __len__(self) -> int:
        """Pairs of a block and a replica."""
        return self._held

    def believed(
        self, blocks: tuple[int, ...], replicas: Sequence[Replica], prompt_tokens: int, prompt_bytes: int
    ) -> list[int]:
        """How many of the prompt's tokens each of the replicas should have cached; empty for no blocks."""
        if not blocks:
            return []
        first = blocks[0]
        sent = self._sent
        cached: list[int] = []
        for replica in replicas:
            there = sent.get(replica.slot)
            if there is None or first not in there.marks:
                cached.append(0)
            else:
                cached.append(prompt_tokens * EXTENTS[there.depth(blocks)] // prompt_bytes)
        return cached

    def remember(self, blocks: tuple[int, ...], slot: int, prompt_tokens: int, prompt_bytes: int) -> None:
        """The prompt is sent to the replica of this slot, to be computed there as far as it is not cached."""
        there = self._sent.get(slot)
        if there is None:
            there = self._sent[slot] = _Sent()
        marks = there.marks
        before = len(marks)
        depth = there.depth(blocks)
        there.routed += prompt_tokens - (prompt_tokens * EXTENTS[depth] // prompt_bytes if depth else 0)
        for block in reversed(blocks):
            marks[block] = there.routed
            marks.move_to_end(block)
        there.expire()
        self._held += len(marks) - before
        while self._held > self._entries:
            fullest = max(self._sent.values(), key=_size)
            fullest.marks.popitem(last=False)
            self._held -= 1

    def resize(self, slot: int, kv_tokens: int) -> None:
        """The KV cache of this slot's replica holds that many tokens."""
        there = self._sent.get(slot)
        if there is None:
            there = self._sent[slot] = _Sent()
        before = len(there.marks)
        there.kv_tokens = kv_tokens
        there.expire()
        self._held += len(there.marks) - before

    def forget(self, slot: int) -> None:
        """The slot's replica is gone or has started anew: its cache is empty, and of a size not known."""
        there = self._sent.pop(slot, None)
        if there is not None:
            self._held -= len(there.marks)


class _Sent:
    """What was sent to one replica."""

    __slots__ = ("kv_tokens", "marks", "routed")

    def __init__(self) -> None:
        self.kv_tokens = KV_TOKENS
        self.routed = 0
        """Prompt tokens sent there that were not believed to be cached there."""
        self.marks: OrderedDict[int, int] = OrderedDict()
        """By block, `routed` as of when it was sent last; oldest first."""

    def depth(self, blocks: tuple[int, ...]) -> int:
        """How many of these leading blocks it has."""
        marks = self.marks
        for i, block in enumerate(blocks):
            if block not in marks:
                return i
        return len(blocks)

    def expire(self) -> None:
        """Forget the blocks since which the cache has been filled anew."""
        marks = self.marks
        oldest = self.routed - self.kv_tokens
        while marks:
            block = next(iter(marks))
            if marks[block] >= oldest:
                break
            del marks[block]


def _size(sent: _Sent) -> int:
    return len(sent.marks)
