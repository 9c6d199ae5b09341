"""From what arrived, ended and waits to a `Window`: the statistics every policy sees.

Called at each monitoring point, on arrays that a simulator or a gateway has at hand; the rows of one class are
brought together by one sort.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.workload.status import Status
from autopoiesis.workload.windows import ClassWindow, Window

Integers = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Arrived:
    """k requests that arrived in the window, in any order, whatever became of them."""

    arrived_class: Integers
    """(k,) index into the labels."""
    arrived_s: Floats
    arrived_input: Integers
    """(k,) prompt tokens."""
    arrived_prefix: Integers
    """(k,) prompt tokens shared with the session's previous call."""

    def __post_init__(self) -> None:
        _check_lengths(self)


@dataclass(frozen=True, slots=True)
class Finished:
    """m requests that ended in the window, one way or another."""

    finished_class: Integers
    finished_output: Integers
    """(m,) tokens; counted for completed requests only."""
    finished_ttft_s: Floats
    finished_tpot_s: Floats
    """(m,) NaN where not defined: one output token or none."""
    finished_status: Integers
    """(m,) `Status` codes."""
    finished_good: NDArray[np.bool_]
    """(m,) within the SLO; counted for completed requests only."""

    def __post_init__(self) -> None:
        _check_lengths(self)


@dataclass(frozen=True, slots=True)
class Backlog:
    """b requests that had arrived and not ended by the window's end."""

    backlog_class: Integers
    backlog_queued: NDArray[np.bool_]
    """(b,) still without a first token."""

    def __post_init__(self) -> None:
        _check_lengths(self)


def summarise(
    index: int,
    start_s: float,
    end_s: float,
    labels: tuple[str, ...],
    arrived: Arrived,
    finished: Finished,
    backlog: Backlog,
) -> Window:
    """The window's statistics per class, in the order of the labels; rates are arrivals ÷ (`end_s` − `start_s`).

    Output lengths, TTFT and TPOT are those of requests that completed in the window. Raises ValueError for a class
    index that has no label or a window without length.
    """
    if not end_s > start_s:
        raise ValueError(f"window {index} must end after its start, not run from {start_s} to {end_s}")
    count = len(labels)
    completed = finished.finished_status == Status.COMPLETED
    arrivals = _counts(arrived.arrived_class, count)
    ended = _counts(finished.finished_class, count)
    done = _counts(finished.finished_class[completed], count)
    good = _counts(finished.finished_class[completed & finished.finished_good], count)
    shed = _counts(finished.finished_class[finished.finished_status == Status.SHED], count)
    lost = _counts(finished.finished_class[finished.finished_status == Status.LOST], count)
    waiting = _counts(backlog.backlog_class, count)
    queued = _counts(backlog.backlog_class[backlog.backlog_queued], count)

    by_arrival = np.argsort(arrived.arrived_class, kind="stable")
    inputs = np.split(arrived.arrived_input[by_arrival], np.cumsum(arrivals)[:-1])
    prefixes = np.split(arrived.arrived_prefix[by_arrival], np.cumsum(arrivals)[:-1])
    by_end = np.flatnonzero(completed)
    by_end = by_end[np.argsort(finished.finished_class[by_end], kind="stable")]
    outputs = np.split(finished.finished_output[by_end], np.cumsum(done)[:-1])
    ttfts = np.split(finished.finished_ttft_s[by_end], np.cumsum(done)[:-1])
    tpots = np.split(finished.finished_tpot_s[by_end], np.cumsum(done)[:-1])

    classes = tuple(
        ClassWindow(
            request_class=labels[c],
            arrivals=int(arrivals[c]),
            rate_rps=float(arrivals[c]) / (end_s - start_s),
            input_mean=_mean(inputs[c]),
            input_p90=nearest_rank(inputs[c], 0.9),
            output_mean=_mean(outputs[c]),
            output_p90=nearest_rank(outputs[c], 0.9),
            prefix_mean=_mean(prefixes[c]),
            completed=int(done[c]),
            good=int(good[c]),
            shed=int(shed[c]),
            lost=int(lost[c]),
            backlog=int(waiting[c]),
            queued=int(queued[c]),
            ttft_p90_s=nearest_rank(_defined(ttfts[c]), 0.9),
            tpot_p90_s=nearest_rank(_defined(tpots[c]), 0.9),
        )
        for c in np.flatnonzero(arrivals + ended + waiting)
    )
    return Window(index, start_s, end_s, classes, dispersion(arrived.arrived_s, start_s, end_s))


def nearest_rank(values: Integers | Floats, q: float) -> float:
    """The smallest value that at least a share `q` of the values does not exceed: rank ⌈q·n⌉; 0.0 for no values.

    Always one of the values, never between two. `values` must hold no NaN; 0 < `q` ≤ 1.
    """
    n = len(values)
    if n == 0:
        return 0.0
    # 0.55 * 100 is a hair more than 55 in binary; without the allowance it would be rank 56.
    rank = min(max(math.ceil(q * n - 1e-9), 1), n)
    return float(np.partition(values, rank - 1)[rank - 1])


def dispersion(arrived_s: Floats, start_s: float, end_s: float) -> float:
    """Variance ÷ mean of arrivals per whole second of the window; 1.0 without arrivals or a second second."""
    seconds = math.floor(end_s - start_s)
    second = np.floor(arrived_s - start_s).astype(np.int64)
    second = second[(second >= 0) & (second < seconds)]
    if seconds < 2 or not len(second):
        return 1.0
    counts = np.bincount(second, minlength=seconds)
    return float(counts.var() / counts.mean())


def _counts(classes: Integers, count: int) -> NDArray[np.int64]:
    if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < count:
        raise ValueError(f"class indices run from {classes.min()} to {classes.max()}, but there are {count} labels")
    return np.bincount(classes, minlength=count).astype(np.int64)


def _mean(values: Integers) -> float:
    return float(values.mean()) if len(values) else 0.0


def _defined(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def _check_lengths(columns: Arrived | Finished | Backlog) -> None:
    shapes = {field.name: getattr(columns, field.name).shape for field in fields(columns)}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"columns must be one-dimensional and equally long, not {shapes}")
