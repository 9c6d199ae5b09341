"""A sequence of plans decided beforehand, carried out in the event model.

What a policy would do that knew the future: it asks for a plan exactly where the sequence changes, thinks in no time,
and pays for every transition what everybody pays.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.control.plans import paid_gpus
from autopoiesis.control.prepare import Prepared, starting_capacity
from autopoiesis.control.screening import NEVER_SERVED_S
from autopoiesis.loop.decisions import same_deployment
from autopoiesis.plan import ServingPlan, packable
from autopoiesis.policy.host import Answer
from autopoiesis.policy.interface import Decision, Observation
from autopoiesis.policy.meter import Charge
from autopoiesis.policy.source import PolicySource
from autopoiesis.simulate.fluid import pool_nodes
from autopoiesis.simulate.layout import SECOND
from autopoiesis.simulate.outcome import Books, score
from autopoiesis.simulate.run import Run
from autopoiesis.simulate.scenario import Mode, Scenario
from autopoiesis.simulate.simulation import Routing
from autopoiesis.simulate.views import good_rows
from autopoiesis.workload.status import Status


@dataclass(frozen=True, slots=True)
class PlanSequence:
    """Plans by the window from whose beginning on they are wanted.

    `starts` rise strictly from 0; neighbouring plans differ. Raises ValueError otherwise. Capacity follows: each plan
    has the nodes that `control.plans.paid_gpus` says it needs.
    """

    starts: tuple[int, ...]
    plans: tuple[ServingPlan, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.starts, self.starts[1:], strict=False))
        if not self.starts or self.starts[0] != 0 or not rising or len(self.starts) != len(self.plans):
            raise ValueError(f"a sequence needs one plan for each of windows 0 < … < …, not for {self.starts}")
        if any(a == b for a, b in zip(self.plans, self.plans[1:], strict=False)):
            raise ValueError("two neighbouring plans of a sequence are the same")

    @classmethod
    def of(cls, by_window: Sequence[ServingPlan]) -> PlanSequence:
        """From the plan of every window."""
        runs = groupby(enumerate(by_window), key=itemgetter(1))
        starts, plans = zip(*((next(run)[0], plan) for plan, run in runs), strict=True)
        return cls(starts, plans)

    @classmethod
    def fixed(cls, plan: ServingPlan) -> PlanSequence:
        return cls((0,), (plan,))

    @property
    def switches(self) -> int:
        return len(self.starts) - 1

    def at(self, window: int) -> ServingPlan:
        """The plan wanted in a window; the last one stays after the end."""
        return self.plans[bisect_right(self.starts, window) - 1]

    def by_window(self, count: int) -> list[ServingPlan]:
        return [self.at(window) for window in range(count)]


class Scheduled:
    """The policy (`simulate.run.Policy`) that carries a sequence out, at no charge.

    Where capacity was lost it asks again at every monitoring point at which the wanted plan would fit on what is there.
    For a fixed plan it is `control.plans.Standing`, as long as nothing is lost.
    """

    def __init__(self, scenario: Scenario, sequence: PlanSequence, routing: Routing | None = None) -> None:
        """Without a routing of its own, the scenario's built-in router places requests."""
        self.source = PolicySource("scheduled", '"""Carry out plans decided beforehand."""\ninterface = 1\n')
        self.routing = routing or Routing()
        self.failures = 0
        self.last_failure: str | None = None
        self._scenario = scenario
        self._sequence = sequence
        self._asked = sequence.plans[0]

    def trigger(self, observation: Observation, belief: bytes) -> Answer[bool]:
        return Answer(self._due(observation), None, Charge(), 0.0, 0.0)

    def plan(self, observation: Observation, belief: bytes) -> Answer[Decision]:
        wanted = self._asked = self._wanted(observation)
        return Answer(Decision(wanted, paid_gpus(self._scenario, wanted)), None, Charge(), 0.0, 0.0)

    def adopt(self, memory: dict[str, Any]) -> dict[str, Any]:
        return {}

    def _wanted(self, observation: Observation) -> ServingPlan:
        return self._sequence.at(round(observation.now_s / observation.window_s))

    def _due(self, observation: Observation) -> bool:
        wanted = self._wanted(observation)
        if same_deployment(observation.plan, wanted):
            return False
        if wanted != self._asked:
            return True
        nodes = [node for pool in observation.pools for node in pool_nodes(pool, pool.available)]
        return packable(wanted.replicas, nodes)


@dataclass(frozen=True, slots=True)
class Served:
    """What a sequence came to in the event model."""

    sequence: PlanSequence
    books: Books
    score: float
    """`simulate.outcome.score` of the scenario's objective, smaller is better."""
    good: NDArray[np.float64]
    """(W,) requests of each window of recorded arrival that were answered within SLO."""
    delay_s: NDArray[np.float64]
    """(W,) their seconds beyond the unloaded time; 600 s for what was not completed."""
    dollars: NDArray[np.float64]
    """(W,) spent in each window; what was spent after the last one counts to it."""


def serve(prepared: Prepared, sequence: PlanSequence, routing: Routing | None = None) -> Served:
    """Serve the scenario under a sequence, in the very world that policies meet, by the built-in router or another one.

    It begins on its first plan, with the capacity that this needs. Raises PlanError if a plan cannot stand.
    """
    scenario = prepared.scenario
    first = sequence.plans[0]
    run = Run(
        scenario, Scheduled(scenario, sequence, routing), first, starting_capacity(scenario, first), Mode.OPERATOR
    )
    books = run.finish().books
    assert books is not None, "operator mode keeps books"
    rows = np.arange(len(scenario.requests))
    requests = run.world.simulation.state.requests
    taken_s = (requests["done"] - requests["arrival"]) / SECOND
    completed = requests["status"] == Status.COMPLETED
    late_s = np.where(completed, np.maximum(taken_s - scenario.unloaded_s, 0.0), NEVER_SERVED_S)
    window = (scenario.requests.arrival_s // scenario.window_s).astype(np.int64)
    count = round(scenario.duration_s / scenario.window_s)
    return Served(
        sequence,
        books,
        score(scenario.objective, books, None),
        np.bincount(window, weights=good_rows(run.world.simulation, rows), minlength=count).astype(np.float64),
        np.bincount(window, weights=late_s, minlength=count).astype(np.float64),
        _spent(np.array([mark.cost_usd for mark in run.marks]), count),
    )


def _spent(until: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(count,) dollars of each window from those until the end of every window of the run."""
    dollars = np.zeros(count)
    np.add.at(dollars, np.minimum(np.arange(len(until)), count - 1), np.diff(until, prepend=0.0))
    return dollars


def best_of(served: Iterable[Served]) -> Served:
    """The smallest score; of equals the one with the fewest switches, then the first."""
    return min(served, key=lambda one: (one.score, one.sequence.switches))
