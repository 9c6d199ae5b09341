"""Requests as columns.

One row is one call of a model. Rows of one session form a conversation: its first call arrives at `arrival_s`;
every later call arrives `think_s` after the end of the call before it (closed loop), so its recorded arrival only
says where it stood in the original trace.

A prompt's beginning is known by its prefix blocks: equal ids mean equal prompts up to and including that block, so an
engine that has computed one of them has computed the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from autopoiesis.errors import TraceError

PREFIX_BLOCK_TOKENS = 512
"""Prompt tokens that one prefix block stands for, as in the traces that record them."""


def _no_blocks() -> NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Requests:
    """n requests, sorted by `arrival_s` (stable: equal arrivals keep the order of the file)."""

    arrival_s: NDArray[np.float64]
    """(n,) seconds from the start of the workload. For a later call of a session, its arrival in the recording."""
    model: NDArray[np.int64]
    """(n,) index into the workload's models."""
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    prefix_tokens: NDArray[np.int64]
    """(n,) prompt tokens shared with the call before it in the session; reusable where that call's cache still lies."""
    previous: NDArray[np.int64]
    """(n,) row of the call before it in the session, -1 for a first call or a single request."""
    think_s: NDArray[np.float64]
    """(n,) seconds between the end of the call before it and its own arrival; 0 for a first call."""
    block_start: NDArray[np.int64] = field(default_factory=_no_blocks)
    """(n,) where in `block_ids` the request's own begin; 0 where none are recorded. May be left out with the two other
    attributes of blocks."""
    block_count: NDArray[np.int64] = field(default_factory=_no_blocks)
    """(n,) prefix blocks recorded for the request, at most the full blocks of its prompt; 0 where none are."""
    block_ids: NDArray[np.int64] = field(default_factory=_no_blocks)
    """(k,) ids of prefix blocks, each 0 or more. Those of a request lie together, from the prompt's beginning on."""

    COLUMNS: ClassVar[tuple[str, ...]]
    """The attributes with one value for each request: all but `block_ids`."""

    def __len__(self) -> int:
        return len(self.arrival_s)

    def __post_init__(self) -> None:
        n = len(self.arrival_s)
        if not (self.block_start.size or self.block_count.size or self.block_ids.size):
            # a frozen class is filled in this way; columns of zeros spare every reader of blocks a special case
            object.__setattr__(self, "block_start", np.zeros(n, dtype=np.int64))
            object.__setattr__(self, "block_count", np.zeros(n, dtype=np.int64))
        for name in self.COLUMNS:
            if getattr(self, name).shape != (n,):
                raise TraceError(f"column {name!r} must have one value for each of the {n} requests")
        if n and not np.all(np.diff(self.arrival_s) >= 0):
            raise TraceError("column 'arrival_s' must not run back")
        if n and not np.all(self.previous < np.arange(n)):
            raise TraceError("column 'previous' must point at an earlier row")
        self._check_blocks()

    def _check_blocks(self) -> None:
        if self.block_ids.ndim != 1:
            raise TraceError("'block_ids' must be one flat array for all requests")
        k = len(self.block_ids)
        if np.any(self.block_count < 0) or np.any(self.block_count > self.input_tokens // PREFIX_BLOCK_TOKENS):
            raise TraceError(
                f"column 'block_count' must be from 0 to the full blocks of {PREFIX_BLOCK_TOKENS} prompt tokens"
            )
        if np.any(self.block_start < 0) or np.any(self.block_start > k - self.block_count):
            raise TraceError(f"column 'block_start' must leave room for the request's blocks among the {k} block ids")
        if np.any(self.block_ids < 0):
            raise TraceError("'block_ids' must not be negative")

    def blocks_of(self, rows: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """The three attributes of blocks for the given rows in their order, with the ids of no other row."""
        count = self.block_count[rows]
        start = np.where(count > 0, np.cumsum(count) - count, 0)
        return {
            "block_start": start,
            "block_count": count,
            "block_ids": self.block_ids[spans(self.block_start[rows], count)],
        }

    def take(self, rows: NDArray[np.int64]) -> Requests:
        """The given rows, ascending; a session whose earlier call is left out starts at the call that remains."""
        position = np.full(len(self) + 1, -1, dtype=np.int64)
        position[rows] = np.arange(len(rows))
        previous = position[self.previous[rows]]
        return Requests(
            arrival_s=self.arrival_s[rows],
            model=self.model[rows],
            input_tokens=self.input_tokens[rows],
            output_tokens=self.output_tokens[rows],
            prefix_tokens=np.where(previous >= 0, self.prefix_tokens[rows], 0),
            previous=previous,
            think_s=np.where(previous >= 0, self.think_s[rows], 0.0),
            **self.blocks_of(rows),
        )


Requests.COLUMNS = tuple(attribute.name for attribute in fields(Requests) if attribute.name != "block_ids")


def spans(start: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """(sum of `count`,) the whole numbers from each `start` on, `count` of them, one span after the other."""
    ends = np.cumsum(count)
    return np.arange(count.sum(), dtype=np.int64) + np.repeat(start - ends + count, count)


def single_requests(
    arrival_s: NDArray[np.float64],
    input_tokens: NDArray[np.int64],
    output_tokens: NDArray[np.int64],
    model: int = 0,
) -> Requests:
    """Requests without sessions, from three columns of one model."""
    n = len(arrival_s)
    return Requests(
        arrival_s=np.asarray(arrival_s, dtype=np.float64),
        model=np.full(n, model, dtype=np.int64),
        input_tokens=np.asarray(input_tokens, dtype=np.int64),
        output_tokens=np.asarray(output_tokens, dtype=np.int64),
        prefix_tokens=np.zeros(n, dtype=np.int64),
        previous=np.full(n, -1, dtype=np.int64),
        think_s=np.zeros(n, dtype=np.float64),
    )


def merge(parts: list[Requests]) -> Requests:
    """Several workloads superposed in order of arrival; each part's `model` column must already be its final index.

    Prompts of different parts share no prefix: the ids of each part's blocks begin above those of the parts before.
    """
    apart: list[Requests] = []
    above = 0
    for part in parts:
        apart.append(replace(part, block_ids=part.block_ids + above))
        above = int(apart[-1].block_ids.max(initial=above - 1)) + 1
    return in_order_of_arrival(stacked(apart))


def stacked(parts: Sequence[Requests]) -> dict[str, NDArray[Any]]:
    """The attributes of several workloads of one set of block ids, one after the other in no order of arrival;
    `previous` and `block_start` follow."""
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in Requests.COLUMNS}
    ids = np.concatenate([part.block_ids for part in parts])
    sizes = [len(part) for part in parts]

    def before(lengths: Sequence[int]) -> NDArray[np.int64]:
        return np.repeat(np.cumsum(lengths) - lengths, sizes)

    columns["previous"] = np.where(columns["previous"] >= 0, columns["previous"] + before(sizes), -1)
    moved = columns["block_start"] + before([len(part.block_ids) for part in parts])
    columns["block_start"] = np.where(columns["block_count"] > 0, moved, 0)
    return {**columns, "block_ids": ids}


def in_order_of_arrival(attributes: dict[str, NDArray[Any]]) -> Requests:
    """Attributes of `Requests` with the rows in any order, sorted; equal arrivals keep theirs, `previous` follows its
    row and blocks stay where they lie."""
    order = np.argsort(attributes["arrival_s"], kind="stable")
    position = np.empty(len(order) + 1, dtype=np.int64)
    position[order] = np.arange(len(order))
    position[-1] = -1
    moved = {name: column[order] for name, column in attributes.items() if name in Requests.COLUMNS}
    return Requests(**{**attributes, **moved, "previous": position[moved["previous"]]})
