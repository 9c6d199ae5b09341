"""The requests of one model that wait for a replica, in the order in which they are offered.

Larger priority first, and among equals the older. Whoever waits there for `patience_s` goes before all others, by age:
so that whatever priorities a policy gives, nobody starves. Those behind one that must go on waiting wait with it.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

Item = TypeVar("Item")

_Entry = tuple[float, float, int]
"""Minus the priority, since when, a number that tells entries apart."""


class Waiting(Generic[Item]):
    """A queue of items, each of which waits at most once. An operation costs O(log n), spread over many."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._numbers = count()
        self._heap: list[_Entry] = []
        self._by_age: list[tuple[float, int]] = []
        self._items: dict[int, Item] = {}
        self._entries: dict[int, _Entry] = {}
        """By the identity of an item that waits."""

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: Item) -> bool:
        return id(item) in self._entries

    def push(self, item: Item, priority: float, since: float) -> None:
        """Let an item wait that does not wait yet; `priority` is finite."""
        entry = (-priority, since, next(self._numbers))
        self._items[entry[2]] = item
        self._entries[id(item)] = entry
        heappush(self._heap, entry)
        heappush(self._by_age, entry[1:])

    def remove(self, item: Item) -> None:
        """The item does not wait any longer; nothing happens if it does not wait."""
        entry = self._entries.pop(id(item), None)
        if entry is None:
            return
        del self._items[entry[2]]
        if len(self._heap) > 2 * len(self._items) + 16:
            self._heap = list(self._entries.values())
            heapify(self._heap)
        if len(self._by_age) > 2 * len(self._items) + 16:
            self._by_age = [entry[1:] for entry in self._entries.values()]
            heapify(self._by_age)

    def head(self, now: float) -> Item | None:
        """Whoever is offered next; None if nobody waits."""
        entry = self._first(now)
        return None if entry is None else self._items[entry[2]]

    def must_queue(self, priority: float, since: float, now: float) -> bool:
        """Whether a newcomer has its place behind the head."""
        entry = self._first(now)
        if entry is None:
            return False
        return now - entry[1] >= self._patience_s or entry[:2] <= (-priority, since)

    def _first(self, now: float) -> _Entry | None:
        while self._by_age and self._by_age[0][1] not in self._items:
            heappop(self._by_age)
        while self._heap and self._heap[0][2] not in self._items:
            heappop(self._heap)
        if not self._heap:
            return None
        since, number = self._by_age[0]
        if now - since >= self._patience_s:
            return self._entries[id(self._items[number])]
        return self._heap[0]
