"""A recorded workload at another load, and its beginning.

Load is changed by drawing more or fewer copies of what was recorded, never by compressing time: a burst keeps its
length, a conversation its pace, and only their number changes.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from autopoiesis.errors import ScenarioError
from autopoiesis.workload.requests import Requests, in_order_of_arrival, spans


def resample(requests: Requests, factor: float, window_s: float, rng: np.random.Generator) -> Requests:
    """`factor` times the load: every session and single request gets Poisson(factor) copies, new sessions of their own.

    Each copy is shifted as a whole by a uniform draw from ± `window_s` / 2. A start that would fall outside the trace
    is reflected at its edge, so that nothing piles up there; the later calls of a session keep their distance to its
    start, and so their recorded arrivals may stand up to `window_s` / 2 after the end of the trace.

    A copy says other things than the original: prefix blocks that no other session or single request uses get ids of
    their own in every copy but the first. Blocks that several use, such as a system prompt, stay the same in all.

    Raises ScenarioError unless both numbers are finite and not negative.
    """
    for name, value in (("factor", factor), ("window_s", window_s)):
        if not (math.isfinite(value) and value >= 0):
            raise ScenarioError(f"{name} of a resampled load must be a number of 0 or more, not {value!r}")
    if not len(requests):
        return requests
    first = first_calls(requests.previous)
    rows = np.argsort(first, kind="stable")  # session by session, each session's in order
    starts = np.flatnonzero(np.diff(first[rows], prepend=-1))
    sizes = np.diff(starts, append=len(rows))

    copies = rng.poisson(factor, len(starts))
    copied = np.repeat(np.arange(len(starts)), copies)
    shift_s = rng.uniform(-window_s / 2, window_s / 2, len(copied))
    start_s = requests.arrival_s[rows[starts[copied]]]
    shifted_s = _reflected(start_s + shift_s, float(requests.arrival_s[-1]))

    size = sizes[copied]
    begins = np.cumsum(size) - size
    source = rows[spans(starts[copied], size)]
    # Distance from the start first: adding it cannot reorder a session, whatever is rounded.
    arrival_s = np.repeat(shifted_s, size) + (requests.arrival_s[source] - np.repeat(start_s, size))

    place_in_session = np.empty(len(rows), dtype=np.int64)
    place_in_session[rows] = np.arange(len(rows)) - np.repeat(starts, sizes)
    previous = requests.previous[source]
    previous = np.where(previous >= 0, np.repeat(begins, size) + place_in_session[previous], -1)

    columns = {name: getattr(requests, name)[source] for name in Requests.COLUMNS}
    blocks = _blocks_of_copies(requests, rows, sizes, source, copied) if len(requests.block_ids) else {}
    return in_order_of_arrival({**columns, **blocks, "arrival_s": arrival_s, "previous": previous})


def head(requests: Requests, until_s: float) -> Requests:
    """The calls whose recorded arrival is before `until_s`; sessions are cut there."""
    return requests.take(np.arange(np.searchsorted(requests.arrival_s, until_s, side="left"), dtype=np.int64))


def first_calls(previous: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) the row of the first call of each row's session, by doubling jumps: log2 of the longest session rounds."""
    first = np.where(previous >= 0, previous, np.arange(len(previous)))
    while True:
        further = first[first]
        if np.array_equal(further, first):
            return first
        first = further


def _blocks_of_copies(
    requests: Requests,
    rows: NDArray[np.int64],
    sizes: NDArray[np.int64],
    source: NDArray[np.int64],
    copied: NDArray[np.int64],
) -> dict[str, NDArray[np.int64]]:
    """The three attributes of blocks for copies of sessions.

    `rows` lists the recorded requests session by session, each session's `sizes` of them; `source` is the recorded
    request of each row of the copies, `copied` the session of each copy, ascending.
    """
    distinct, code = np.unique(requests.block_ids, return_inverse=True)
    coded = replace(requests, block_ids=code.astype(np.int64, copy=False))

    uses = coded.blocks_of(rows)
    user = np.repeat(np.repeat(np.arange(len(sizes)), sizes), uses["block_count"])
    first, last = np.full(len(distinct), -1), np.full(len(distinct), -2)
    # users ascend, and of several values given to one place the last one stays
    last[uses["block_ids"]] = user
    first[uses["block_ids"][::-1]] = user[::-1]

    private = np.flatnonzero(first == last)
    owner = first[private]
    rank = np.full(len(distinct), -1, dtype=np.int64)
    rank[private[np.argsort(owner, kind="stable")]] = np.arange(len(private))
    blocks_owned = np.bincount(owner, minlength=len(sizes))

    repeated = np.diff(copied, prepend=-1) == 0
    fresh = np.where(repeated, blocks_owned[copied], 0)
    # ranks and copies both ascend with the session, so no two copies come to the same id
    above = distinct[-1] + 1 + np.cumsum(fresh) - fresh

    blocks = coded.blocks_of(source)
    codes = blocks["block_ids"]
    uses_of_copy = np.add.reduceat(blocks["block_count"], np.cumsum(sizes[copied]) - sizes[copied])
    own = np.repeat(repeated, uses_of_copy) & (rank[codes] >= 0)
    blocks["block_ids"] = np.where(own, rank[codes] + np.repeat(above, uses_of_copy), distinct[codes])
    return blocks


def _reflected(time_s: NDArray[np.float64], end_s: float) -> NDArray[np.float64]:
    """Times folded into [0, `end_s`], as often as it takes."""
    if end_s <= 0:
        return np.zeros_like(time_s)
    return np.clip(end_s - np.abs(np.mod(time_s, 2 * end_s) - end_s), 0.0, end_s)
