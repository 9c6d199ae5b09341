"""Queues of the kernel: a pairing heap threaded through the request records, and binary heaps in arrays.

A pairing heap takes an insertion in constant time and needs no room of its own, so any request can wait anywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autopoiesis.simulate.jit import compiled, inlined
from autopoiesis.simulate.layout import Records, Whole


@inlined
def meld(requests: Records, links: NDArray[np.int32], a: Whole, b: Whole) -> Whole:
    """Two non-empty heaps become one; the smaller key wins, ties go to the smaller sequence number."""
    first = requests[a % len(requests)]
    second = requests[b % len(requests)]
    if second.key < first.key or (second.key == first.key and second.sequence < first.sequence):
        a, b = b, a
    links[b, 1] = links[a, 0]
    links[a, 0] = b
    return a


@inlined
def push(requests: Records, links: NDArray[np.int32], root: Whole, node: Whole) -> Whole:
    """The heap with `node` in it; -1 is the empty heap."""
    links[node, 0] = -1
    links[node, 1] = -1
    return node if root < 0 else meld(requests, links, root, node)


@compiled
def pop(requests: Records, links: NDArray[np.int32], root: Whole) -> Whole:
    """The heap without its root (two-pass pairing)."""
    child = np.int64(links[root, 0])
    links[root, 0] = -1
    pairs = np.int64(-1)
    while child >= 0:
        a = child
        b = np.int64(links[a, 1])
        if b < 0:
            child = np.int64(-1)
            links[a, 1] = pairs
            pairs = a
        else:
            child = np.int64(links[b, 1])
            links[a, 1] = -1
            links[b, 1] = -1
            winner = meld(requests, links, a, b)
            links[winner, 1] = pairs
            pairs = winner
    result = np.int64(-1)
    while pairs >= 0:
        following = np.int64(links[pairs, 1])
        links[pairs, 1] = -1
        result = pairs if result < 0 else meld(requests, links, result, pairs)
        pairs = following
    return result


@inlined
def heap_push(keys: NDArray[np.int64], rows: NDArray[np.int64], size: Whole, key: Whole, row: Whole) -> None:
    """Insert into a binary heap of `size` entries, ordered by (key, row)."""
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        if keys[parent] < key or (keys[parent] == key and rows[parent] < row):
            break
        keys[i] = keys[parent]
        rows[i] = rows[parent]
        i = parent
    keys[i] = key
    rows[i] = row


@inlined
def heap_remove(keys: NDArray[np.int64], rows: NDArray[np.int64], size: Whole, at: Whole) -> None:
    """Remove the entry at index `at` from a heap of `size` entries."""
    last = size - 1
    key = keys[last]
    row = rows[last]
    i = at
    while True:
        child = 2 * i + 1
        if child >= last:
            break
        right = child + 1
        if right < last and (keys[right] < keys[child] or (keys[right] == keys[child] and rows[right] < rows[child])):
            child = right
        if key < keys[child] or (key == keys[child] and row < rows[child]):
            break
        keys[i] = keys[child]
        rows[i] = rows[child]
        i = child
    while i > 0:
        parent = (i - 1) >> 1
        if keys[parent] < key or (keys[parent] == key and rows[parent] < row):
            break
        keys[i] = keys[parent]
        rows[i] = rows[parent]
        i = parent
    keys[i] = key
    rows[i] = row
