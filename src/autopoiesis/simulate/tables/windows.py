"""A row for every window of a run and each of: everything, a model, a request class.

Windows are those that the policies were shown, cut from the kernel's logs where the run cut them; the last one ends
with the run. In paper mode a window is the stretch in which its batch was planned for, moved for and served.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.simulate.layout import SECOND
from autopoiesis.simulate.marks import Mark
from autopoiesis.simulate.run import Run
from autopoiesis.simulate.tables.columns import Count, Measure, Seconds, Table, Text
from autopoiesis.simulate.views import good_rows, latencies
from autopoiesis.workload.classes import BUCKETS
from autopoiesis.workload.status import Status
from autopoiesis.workload.synopsis import nearest_rank

ALL = "all"
"""Stands for every model, and for every class of a model."""
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True)
class WindowTable(Table):
    """Ordered by window, then model, then class; every window has the same models and classes.

    Columns from `gpus` on speak of the whole cluster and have values in the rows of all models only.
    """

    window: Count
    start_s: Seconds
    end_s: Seconds
    model: Text
    """Or `ALL`."""
    request_class: Text
    """Or `ALL`."""
    arrivals: Count
    completed: Count
    good: Count
    lost: Count
    shed: Count
    rejected: Count
    backlog: Count
    """Arrived and not ended when the window ended."""
    queue_mean: Measure
    """Requests that had arrived and had neither a first token nor ended: mean over the window's time."""
    queue_peak: Count
    input_tokens: Count
    """Of the requests that arrived."""
    output_tokens: Count
    """Of the requests that completed."""
    ttft_p50_s: Seconds
    ttft_p90_s: Seconds
    ttft_p99_s: Seconds
    tpot_p50_s: Seconds
    tpot_p90_s: Seconds
    tpot_p99_s: Seconds
    gpus: Measure
    """Held: mean over the window's time."""
    gpu_hours: Measure
    cost_usd: Measure
    scheduling_s: Seconds
    """The policy computed, and no transition was under way."""
    reconfiguration_s: Seconds
    """A transition was under way."""
    reschedules: Measure
    """Transitions that changed something and were done in this window."""
    plan: Text
    """Where the deployment was, or was going to, when the window ended."""
    policy: Text
    """Identity of the policy at work when the window ended."""


@dataclass(frozen=True)
class _Log:
    """All requests of a run in the order of their arrivals and of their ends, each in its window."""

    arrived: NDArray[np.int64]
    arrived_in: NDArray[np.int64]
    finished: NDArray[np.int64]
    finished_in: NDArray[np.int64]
    left: NDArray[np.int64]
    """(n,) by row: picoseconds of the first token, or of the end of one that got none."""
    left_in: NDArray[np.int64]
    """(n,) by row: the window of that instant."""
    edges: NDArray[np.int64]
    """(w + 1,) picoseconds."""


def window_table(run: Run, together: int = 1) -> WindowTable:
    """The windows of a finished run, or stretches of so many windows each; the last stretch may have fewer."""
    marks = [run.marks[min(last, len(run.marks)) - 1] for last in range(together, len(run.marks) + together, together)]
    log = _log(run, marks)
    windows = len(log.edges) - 1
    scopes = list(_scopes(run))
    names = [column.name for column in fields(WindowTable)]
    cluster = _cluster(marks, log.edges)
    blank = {name: np.full(windows, "" if values.dtype.kind == "U" else np.nan) for name, values in cluster.items()}
    parts: list[dict[str, NDArray[Any]]] = []
    for model, label, classes in scopes:
        parts.append(
            {
                "window": np.arange(windows),
                "start_s": log.edges[:-1] / SECOND,
                "end_s": log.edges[1:] / SECOND,
                "model": np.full(windows, model),
                "request_class": np.full(windows, label),
                **_traffic(run, log, classes),
                **(cluster if model == ALL else blank),
            }
        )
    order = np.argsort(np.tile(np.arange(windows), len(parts)), kind="stable")
    return WindowTable(**{name: np.concatenate([part[name] for part in parts])[order] for name in names})


