"""The kernel's queues, against sorted lists."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from autopoiesis.simulate.layout import REQUEST
from autopoiesis.simulate.queues import heap_push, heap_remove, meld, pop, push


@numba.njit
def drain_queues(requests: Any, links: Any, first: Any, second: Any, taken: Any) -> int:
    """Push both, take one from the first, meld them, take them all."""
    a = b = -1
    for node in first:
        a = push(requests, links, a, node)
    for node in second:
        b = push(requests, links, b, node)
    count = 0
    if a >= 0:
        taken[count] = a
        count += 1
        a = pop(requests, links, a)
    root = b if a < 0 else (a if b < 0 else meld(requests, links, a, b))
    while root >= 0:
        taken[count] = root
        count += 1
        root = pop(requests, links, root)
    return count


@numba.njit
def replay_heap(keys: Any, rows: Any, pushes: Any, removals: Any, removed: Any) -> int:
    """Push (key, row) pairs; before each push remove the entry at the given index, if there is one."""
    size = 0
    count = 0
    for i in range(len(pushes)):
        at = removals[i]
        if 0 <= at < size:
            removed[count, 0] = keys[at]
            removed[count, 1] = rows[at]
            count += 1
            heap_remove(keys, rows, size, at)
            size -= 1
        heap_push(keys, rows, size, pushes[i, 0], pushes[i, 1])
        size += 1
    return size


def records(keys: list[float]) -> NDArray[Any]:
    requests = np.zeros(len(keys), dtype=REQUEST)
    requests["key"] = keys
    requests["sequence"] = np.arange(len(keys))[::-1]
    return requests


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, float("inf"), -5.5]), min_size=1, max_size=40), st.data())
def test_a_queue_gives_smaller_keys_first_and_among_equals_smaller_sequence_numbers(
    keys: list[float], data: st.DataObject
) -> None:
    n = len(keys)
    requests, links = records(keys), np.full((3 * n, 2), -1, dtype=np.int32)
    # a row may wait in several queues, as another node in each
    nodes = [row + n * data.draw(st.integers(0, 2)) for row in data.draw(st.permutations(range(n)))]
    cut = data.draw(st.integers(0, n))
    taken = np.zeros(n, dtype=np.int64)
    count = drain_queues(
        requests, links, np.array(nodes[:cut], dtype=np.int64), np.array(nodes[cut:], dtype=np.int64), taken
    )

    def order(node: int) -> tuple[float, int]:
        return float(requests["key"][node % n]), int(requests["sequence"][node % n])

    assert count == n
    least = min(nodes[:cut], key=order) if cut else -1
    rest = sorted((node for node in nodes if node != least), key=order)
    assert taken.tolist() == ([least] if cut else []) + rest


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 8)), min_size=1, max_size=60))
def test_a_binary_heap_stays_a_heap_whatever_is_removed(steps: list[tuple[int, int]]) -> None:
    n = len(steps)
    keys, rows, removed = np.zeros(n, np.int64), np.zeros(n, np.int64), np.full((n, 2), -1, np.int64)
    pushes = np.array([(key, row) for row, (key, _) in enumerate(steps)], dtype=np.int64)
    size = replay_heap(keys, rows, pushes, np.array([at for _, at in steps], dtype=np.int64), removed)
    entries = list(zip(keys[:size].tolist(), rows[:size].tolist(), strict=True))
    for i in range(1, size):
        assert entries[(i - 1) // 2] < entries[i]
    gone = [tuple(pair) for pair in removed.tolist() if pair[1] >= 0]
    assert sorted(entries + gone) == sorted(map(tuple, pushes.tolist()))
