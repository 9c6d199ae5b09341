"""A limit to how much may be spent per minute, by several processes together."""

from __future__ import annotations


class TokenBucket:
    """Fills with `per_minute` up to `burst`. It is shown what all have spent so far; spending may be corrected, and the
    level may be below zero.

    What was spent since the last look is taken as spent just now, so that no process has more in its bucket than there
    is: whoever asks, and however seldom, together they admit the burst and what flows in. A process has less, by what
    was spent between two looks at most, so each has to look every now and then.
    """

    __slots__ = ("_burst", "_level", "_per_s", "_spent", "_time")

    def __init__(self, per_minute: float, burst: float) -> None:
        self._per_s = per_minute / 60.0
        self._burst = burst
        self._level = burst
        self._spent = 0.0
        self._time: float | None = None

    def look(self, now: float, spent_total: float) -> None:
        """Bring the level up to date."""
        if self._time is None:
            # Nobody knows when that was spent: a process that begins late begins with what must be left.
            self._level = max(0.0, self._burst - spent_total)
            self._time = now
        else:
            filled = min(self._burst, self._level + max(0.0, now - self._time) * self._per_s)
            self._level = min(self._burst, filled - (spent_total - self._spent))
            self._time = max(now, self._time)
        self._spent = spent_total

    def retry_after_s(self, now: float, spent_total: float, cost: float) -> float:
        """0 where `cost` may be spent now; else how long to wait if nobody else spends.

        What is larger than the bucket may be spent when it is full.
        """
        self.look(now, spent_total)
        missing = min(cost, self._burst) - self._level
        return max(0.0, missing / self._per_s)
