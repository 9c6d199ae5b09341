"""Continuous batching without I/O, in whatever time the caller counts: what the engine does, step by step.

The rules are those of the event kernel (`simulate.engine`). A step decodes one token of every running sequence and
fills what is left of the token budget with prompt chunks. Sequences are admitted in order while cap, budget and KV
blocks allow; where blocks run out the sequence admitted last is preempted and recomputed later.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

from autopoiesis.errors import ScenarioError
from autopoiesis.serve.emulated.kv_blocks import KVBlocks, blocks_of
from autopoiesis.serve.emulated.sequence import DECODES, GONE, PREFILLS, WAITING, Sequence
from autopoiesis.serve.emulated.step_duration import NO_NOISE, StepDuration
from autopoiesis.simulate.layout import BLOCK_TOKENS

QUEUE_SLACK = 64
"""Entries of those that are gone, beyond as many as wait, that the queue may keep."""


@dataclass(slots=True)
class Counts:
    """What a batch has done since its beginning."""

    cache_queries: int = 0
    """Prompt tokens for which the prefix cache was asked."""
    cache_hits: int = 0
    preemptions: int = 0
    steps: int = 0


class Batch:
    """The sequences of one engine. `begin` and `end` alternate; sequences come and go at any time."""

    def __init__(
        self,
        duration: StepDuration,
        kv_blocks: int,
        *,
        batched_tokens: int = 8192,
        max_sequences: int = 256,
        caching: bool = True,
        noise: float = 0.0,
        rng: random.Random | None = None,
    ) -> None:
        """`batched_tokens` is the token budget of a step, `max_sequences` how many run at once. With `noise`, the
        relative deviation of step times, `rng` draws a factor whenever the batch changes."""
        self.blocks = KVBlocks(kv_blocks, caching=caching)
        self.counts = Counts()
        self.waiting = 0
        self._duration = duration
        self._batched_tokens = batched_tokens
        self._max_sequences = max_sequences
        self._noise = noise
        self._rng = rng
        self._factor = NO_NOISE
        self._arrivals = 0
        self._admissions = 0
        self._queue: list[tuple[int, int, Sequence]] = []
        """Heap by priority, then age; what is gone meanwhile is skipped."""
        self._decoding: list[Sequence] = []
        self._prefilling: list[Sequence] = []
        """In order of admission."""
        self._contexts = 0
        """Tokens of all sequences that decode."""
        self._growth = [0] * BLOCK_TOKENS
        """Sequences that decode, by the count of steps, modulo a block's tokens, at which they need another block."""
        self._changed = False
        self._now = 0

    @property
    def running(self) -> int:
        return len(self._decoding) + len(self._prefilling)

    @property
    def kv_use(self) -> float:
        """Part of the KV blocks in use, 0 to 1."""
        return self.blocks.used / self.blocks.capacity

    def add(self, sequence: Sequence, now: int) -> None:
        """It waits for its admission. Raises ScenarioError for one that the KV cache could never hold."""
        if blocks_of(sequence.prompt_tokens + sequence.output_tokens) > self.blocks.capacity:
            raise ScenarioError(
                f"{sequence.prompt_tokens} prompt and {sequence.output_tokens} output tokens do not fit into "
                f"{self.blocks.capacity} KV blocks of {BLOCK_TOKENS}; ask for fewer"
            )
        sequence.arrived = now
        sequence.number = self._arrivals
        self._arrivals += 1
        self._wait(sequence)

    def abort(self, sequence: Sequence) -> None:
        """It is gone, with its KV blocks; the step under way lasts as long as it would have."""
        if sequence.state == WAITING:
            self.waiting -= 1
            if len(self._queue) > 2 * self.waiting + QUEUE_SLACK:
                self._queue = [entry for entry in self._queue if entry[2] is not sequence and entry[2].state == WAITING]
                heapq.heapify(self._queue)
        elif sequence.state == PREFILLS:
            self._prefilling.remove(sequence)
            self._release(sequence, sequence.tokens)
        elif sequence.state == DECODES:
            self._decoding.remove(sequence)
            self._leave(sequence)
        sequence.state = GONE
        self._changed = True

    def begin(self, now: int) -> int | None:
        """Form a step that begins now; when it ends, or None where there is nothing to do."""
        self._now = now
        self._changed |= self._form()
        sequences = len(self._decoding)
        if not sequences and not self._prefilling:
            return None
        if self._changed:
            self._factor = self._draw_factor()
            self._changed = False
        if not self._prefilling:
            return now + self._duration.decode(sequences, self._contexts, self._factor)
        budget = max(self._batched_tokens - sequences, 1)
        chunks = []
        for sequence in self._prefilling:
            sequence.chunk = min(sequence.left, budget)
            budget -= sequence.chunk
            chunks.append((sequence.chunk, sequence.tokens - sequence.left))
        return now + self._duration.mixed(chunks, sequences, self._contexts, self._factor)

    def end(self, now: int) -> list[Sequence]:
        """The step is over: those with one token more; the ones that have `ended` hold nothing any more."""
        self.blocks.take(self._growth[self.counts.steps % BLOCK_TOKENS])
        self.counts.steps += 1
        self._contexts += len(self._decoding)
        out = list(self._decoding)
        for sequence in out:
            sequence.generated += 1
            sequence.last = now
            if sequence.generated == sequence.output_tokens:
                sequence.ended = True
        if any(sequence.ended for sequence in out):
            self._changed = True
            self._decoding = [sequence for sequence in out if not sequence.ended]
            for sequence in out:
                if sequence.ended:
                    self._leave(sequence)
                    sequence.state = GONE
        if self._prefilling:
            self._changed = True
            out += self._end_prefills(now)
        return out

    def _end_prefills(self, now: int) -> list[Sequence]:
        """Those whose prompt is in the cache, and whose next token is out."""
        out = []
        for sequence in self._prefilling:
            sequence.left -= sequence.chunk
            sequence.chunk = 0
            if sequence.left:
                continue
            self.blocks.share(sequence.pinned, sequence.keys)
            sequence.generated += 1
            sequence.last = now
            if sequence.first < 0:
                sequence.first = now
            if sequence.generated == sequence.output_tokens:
                sequence.ended = True
                sequence.state = GONE
                self._release(sequence, sequence.tokens - 1)
            else:
                self._join(sequence)
            out.append(sequence)
        self._prefilling = [sequence for sequence in self._prefilling if sequence.left]
        return out

    # --- forming a step -----------------------------------------------------------------------------------------

    def _form(self) -> bool:
        """Admit and preempt until the batch fits; whether it has changed."""
        changed = False
        while True:
            changed |= self._admit()
            preempted = False
            while self.blocks.used + self._growth[self.counts.steps % BLOCK_TOKENS] > self.blocks.capacity:
                self._preempt_newest()
                changed = preempted = True
            # a preemption may have made room for a smaller one that goes first
            if not preempted:
                return changed

    def _admit(self) -> bool:
        budget = self._batched_tokens - len(self._decoding) - sum(sequence.left for sequence in self._prefilling)
        taken = False
        while self._queue and self.running < self._max_sequences and budget > 0:
            sequence = self._queue[0][2]
            if sequence.state == GONE:
                heapq.heappop(self._queue)
                continue
            tokens = sequence.tokens
            # at least one token is left to compute
            cached, idle = self.blocks.find(sequence.keys, (tokens - 1) // BLOCK_TOKENS)
            new = blocks_of(tokens) - cached
            coming = new + idle + self._growth[self.counts.steps % BLOCK_TOKENS]
            if self.blocks.used + coming > self.blocks.capacity:
                break
            heapq.heappop(self._queue)
            self.waiting -= 1
            sequence.state = PREFILLS
            sequence.admission = self._admissions
            self._admissions += 1
            sequence.pinned = self.blocks.pin(sequence.keys[:cached])
            self.blocks.take(new)
            sequence.left = tokens - cached * BLOCK_TOKENS
            if sequence.scheduled < 0:
                sequence.scheduled = self._now
                sequence.cached_tokens = cached * BLOCK_TOKENS
                self.counts.cache_queries += tokens
                self.counts.cache_hits += sequence.cached_tokens
            self._prefilling.append(sequence)
            budget -= sequence.left
            taken = True
        return taken

    def _preempt_newest(self) -> None:
        sequence = max(self._decoding, key=lambda sequence: sequence.admission)
        self._decoding.remove(sequence)
        self._leave(sequence)
        sequence.preemptions += 1
        self.counts.preemptions += 1
        self._wait(sequence)

    def _wait(self, sequence: Sequence) -> None:
        sequence.state = WAITING
        heapq.heappush(self._queue, (sequence.priority, sequence.number, sequence))
        self.waiting += 1

    def _draw_factor(self) -> int:
        if self._rng is None or not self._noise:
            return NO_NOISE
        # a quarter of the mean at least, as in the event kernel
        return max(round(NO_NOISE * self._rng.gauss(1.0, self._noise)), NO_NOISE // 4)

    # --- sequences that decode ----------------------------------------------------------------------------------

    def _join(self, sequence: Sequence) -> None:
        """Its last token has no KV entry yet."""
        sequence.state = DECODES
        self._decoding.append(sequence)
        self._growth[self._phase(sequence)] += 1
        self._contexts += sequence.tokens

    def _leave(self, sequence: Sequence) -> None:
        self._growth[self._phase(sequence)] -= 1
        self._contexts -= sequence.tokens
        self._release(sequence, sequence.tokens - 1)

    def _phase(self, sequence: Sequence) -> int:
        return (self.counts.steps - (sequence.tokens - 1)) % BLOCK_TOKENS

    def _release(self, sequence: Sequence, tokens: int) -> None:
        """Free the blocks of so many tokens; a prompt that has not been computed in full is worth nothing."""
        keys = sequence.keys if sequence.state == DECODES else ()
        if sequence.ended and sequence.continued is not None:
            keys = sequence.continued()
        self.blocks.release(sequence.pinned, blocks_of(tokens), keys)
