"""The life of an emulated engine in wall time: it loads, serves, sleeps, drains.

There is one timer, for the end of the step under way. Steps follow one another by the engine's own clock however late
the timer fires, so that throughput is the model's; how late the last one was carried out is told by the metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from enum import Enum

from autopoiesis.serve.emulated.answers import Answer
from autopoiesis.serve.emulated.batch import Batch
from autopoiesis.serve.emulated.metrics import Metrics
from autopoiesis.serve.emulated.sequence import Sequence
from autopoiesis.simulate.layout import SECOND

RESOLUTION_S = 0.0005
"""Timers of event loops are good to a millisecond: a step that ends within half of one has ended."""
STEPS_AT_ONCE = 8
"""How many late steps are made up for before sockets are looked at again."""


class Phase(str, Enum):
    """What the engine does."""

    LOADING = "loading"
    SERVING = "serving"
    DRAINING = "draining"


class Engine:
    """A batch that lives by `clock`, `speed` times as fast."""

    def __init__(
        self,
        batch: Batch,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
        speed: float,
    ) -> None:
        self.phase = Phase.LOADING
        self.asleep = False
        self.batch = batch
        self.metrics = metrics
        self._clock = clock
        self._loop = loop
        self._speed = speed
        self._origin_s = clock()
        self._answers: dict[Sequence, Answer] = {}
        self._ends: int | None = None
        """When the step under way ends."""
        self._held: dict[Sequence, None] = {}
        """What has come while the engine sleeps or is about to."""
        self._empty = asyncio.Event()
        """Nothing is left but what is held."""
        self._empty.set()
        self._rests = False

    @property
    def load(self) -> int:
        """Sequences that are not answered in full."""
        return len(self._answers)

    def serve(self) -> None:
        """Loading is over."""
        if self.phase is Phase.LOADING:
            self.phase = Phase.SERVING

    def submit(self, answer: Answer) -> None:
        """Compute what is asked for. Raises ScenarioError, as `Batch.add` does."""
        for sequence in answer.sequences:
            self._answers[sequence] = answer
        if self._rests:
            self._held.update(dict.fromkeys(answer.sequences))
        else:
            self._add(answer.sequences)

    def abort(self, sequences: Iterable[Sequence]) -> None:
        """Their client is gone."""
        for sequence in sequences:
            if self._answers.pop(sequence, None) is not None:
                if sequence in self._held:
                    del self._held[sequence]
                else:
                    self.batch.abort(sequence)
                self.metrics.end(sequence, "abort")
        self._check_empty()

    async def sleep(self, *, abort: bool) -> None:
        """Take no step any more until `wake`: once everything is answered, or at once. The KV cache is lost; who comes
        meanwhile waits."""
        self._rests = True
        if abort:
            for answer in {answer for sequence, answer in self._answers.items() if sequence not in self._held}:
                self.abort(answer.sequences)
                answer.give_up()
        await self._empty.wait()
        # somebody may have woken it meanwhile
        if self._rests:
            self.asleep = True
            self.batch.blocks.forget_idle()

    def wake(self) -> None:
        self.asleep = self._rests = False
        held, self._held = self._held, {}
        self._add(held)

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new, answer what is there, and cut off what is not answered in time."""
        self.phase = Phase.DRAINING
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        for answer in set(self._answers.values()):
            answer.cut()

    # --- steps --------------------------------------------------------------------------------------------------

    def _now(self) -> int:
        """Picoseconds of the engine's own clock."""
        return int((self._clock() - self._origin_s) * self._speed * SECOND)

    def _add(self, sequences: Iterable[Sequence]) -> None:
        """Queue them, and begin a step where none is under way."""
        now = self._now()
        for sequence in sequences:
            self.batch.add(sequence, now)
            self._empty.clear()
        if self._ends is None:
            self._ends = self.batch.begin(now)
            self._await_end()

    def _await_end(self) -> None:
        if self._ends is None:
            return
        due_s = self._origin_s + self._ends / (self._speed * SECOND)
        self._loop.call_later(max(due_s - self._clock(), 0.0), self._end_steps)

    def _end_steps(self) -> None:
        """Carry out the ends of steps that are due, and begin the steps after them at the instants at which they should
        have begun."""
        now = self._now()
        due = now + int(RESOLUTION_S * self._speed * SECOND)
        for _ in range(STEPS_AT_ONCE):
            if self._ends is None or self._ends > due:
                break
            ended = self._ends
            self.metrics.lag_s = max(now - ended, 0) / (self._speed * SECOND)
            self._tell(self.batch.end(ended), ended)
            self._ends = self.batch.begin(ended)
        self._await_end()
        self._check_empty()

    def _tell(self, out: list[Sequence], now: int) -> None:
        self.metrics.step(out, now)
        for sequence in out:
            reason = self._answers[sequence].advance(sequence)
            if reason is not None:
                del self._answers[sequence]
                self.metrics.end(sequence, reason)

    def _check_empty(self) -> None:
        if len(self._answers) == len(self._held):
            self._empty.set()
