"""What is due when."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")


class Agenda(Generic[T]):
    """Entries in order of time; those of one instant in the order in which they were made."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._heap)

    def add(self, at_s: float, entry: T) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at_s, self._count, entry))

    @property
    def due_s(self) -> float:
        """When the next entry is due, infinite if there is none."""
        return self._heap[0][0] if self._heap else float("inf")

    def pop(self) -> T:
        """The next entry; raises IndexError if there is none."""
        return heapq.heappop(self._heap)[2]

    def clear(self) -> list[float]:
        """Forget everything; when each entry would have been due."""
        times_s = [at_s for at_s, _, _ in self._heap]
        self._heap.clear()
        return times_s
