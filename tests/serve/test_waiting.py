"""The queue of requests that wait, against a sorted list."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.serve.waiting import Waiting

PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    priority: float
    since: float
    number: int


class Naive:
    """What the queue promises, written down as slowly as it is said."""

    def __init__(self) -> None:
        self.waiters: list[Waiter] = []

    def head(self, now: float) -> Waiter | None:
        patient = sorted(self.waiters, key=lambda w: (-w.priority, w.since, w.number))
        by_age = sorted(self.waiters, key=lambda w: (w.since, w.number))
        if by_age and now - by_age[0].since >= PATIENCE_S:
            return by_age[0]
        return patient[0] if patient else None


priorities = st.sampled_from([0.0, 1.0, 2.0]) | st.floats(-1e9, 1e9)
steps = st.lists(
    st.tuples(st.sampled_from(["come", "serve", "leave", "back"]), priorities, st.floats(0, 3), st.integers(0, 30)),
    max_size=80,
)


@given(steps)
def test_who_is_offered_next_is_who_comes_first_in_a_sorted_list(steps: list[tuple[str, float, float, int]]) -> None:
    queue: Waiting[Waiter] = Waiting(PATIENCE_S)
    naive = Naive()
    now = 0.0
    for number, (step, priority, passed, which) in enumerate(steps):
        now += passed
        if step in ("come", "back"):  # one whom a replica has failed comes back with its age
            waiter = Waiter(priority, now - (which if step == "back" else 0), number)
            queue.push(waiter, waiter.priority, waiter.since)
            naive.waiters.append(waiter)
        elif naive.waiters:
            waiter = naive.waiters[which % len(naive.waiters)]
            if step == "serve":
                first = queue.head(now)
                assert first is not None
                waiter = first
            queue.remove(waiter)
            naive.waiters.remove(waiter)
            assert waiter not in queue
        assert queue.head(now) is naive.head(now)
        assert len(queue) == len(naive.waiters)
        assert all(waiter in queue for waiter in naive.waiters)


@given(steps, priorities)
def test_a_newcomer_queues_exactly_if_it_would_not_be_offered_first(
    steps: list[tuple[str, float, float, int]], priority: float
) -> None:
    queue: Waiting[Waiter] = Waiting(PATIENCE_S)
    naive = Naive()
    now = 0.0
    for number, (_, theirs, passed, _) in enumerate(steps):
        now += passed
        naive.waiters.append(Waiter(theirs, now, number))
        queue.push(naive.waiters[-1], theirs, now)
    newcomer = Waiter(priority, now, len(steps))
    must = queue.must_queue(priority, now, now)
    naive.waiters.append(newcomer)
    assert must == (naive.head(now) is not newcomer)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=60), st.integers(0, 59))
def test_nobody_starves_whatever_priorities_the_others_have(arrivals: list[int], unlucky: int) -> None:
    """One is served a second; more important ones keep coming."""
    queue: Waiting[Waiter] = Waiting(PATIENCE_S)
    unlucky = min(unlucky, len(arrivals) - 1)
    number = ahead = 0
    victim: Waiter | None = None
    for second in range(len(arrivals) + int(PATIENCE_S) + sum(arrivals)):
        for _ in range(arrivals[second] if second < len(arrivals) else 4):
            number += 1
            waiter = Waiter(1e9, float(second), number)
            queue.push(waiter, waiter.priority, waiter.since)
        if second == unlucky:
            ahead = len(queue)
            victim = Waiter(-1e9, float(second), number)
            queue.push(victim, victim.priority, victim.since)
        first = queue.head(float(second))
        assert first is not None
        queue.remove(first)
        if first is victim:
            # All that were there before it, and no more than that once its patience is over.
            assert second - unlucky <= PATIENCE_S + ahead
            return
    raise AssertionError("it was never served")


def test_those_who_have_gone_leave_nothing_behind_one_who_stays() -> None:
    queue: Waiting[Waiter] = Waiting(1e9)
    stays = Waiter(1e9, 0.0, 0)
    queue.push(stays, stays.priority, stays.since)

    def come_and_go(times: int) -> int:
        for number in range(times):
            waiter = Waiter(0.0, 1.0, number)
            queue.push(waiter, waiter.priority, waiter.since)
            queue.remove(waiter)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = come_and_go(100)
        assert come_and_go(5_000) - before < 10_000
    finally:
        tracemalloc.stop()
    assert queue.head(2.0) is stays


def test_to_remove_one_that_does_not_wait_changes_nothing() -> None:
    queue: Waiting[Waiter] = Waiting(PATIENCE_S)
    waiter = Waiter(0.0, 0.0, 0)
    queue.remove(waiter)
    queue.push(waiter, 0.0, 0.0)
    queue.remove(waiter)
    queue.remove(waiter)
    assert len(queue) == 0
    assert queue.head(0.0) is None
