"""What a policy may know of the simulated world: windows from the logs of what has happened, and observations.

Everything here reads only what is past: arrivals and ends up to now, telemetry as far as it has been scraped. The
output length of a request that has not ended is never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from autopoiesis.loop.control import ControlLoop
from autopoiesis.policy.interface import (
    RECENT_WINDOWS,
    CapacityChange,
    Observation,
    PastTransition,
    PoolView,
    ReplicaStatus,
)
from autopoiesis.simulate import layout
from autopoiesis.simulate.layout import SECOND
from autopoiesis.simulate.scenario import Scenario
from autopoiesis.simulate.simulation import Simulation
from autopoiesis.simulate.world import SimulatedWorld
from autopoiesis.workload import ClassWindow, Requests, Window
from autopoiesis.workload.status import Status
from autopoiesis.workload.synopsis import Arrived, Backlog, Finished, summarise

TYPICAL_OUTPUT = 200.0
"""Output tokens assumed where none has been seen."""


def good_rows(simulation: Simulation, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(k,) which of these ended requests were completed within their SLO."""
    return _within_slo(simulation, rows, *latencies(simulation, rows))


def latencies(simulation: Simulation, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(k,) TTFT and TPOT in seconds; TPOT is NaN with one output token or none, TTFT without a first token."""
    requests = simulation.state.requests
    first = requests["first"][rows]
    ttft_s = np.where(first >= 0, (first - requests["arrival"][rows]) / SECOND, np.nan)
    tokens = requests["output"][rows] - 1
    tpot_s = np.where(tokens > 0, (requests["done"][rows] - first) / SECOND / np.maximum(tokens, 1), np.nan)
    return ttft_s, tpot_s


def _within_slo(
    simulation: Simulation, rows: NDArray[np.int64], ttft_s: NDArray[np.float64], tpot_s: NDArray[np.float64]
) -> NDArray[np.bool_]:
    requests = simulation.state.requests
    slos = simulation.state.slos[requests["model"][rows]]
    in_time = ttft_s <= slos[:, 0] + slos[:, 1] * requests["input"][rows]
    steady = np.isnan(tpot_s) | (tpot_s <= slos[:, 2])
    good: NDArray[np.bool_] = (requests["status"][rows] == Status.COMPLETED) & in_time & steady
    return good


class WindowBook:
    """Cuts the logs of a simulation into monitoring windows."""

    def __init__(self, scenario: Scenario, simulation: Simulation, batches: bool) -> None:
        self.scenario = scenario
        self.batches = batches
        self._simulation = simulation
        self._arrived = 0
        self._finished = 0
        self._open: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.rows: list[NDArray[np.int64]] = []
        """Rows that arrived in each window so far."""

    def close(self, index: int, start_s: float, end_s: float) -> Window:
        """The window that ends now, from what arrived and ended since the last call."""
        state = self._simulation.state
        requests = state.requests
        arrived_count = int(state.scalars[layout.ARRIVED])
        finished_count = int(state.scalars[layout.FINISHED])
        arrived = state.arrived[self._arrived : arrived_count].astype(np.int64)
        finished = state.finished[self._finished : finished_count].astype(np.int64)
        self._arrived, self._finished = arrived_count, finished_count
        self.rows.append(arrived)
        backlog = np.concatenate([self._open, arrived])
        self._open = backlog[requests["done"][backlog] < 0]
        ttft_s, tpot_s = latencies(self._simulation, finished)
        return summarise(
            index,
            start_s,
            end_s,
            self._simulation.labels,
            Arrived(
                requests["request_class"][arrived],
                self._arrivals_s(arrived, start_s, end_s),
                requests["input"][arrived],
                requests["prefix"][arrived],
            ),
            Finished(
                requests["request_class"][finished],
                requests["output"][finished],
                ttft_s,
                tpot_s,
                requests["status"][finished],
                _within_slo(self._simulation, finished, ttft_s, tpot_s),
            ),
            Backlog(requests["request_class"][self._open], requests["first"][self._open] < 0),
        )

    def at_hand(self, index: int, rows: NDArray[np.int64], before: Sequence[Window]) -> Window:
        """Paper mode: the window whose batch has just become available. Its prompts are known; what its outputs will
        be like is taken from the last window before it in which their class was answered."""
        requests = self._simulation.state.requests
        start_s = index * self.scenario.window_s
        none = np.zeros(0, dtype=np.int64)
        nothing = np.zeros(0)
        window = summarise(
            index,
            start_s,
            start_s + self.scenario.window_s,
            self._simulation.labels,
            Arrived(
                requests["request_class"][rows],
                self._arrivals_s(rows, start_s, start_s + self.scenario.window_s),
                requests["input"][rows],
                requests["prefix"][rows],
            ),
            Finished(none, none, nothing, nothing, none, np.zeros(0, dtype=np.bool_)),
            Backlog(none, np.zeros(0, dtype=np.bool_)),
        )
        known: dict[str, ClassWindow] = {}
        for earlier in reversed(before):
            for entry in earlier.classes:
                if entry.completed:
                    known.setdefault(entry.request_class, entry)
        return replace(
            window,
            classes=tuple(
                replace(entry, output_mean=k.output_mean, output_p90=k.output_p90)
                if (k := known.get(entry.request_class)) is not None
                else entry
                for entry in window.classes
            ),
        )

    def _arrivals_s(self, rows: NDArray[np.int64], start_s: float, end_s: float) -> NDArray[np.float64]:
        """Arrival times; those of a batch are spread over the window that it stands for."""
        if self.batches:
            return start_s + (np.arange(len(rows)) + 0.5) / max(len(rows), 1) * (end_s - start_s)
        arrivals_s: NDArray[np.float64] = self._simulation.state.requests["arrival"][rows] / SECOND
        return np.clip(arrivals_s, start_s, np.nextafter(end_s, start_s))


def seen_requests(simulation: Simulation, rows: NDArray[np.int64], start_s: float) -> Requests:
    """The requests that arrived in these rows, as a workload that begins at `start_s`, from what is known by now.

    A request that has not ended gets the mean output of those of its class that have (or, where none has, of all, or
    as many tokens as a chat answer). Think times are those observed.
    """
    rows = np.sort(rows)
    requests = simulation.state.requests[rows]
    arrival = requests["arrival"]
    order = np.argsort(arrival, kind="stable")
    rows, requests, arrival = rows[order], requests[order], arrival[order]
    completed = requests["status"] == Status.COMPLETED
    output = np.where(completed, requests["output"], 0).astype(np.int64)
    overall = float(output[completed].mean()) if completed.any() else TYPICAL_OUTPUT
    for request_class in np.unique(requests["request_class"]):
        mine = requests["request_class"] == request_class
        mean = float(output[mine & completed].mean()) if (mine & completed).any() else overall
        output[mine & ~completed] = round(mean)
    position = np.full(len(simulation.state.requests) + 1, -1, dtype=np.int64)
    position[rows] = np.arange(len(rows))
    previous = position[requests["previous"]]
    before = simulation.state.requests["done"][requests["previous"]]
    linked = (previous >= 0) & (requests["previous"] >= 0) & (before >= 0) & (previous < np.arange(len(rows)))
    think_s = np.where(linked, np.maximum(arrival - before, 0) / SECOND, 0.0)
    return Requests(
        arrival_s=np.maximum(arrival / SECOND - start_s, 0.0),
        model=requests["model"].astype(np.int64),
        input_tokens=requests["input"].astype(np.int64),
        output_tokens=output,
        prefix_tokens=np.where(linked, requests["prefix"], 0).astype(np.int64),
        previous=np.where(linked, previous, -1),
        think_s=think_s,
        **simulation.requests.blocks_of(rows),
    )


def observe(
    scenario: Scenario,
    world: SimulatedWorld,
    loop: ControlLoop,
    windows: list[Window],
    past: tuple[PastTransition, ...],
    now_s: float,
) -> Observation:
    """What is known now. `windows` are all closed windows, the last one is the current."""
    capacity = {entry.pool.name: entry.gpus for entry in loop.capacity.pools}
    return Observation(
        now_s=now_s,
        window_s=scenario.window_s,
        objective=scenario.objective,
        window=windows[-1] if windows else None,
        recent=tuple(windows[-1 - RECENT_WINDOWS : -1]),
        models=scenario.models,
        slos=scenario.slos,
        pools=tuple(
            PoolView(
                name=pool.name,
                gpu=pool.gpu,
                gpus_per_node=pool.gpus_per_node,
                available=capacity[pool.name],
                requested=loop.requested[pool.name],
                minimum=pool.minimum,
                maximum=pool.maximum,
                price_per_hour=pool.price_per_hour,
                spot=pool.spot is not None,
                start_s_p50=pool.start_s_p50,
                start_s_p90=pool.start_s_p90,
            )
            for pool in scenario.cluster.pools
        ),
        announced=tuple(CapacityChange(n.at_s, n.pool, n.gpus) for n in loop.announced),
        shapes=scenario.shapes,
        plan=loop.plan,
        replicas=tuple(
            ReplicaStatus(replica, phase, flight, tokens, int(running), int(waiting), kv_use, age)
            for replica, phase, flight, tokens, running, waiting, kv_use, age in world.statuses()
        ),
        moving=loop.moving,
        past_transitions=past[-8:],
        envelope=scenario.envelope,
        memory=loop.memory,
    )
