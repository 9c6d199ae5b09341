"""The fluid model over consecutive windows: what becomes of a load under one plan, window by window.

Queues that grow in one window are served in the next, and what is left after the last one is served to its end, so a
plan is charged for the backlog that it leaves. Many plans are compared on one `Demand`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopoiesis.plan import Replica, ServingPlan
from autopoiesis.simulate.fluid import ClassLoad, Coefficients, grouped
from autopoiesis.simulate.fluid_judge import (
    OUT_ARRIVED,
    OUT_COLUMNS,
    OUT_DELAY,
    OUT_GOOD,
    OUT_RUNNING,
    OUT_WAITING,
    judge,
)
from autopoiesis.simulate.fluid_replica import CLASS_COLUMNS, RATE, Array
from autopoiesis.simulate.fluid_time import CHANCE_COLUMNS, CURVES, flow_through
from autopoiesis.workload import SLO, Window

STEP_S, STEADY_STEP_S = 1.0, 2.0
"""A step of time where arrivals are known to the second, and where they are steady: as long as the shortest TTFT that
is promised, short beside the time for which sequences decode and in which queues build up."""
LONGEST_DRAIN = 10
"""What is not served in so many times the horizon counts as never served."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A load over W windows of equal length, T steps of time and C classes."""

    classes: tuple[str, ...]
    """(C,) in canonical order."""
    loads: tuple[tuple[ClassLoad, ...], ...]
    """(W,) as given."""
    rows: Array
    """(W, C, 12): `fluid_replica.CLASS_MODEL` and so on; a class keeps its lengths while it is absent."""
    arrivals: NDArray[np.float64]
    """(T, C) requests."""
    dispersions: NDArray[np.float64]
    """(W,) variance ÷ mean of arrivals per second that the arrivals do not show."""
    window_s: float
    step_s: float


@dataclass(frozen=True, slots=True)
class Course:
    """What becomes of a demand, by window of arrival and class."""

    feasible: bool
    """False if some class has no replica that could hold it; then nothing is good and nothing ends."""
    arrived: NDArray[np.float64]
    """(W, C) requests."""
    good: NDArray[np.float64]
    """(W, C) of these, those answered within SLO."""
    delay_s: NDArray[np.float64]
    """(W, C) sum of seconds beyond the unloaded time."""
    waiting: NDArray[np.float64]
    """(W, C) requests whose prefill or decode waits at the window's end."""
    running: NDArray[np.float64]
    """(W, C) sequences that decode then."""
    ended_s: float
    """When less than one request is left."""


def window_loads(window: Window) -> tuple[ClassLoad, ...]:
    """A window's own load, as it was, for a window whose requests are all known."""
    return tuple(
        ClassLoad(
            request_class=entry.request_class,
            model=entry.request_class.rpartition("/")[0],
            rate_rps=entry.rate_rps,
            input_mean=entry.input_mean,
            input_p90=entry.input_p90,
            output_mean=entry.output_mean,
            output_p90=entry.output_p90,
            prefix_mean=entry.prefix_mean,
            queued=0.0,
        )
        for entry in window.classes
        if entry.arrivals
    )


def demand_of(
    coefficients: Coefficients,
    loads: Sequence[Sequence[ClassLoad]],
    slos: Mapping[str, SLO],
    window_s: float,
    shapes: Sequence[Replica],
    dispersions: Sequence[float] = (),
    arrivals: Mapping[str, NDArray[np.float64]] | None = None,
) -> Demand:
    """The demand of windows whose classes come at steady rates, or as `arrivals` say: by class, requests in each
    second.

    `dispersions` are by default those of Poisson arrivals; what `arrivals` show is not chance and must not be counted
    again. What queues in the first window is there from its beginning. `shapes` say what a request takes unloaded.
    """
    classes = tuple(sorted({load.request_class for window in loads for load in window}))
    column = {name: position for position, name in enumerate(classes)}
    steps = max(1, round(window_s / (STEADY_STEP_S if arrivals is None else STEP_S)))
    rows = np.zeros((len(loads), len(classes), CLASS_COLUMNS))
    known: dict[str, ClassLoad] = {}
    for window in reversed(loads):
        known.update({load.request_class: load for load in window})
    for position, window in enumerate(loads):
        known.update({load.request_class: load for load in window})
        here = {load.request_class for load in window}
        rows[position] = coefficients.class_rows([known[name] for name in classes], slos, window_s, shapes)
        for name in classes:
            rows[position, column[name], RATE] = known[name].rate_rps if name in here else 0.0
    if arrivals is None:
        given = np.repeat(rows[:, :, RATE], steps, axis=0) * (window_s / steps)
    else:
        given = np.zeros((len(loads) * steps, len(classes)))
        for name, counts in arrivals.items():
            if name in column:
                given[:, column[name]] = counts
    if loads:
        for load in loads[0]:
            given[0, column[load.request_class]] += load.queued
    return Demand(
        classes=classes,
        loads=tuple(tuple(window) for window in loads),
        rows=rows,
        arrivals=given,
        dispersions=np.array(dispersions if len(dispersions) else [1.0] * len(loads), dtype=np.float64),
        window_s=window_s,
        step_s=window_s / steps,
    )


def follow(coefficients: Coefficients, plan: ServingPlan, demand: Demand) -> Course:
    """Let the demand flow through the plan."""
    windows, count = demand.rows.shape[:2]
    none = np.zeros((windows, count))
    nowhere = Course(False, none, none, none, none, none, np.inf)
    if not demand.classes:
        return Course(True, none, none, none, none, none, 0.0)
    models = {load.model: position for position, load in enumerate(known_loads(demand))}
    parts = grouped(coefficients, plan, demand.classes, models)
    if parts is None:
        return nowhere
    groups, shares, shared = parts
    size, steps = len(groups), len(demand.arrivals)
    most = (1 + LONGEST_DRAIN) * steps
    curves = np.zeros((most + 1, size, CURVES))
    chance = np.zeros((most, size, CHANCE_COLUMNS))
    first, second = np.zeros((most, count, size)), np.zeros((most, count, size))
    held = np.zeros((windows, count, 2))
    per_window = steps // windows
    taken = flow_through(
        groups, demand.rows, shares, shared, demand.arrivals, demand.dispersions, demand.step_s, per_window,
        demand.window_s, most, curves, chance, first, second, held,
    )  # fmt: skip
    if taken < 0:
        return nowhere
    out = np.zeros((windows, count, OUT_COLUMNS))
    out[:, :, [OUT_WAITING, OUT_RUNNING]] = held
    judge(
        groups, demand.rows, demand.step_s, per_window, curves[: taken + 1], chance[:taken], first[:steps],
        second[:taken], out,
    )  # fmt: skip
    return Course(
        feasible=True,
        arrived=out[:, :, OUT_ARRIVED],
        good=out[:, :, OUT_GOOD],
        delay_s=out[:, :, OUT_DELAY],
        waiting=out[:, :, OUT_WAITING],
        running=out[:, :, OUT_RUNNING],
        ended_s=taken * demand.step_s,
    )


def known_loads(demand: Demand) -> tuple[ClassLoad, ...]:
    """One load of each class, in the order of `Demand.classes`."""
    known = {load.request_class: load for window in demand.loads for load in window}
    return tuple(known[name] for name in demand.classes)


def warm(coefficients: Coefficients, plan: ServingPlan, load: ClassLoad, slos: Mapping[str, SLO]) -> None:
    """Compile the kernel, or load it from numba's cache: seconds or milliseconds, once per process."""
    follow(coefficients, plan, demand_of(coefficients, [[load]], slos, STEP_S, plan.replicas))