def _scopes(run: Run) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Model, class and which classes they cover: all, then per model all of it and each of its classes that came."""
    simulation = run.world.simulation
    came = np.zeros(len(simulation.labels), dtype=np.bool_)
    came[simulation.state.requests["request_class"]] = True
    of_model = np.arange(len(came)) // len(BUCKETS)
    yield ALL, ALL, came
    for position, model in enumerate(simulation.models):
        yield model, ALL, came & (of_model == position)
        for index in np.flatnonzero(came & (of_model == position)):
            yield model, simulation.labels[index], np.arange(len(came)) == index


def _log(run: Run, marks: list[Mark]) -> _Log:
    state = run.world.simulation.state
    windows = np.arange(len(marks))
    arrived = state.arrived[: marks[-1].arrived if marks else 0].astype(np.int64)
    finished = state.finished[: marks[-1].finished if marks else 0].astype(np.int64)
    arrived_in = np.repeat(windows, np.diff([0, *(mark.arrived for mark in marks)]))
    edges = np.array([0, *(mark.at for mark in marks)], dtype=np.int64)
    first = state.requests["first"]
    left = np.where(first >= 0, first, state.requests["done"])
    left_in = np.zeros(len(left), dtype=np.int64)
    left_in[arrived] = arrived_in
    # what ends at the very instant at which its batch came belongs to that batch's window
    left_in = np.maximum(left_in, np.searchsorted(edges[1:], left, side="left"))
    return _Log(
        arrived,
        arrived_in,
        finished,
        np.repeat(windows, np.diff([0, *(mark.finished for mark in marks)])),
        left,
        left_in,
        edges,
    )


def _traffic(run: Run, log: _Log, classes: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    simulation = run.world.simulation
    requests = simulation.state.requests
    windows = len(log.edges) - 1
    came = classes[requests["request_class"][log.arrived]]
    arrived, arrived_in = log.arrived[came], log.arrived_in[came]
    went = classes[requests["request_class"][log.finished]]
    finished, finished_in = log.finished[went], log.finished_in[went]
    status = requests["status"][finished]

    def ended(of: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(finished_in[of], minlength=windows)

    completed = status == Status.COMPLETED
    answered, answered_in = finished[completed], finished_in[completed]
    arrivals = np.bincount(arrived_in, minlength=windows)
    queue_mean, queue_peak = _queue(
        log.edges,
        (requests["arrival"][arrived], arrived_in),
        (log.left[arrived], log.left_in[arrived]),
    )
    table: dict[str, NDArray[Any]] = {
        "arrivals": arrivals,
        "completed": ended(completed),
        "good": np.bincount(answered_in[good_rows(simulation, answered)], minlength=windows),
        "lost": ended(status == Status.LOST),
        "shed": ended(status == Status.SHED),
        "rejected": ended(status == Status.REJECTED),
        "backlog": np.cumsum(arrivals - np.bincount(finished_in, minlength=windows)),
        "queue_mean": queue_mean,
        "queue_peak": queue_peak,
        "input_tokens": _sums(requests["input"][arrived], arrived_in, windows),
        "output_tokens": _sums(requests["output"][answered], answered_in, windows),
    }
    bounds = np.searchsorted(answered_in, np.arange(windows + 1))
    for name, values in zip(("ttft", "tpot"), latencies(simulation, answered), strict=True):
        spread = np.full((windows, len(PERCENTILES)), np.nan)
        for window in range(windows):
            known = values[bounds[window] : bounds[window + 1]]
            known = known[~np.isnan(known)]
            if len(known):
                spread[window] = [nearest_rank(known, q) for q in PERCENTILES.values()]
        table |= {f"{name}_{percentile}_s": spread[:, i] for i, percentile in enumerate(PERCENTILES)}
    return table


def _sums(values: NDArray[Any], groups: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    total = np.zeros(count, dtype=np.int64)
    np.add.at(total, groups, values)
    return total


def _queue(
    edges: NDArray[np.int64],
    came: tuple[NDArray[np.int64], NDArray[np.int64]],
    left: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean over time, NaN for a window without length, and peak of how many have come and not left, per window.

    Who leaves at an instant is gone before others come at it.
    """
    windows = len(edges) - 1
    times, groups = np.concatenate([came[0], left[0]]), np.concatenate([came[1], left[1]])
    changes = np.repeat([1, -1], [len(came[0]), len(left[0])])
    order = np.lexsort((changes, times, groups))
    groups, changes = groups[order], changes[order]
    after = np.cumsum(changes)
    begins = np.concatenate([[0], after])[np.searchsorted(groups, np.arange(windows))]
    peak = begins.copy()
    np.maximum.at(peak, groups, after)
    # each change counts for the rest of its window
    rest_s = (edges[1:][groups] - times[order]) / SECOND
    length_s = np.diff(edges) / SECOND
    area = begins * length_s + np.bincount(groups, weights=changes * rest_s, minlength=windows)
    mean = np.full(windows, np.nan)
    np.divide(area, length_s, out=mean, where=length_s > 0)
    # sums that cancel leave some 1e-15 behind
    return np.round(mean, 9), peak


def _cluster(marks: list[Mark], edges: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    def in_each(name: str) -> NDArray[np.float64]:
        return np.diff(np.array([0.0, *(getattr(mark, name) for mark in marks)]))

    gpu_hours = in_each("gpu_hours")
    length_h = np.diff(edges) / SECOND / 3600.0
    gpus = np.full(len(marks), np.nan)
    np.divide(gpu_hours, length_h, out=gpus, where=length_h > 0)
    return {
        # hours of rounded seconds: without this a pool of four would hold 4.0000000000004 GPUs
        "gpus": np.round(gpus, 9),
        "gpu_hours": gpu_hours,
        "cost_usd": in_each("cost_usd"),
        "scheduling_s": in_each("scheduling_s"),
        "reconfiguration_s": in_each("reconfiguration_s"),
        "reschedules": in_each("reschedules"),
        "plan": np.array([str(mark.plan) for mark in marks], dtype=np.str_),
        "policy": np.array([mark.policy for mark in marks], dtype=np.str_),
    }
