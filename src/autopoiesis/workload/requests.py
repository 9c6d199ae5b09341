"""Requests as columns.

One row is one call of a model. Rows of one session form a conversation: its first call arrives at `arrival_s`;
every later call arrives `think_s` after the end of the call before it (closed loop), so its recorded arrival only
says where it stood in the original trace.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from autopoiesis.errors import TraceError


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

    def __len__(self) -> int:
        return len(self.arrival_s)

    def __post_init__(self) -> None:
        n = len(self.arrival_s)
        for column in fields(self):
            if getattr(self, column.name).shape != (n,):
                raise TraceError(f"column {column.name!r} must have one value for each of the {n} requests")
        if n and not np.all(np.diff(self.arrival_s) >= 0):
            raise TraceError("column 'arrival_s' must not run back")
        if n and not np.all(self.previous < np.arange(n)):
            raise TraceError("column 'previous' must point at an earlier row")

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
        )


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
    """Several workloads superposed in order of arrival; each part's `model` column must already be its final index."""
    offsets = np.cumsum([0] + [len(part) for part in parts])
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in Requests.__slots__}
    columns["previous"] = np.concatenate(
        [np.where(part.previous >= 0, part.previous + offset, -1) for part, offset in zip(parts, offsets, strict=False)]
    )
    order = np.argsort(columns["arrival_s"], kind="stable")
    position = np.empty(len(order) + 1, dtype=np.int64)
    position[order] = np.arange(len(order))
    position[-1] = -1
    columns = {name: column[order] for name, column in columns.items()}
    columns["previous"] = position[columns["previous"]]
    return Requests(**columns)
