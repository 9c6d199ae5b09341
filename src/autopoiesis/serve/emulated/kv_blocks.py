"""The KV cache of an engine: blocks in use, and blocks kept for prompts that begin alike.

Blocks that hold the beginning of a prompt have a key and count once, however many sequences hold them. One that nobody
holds any more is *idle*: it stays until its room is needed, the one idle for longest going first and a sequence's tail
before its head. Blocks that nothing can ask for again queue up among the idle too and delay the others' end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Series
from itertools import islice

from autopoiesis.simulate.layout import BLOCK_TOKENS


def blocks_of(tokens: int) -> int:
    """KV blocks that hold so many tokens."""
    return -(-tokens // BLOCK_TOKENS)


class KVBlocks:
    """So many blocks; without `caching` what is not in use is forgotten. Keys must not be negative."""

    def __init__(self, capacity: int, *, caching: bool = True) -> None:
        self.capacity = capacity
        self.used = 0
        """Held by sequences, those held in common counted once."""
        self.idle = 0
        self._caching = caching
        self._holders: dict[int, int] = {}
        self._idle: OrderedDict[int, int] = OrderedDict()
        """Blocks by key, the first to go first; a negative key stands for blocks that nothing asks for."""
        self._nameless = 0

    def find(self, keys: Series[int], most: int) -> tuple[int, int]:
        """How many of the first `most` keys are cached without a gap, and how many of these are idle."""
        found = idle = 0
        for key in islice(keys, most):
            if key not in self._holders:
                if key not in self._idle:
                    break
                idle += 1
            found += 1
        return found, idle

    def pin(self, keys: Series[int]) -> list[int]:
        """Hold blocks that were found; they are in use from now on."""
        for key in keys:
            if key in self._holders:
                self._holders[key] += 1
            else:
                self._forget(key)
                self._holders[key] = 1
                self.used += 1
        return list(keys)

    def take(self, blocks: int) -> None:
        """Use so many blocks more, in the place of idle ones where there is no other."""
        self.used += blocks
        excess = self.used + self.idle - self.capacity
        while excess > 0 and self._idle:
            key, there = next(iter(self._idle.items()))
            gone = min(there, excess)
            excess -= gone
            if gone == there:
                self._forget(key)
            else:
                self._idle[key] = there - gone
                self.idle -= gone

    def share(self, pinned: list[int], keys: Series[int]) -> None:
        """The blocks with these keys have been computed: those behind `pinned` are held in common from now on.

        From one on that somebody else has computed meanwhile, the sequence keeps its own copies to itself.
        """
        if not self._caching:
            return
        for key in islice(keys, len(pinned), None):
            if key in self._holders or key in self._idle:
                return
            self._holders[key] = 1
            pinned.append(key)

    def release(self, pinned: list[int], blocks: int, keys: Series[int]) -> None:
        """Let go a sequence's blocks, of which `pinned` are held in common; `keys` name all that can be asked for."""
        own = blocks - len(pinned)
        self.used -= own
        if not self._caching:
            return
        kept = [key for key in islice(keys, len(pinned), blocks) if key not in self._holders and key not in self._idle]
        if own > len(kept):
            self._nameless -= 1
            self._let_go(self._nameless, own - len(kept))
        for key in reversed(kept):
            self._let_go(key, 1)
        for key in reversed(pinned):
            self._holders[key] -= 1
            if not self._holders[key]:
                del self._holders[key]
                self.used -= 1
                self._let_go(key, 1)
        pinned.clear()

    def forget_idle(self) -> None:
        """Keep nothing that is not in use."""
        self._idle.clear()
        self.idle = 0

    def _let_go(self, key: int, blocks: int) -> None:
        self._idle[key] = blocks
        self.idle += blocks

    def _forget(self, key: int) -> None:
        self.idle -= self._idle.pop(key)
