"""What it takes to go from one plan to another, and what that costs a window: the arcs of the search over sequences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopoiesis.bench.suite.values import Array, Values
from autopoiesis.control.plans import load_window, paid_gpus
from autopoiesis.control.prepare import starting_capacity
from autopoiesis.cost import Starts
from autopoiesis.errors import PlanError
from autopoiesis.plan import Placed, Replica, ServingPlan, estimate_transition
from autopoiesis.plan.placement import place
from autopoiesis.policy.interface import Move
from autopoiesis.simulate.fluid import LONGEST_DRAIN_S
from autopoiesis.simulate.scenario import Scenario

Indices = NDArray[np.int64]


class Switches:
    """Between N plans, from row to column; staying costs nothing.

    A rollout run ahead takes milliseconds and there are N² of them, so each begins as an optimistic guess, which
    `settle` replaces where a search wants to go.
    """

    def __init__(self, scenario: Scenario, plans: Sequence[ServingPlan]) -> None:
        size = len(plans)
        self.plans = tuple(plans)
        self.wait_s = np.zeros((size, size))
        """(N, N) until nodes come that the new plan needs; the old plan serves on."""
        self.move_s = np.zeros((size, size))
        """(N, N) of the rollout after that; infinite where the plan cannot be reached."""
        self.kept = np.ones((size, size))
        """(N, N) least part of the GPUs serving before that serves throughout."""
        self.settled = np.eye(size, dtype=np.bool_)
        """(N, N) whether the three are those of a rollout."""
        self._scenario = scenario
        self._drain_s = _drain_s(scenario)
        counts = [Counter(plan.replicas) for plan in plans]
        for a, before in enumerate(counts):
            for b, after in enumerate(counts):
                if a != b:
                    self._guess(a, b, after - before, before - after)

    def _guess(self, before: int, after: int, new: Counter[Replica], old: Counter[Replica]) -> None:
        """At least: weights take no time, and the rollout drains as much at once as it may wherever GPUs are short."""
        times = self._scenario.truth.start
        starts, stops = (sum(replica.gpus * count for replica, count in part.items()) for part in (new, old))
        had, needs = (plan.gpus() for plan in (self.plans[before], self.plans[after]))
        room = max(sum(paid_gpus(self._scenario, self.plans[after]).values()), needs) - had
        short = min(max(starts - max(room, 0), 0), stops)
        at_once = had * (1 - Move().capacity_kept)
        rounds = math.ceil(short / max(at_once, 1.0)) or bool(starts)
        start_s = (times.process_s + times.capture_s + times.warm_up_s) * self._scenario.truth.start_slow
        self.move_s[before, after] = rounds * start_s
        self.kept[before, after] = 1.0 - short / max(rounds, 1) / max(had, 1)

    def windows(self, slowness: float = 1.0) -> Indices:
        """(N, N) windows that the switch takes, at least one; 0 for one that is impossible."""
        seconds = (self.wait_s + self.move_s) * slowness
        possible = np.isfinite(seconds)
        took = np.ceil(np.where(possible, seconds, 0.0) / self._scenario.window_s - 1e-9)
        return np.where(possible, np.maximum(took, 1), 0).astype(np.int64)

    def settle(self, before: int, after: int) -> None:
        """By the rollout run ahead with the true start times, on nodes that never ran anything else."""
        values = _between(self._scenario, self.plans[before], self.plans[after], self._drain_s)
        self.wait_s[before, after], self.move_s[before, after], self.kept[before, after] = values
        self.settled[before, after] = True


def _between(scenario: Scenario, before: ServingPlan, after: ServingPlan, drain_s: float) -> tuple[float, float, float]:
    """Seconds of waiting for nodes, seconds of the rollout, capacity kept."""
    had = starting_capacity(scenario, before)
    capacity, wait_s = had, 0.0
    for name, gpus in paid_gpus(scenario, after).items():
        if gpus > had.pool(name).gpus:
            capacity = capacity.with_pool(name, gpus)
            wait_s = max(wait_s, scenario.cluster.pool(name).start_s_p50)
    old = {node.id for node in had.nodes()}
    starts = Starts(scenario.truth)
    for node in capacity.nodes():
        if node.id not in old:
            starts.joined(node.id)
    placement = place(before, had.nodes(), ())
    running = [
        Placed(id, replica, gpus)
        for id, (replica, gpus) in enumerate(zip(placement.to_start, placement.targets, strict=True))
    ]
    try:
        cost = estimate_transition(
            after,
            capacity.nodes(),
            running,
            {placed.id: "serving" for placed in running},
            starts,
            drain_s=drain_s,
            price=lambda gpu: 0.0,
            capacity_kept=Move().capacity_kept,
            envelope=scenario.envelope,
        )
    except PlanError:
        return wait_s, math.inf, 0.0
    return wait_s, cost.seconds, cost.capacity_kept


def _drain_s(scenario: Scenario) -> float:
    """Mean time that a running request has left at the promised pace: half of its decoding."""
    window = load_window(scenario, scenario.requests, 0.0, scenario.duration_s)
    rate = sum(entry.rate_rps for entry in window.classes)
    left = sum(
        entry.rate_rps * entry.output_mean * scenario.slos[entry.request_class.rpartition("/")[0]].tpot_s / 2
        for entry in window.classes
    )
    return min(left / rate, LONGEST_DRAIN_S) if rate > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Losses:
    """What a switch at the beginning of a window changes, in that window and later ones, against having had the new
    plan already: (W, P) for P pairs. It holds as long as the new plan is kept until all its replicas serve."""

    good: Array
    delay_s: Array
    dollars: Array


def losses_of(values: Values, switches: Switches, before: Indices, after: Indices, slowness: float = 1.0) -> Losses:
    """What the switches of (P,) pairs cost, all their seconds multiplied by `slowness`; nothing for impossible ones.

    While it waits for nodes the old plan serves; while it moves, as much of the old plan as the rollout keeps, of whose
    headroom a part is gone, and both plans' GPUs are paid. What finds no room waits half of the move.
    """
    windows, width = len(values.count), values.scenario.window_s
    wait_s, move_s = (part[before, after] * slowness for part in (switches.wait_s, switches.move_s))
    move_s = np.where(np.isfinite(move_s), move_s, 0.0)
    kept = switches.kept[before, after]
    good, delay_s, dollars = (np.zeros((windows, len(before))) for _ in range(3))
    for ahead in range(windows):
        waiting = np.clip(wait_s / width - ahead, 0.0, 1.0)
        moving = np.clip((wait_s + move_s) / width - ahead, 0.0, 1.0) - waiting
        if not (waiting.any() or moving.any()):
            break
        end = windows - ahead
        old, new = values.good[ahead:, before], values.good[ahead:, after]
        serving = np.minimum(1.0, kept * np.maximum(values.headroom[ahead:, before], 1.0))
        good[:end] += waiting * (old - new) + moving * (serving * old - new)
        old, new = values.delay_s[ahead:, before], values.delay_s[ahead:, after]
        stuck = (1.0 - serving) * values.count[ahead:, None] * move_s / 2
        delay_s[:end] += waiting * (old - new) + moving * (old + stuck - new)
        old, new = values.dollars[ahead:, before], values.dollars[ahead:, after]
        dollars[:end] += waiting * (old - new) + moving * (np.maximum(old, new) - new)
    return Losses(good, delay_s, dollars)
