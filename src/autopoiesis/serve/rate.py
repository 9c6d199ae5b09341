"""A limit to how much may be spent per minute, by several processes together."""

from __future__ import annotations


class TokenBucket:
    """Fills with `per_minute` up to `burst`. It is shown what all have spent so far, so that every process that asks
    comes to the same level; spending may be corrected downwards, too, and the level may be below zero.

    What was spent since the last look is taken as spent before the bucket ran over, so each process has to look every
    now and then: together they admit at most the burst, what flows in, and once more what flows in between two looks.
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
        if self._time is not None and now > self._time:
            self._level += (now - self._time) * self._per_s
        self._time = now if self._time is None else max(now, self._time)
        self._level = min(self._burst, self._level - (spent_total - self._spent))
        self._spent = spent_total

    def retry_after_s(self, now: float, spent_total: float, cost: float) -> float:
        """0 where `cost` may be spent now; else how long to wait if nobody else spends.

        What is larger than the bucket may be spent when it is full.
        """
        self.look(now, spent_total)
        missing = min(cost, self._burst) - self._level
        return max(0.0, missing / self._per_s)
