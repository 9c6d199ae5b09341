"""Replaying policies over what was just observed: the fitness of design principle 3.

A replay serves the requests of recent windows with the loop, the policy host and the event kernel, in a world made of
the belief: nothing that is hidden, nothing later than now. Its result is a pure function of its inputs, so it may be
computed in any process, at any time, and be remembered (`replayer`).
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from autopoiesis.evolve.worker_messages import KEPT_CONTEXTS
from autopoiesis.plan import Capacity, ServingPlan
from autopoiesis.policy.host_template import HostTemplate
from autopoiesis.policy.meter import Charge
from autopoiesis.policy.source import PolicySource
from autopoiesis.simulate.hosted import ESTIMATOR, HostedPolicy
from autopoiesis.simulate.layout import SECOND
from autopoiesis.simulate.outcome import score
from autopoiesis.simulate.run import Point, Run
from autopoiesis.simulate.scenario import NOTHING_HIDDEN, Mode, Scenario
from autopoiesis.simulate.views import seen_requests
from autopoiesis.workload import Requests, stacked

REPLAY_SETUP_S = 0.05
"""Charged for every replay beside what it simulates: memory, policy process, windows, observations."""
FAILED = 1e300
"""The score of a policy that failed or answered nothing in time, worse than any that is measured."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive windows to replay, and what everything starts from."""

    scenario: Scenario
    plan: ServingPlan
    capacity: Capacity
    mode: Mode
    first_window: int
    windows: int

    def digest(self) -> str:
        parts = (self.plan, self.capacity, self.mode.value)
        return hashlib.sha256((self.scenario.digest() + repr(parts)).encode()).hexdigest()


class Fitness(msgspec.Struct, frozen=True):
    """What one replay measured."""

    score: float
    """The objective, smaller is better; `FAILED` if the policy failed."""
    seconds: float
    """What the replay is charged."""
    reschedules: int
    goodput: float | None
    failure: str | None


def stretch_of(point: Point, first: int, count: int) -> Stretch:
    """Windows `first` … `first + count - 1` of a run, as known at the point; starts from what runs now."""
    run = point.run
    scenario = run.scenario
    rows = run.book.rows[first : first + count]
    simulation = run.world.simulation
    if run.mode is Mode.OPERATOR:
        start_s = first * scenario.window_s
        # what was still unfinished when the stretch began is there from its beginning
        earlier = np.concatenate([np.zeros(0, dtype=np.int64), *run.book.rows[:first]])
        done = simulation.state.requests["done"][earlier]
        backlog = earlier[(done < 0) | (done >= round(start_s * SECOND))]
        requests = seen_requests(simulation, np.concatenate([backlog, *rows]), start_s)
    else:
        requests = _batches(simulation, rows, scenario.window_s)
    believed = replace(
        scenario,
        requests=requests,
        cost=run.belief.cost,
        hidden=NOTHING_HIDDEN,
        seed=scenario.seed * 1_000_003 + first,
    )
    return Stretch(believed, run.loop.plan, run.loop.capacity, run.mode, first, count)


def _batches(simulation: Any, rows: list[NDArray[np.int64]], window_s: float) -> Requests:
    """Paper mode: each window's rows spread over the window that they stand for."""
    parts = []
    for index, batch in enumerate(rows):
        requests = seen_requests(simulation, batch, 0.0)
        n = len(requests)
        parts.append(replace(requests, arrival_s=(index + (np.arange(n) + 0.5) / max(n, 1)) * window_s))
    return Requests(**stacked(parts))


def replay(template: HostTemplate, deadline_s: float, source: PolicySource, stretch: Stretch) -> Fitness:
    """The policy's fitness over the stretch; every policy starts it without memory."""
    policy = HostedPolicy(template, source, deadline_s)
    try:
        run = Run(stretch.scenario, policy, stretch.plan, stretch.capacity, stretch.mode)
        outcome = run.finish()
    finally:
        policy.close()
    simulated = Charge(simulated_requests=len(stretch.scenario.requests)).seconds
    seconds = REPLAY_SETUP_S + simulated + outcome.charged_s
    if outcome.failures:
        failure = policy.last_failure or "route answered what is no replica"
        return Fitness(FAILED, seconds, outcome.reschedules, None, failure)
    value = score(stretch.scenario.objective, outcome.books, outcome.paper)
    return Fitness(
        value if np.isfinite(value) else FAILED,
        seconds,
        outcome.reschedules,
        outcome.books.goodput if outcome.books else None,
        None,
    )


class ReplayJob(msgspec.Struct, frozen=True):
    """What a worker is asked; the stretch is the job's context."""

    name: str
    text: str
    deadline_s: float


class ReplayEvaluator:
    """Replays in a worker, whose policies are locked in by a template of its own."""

    def __init__(self) -> None:
        self._template = HostTemplate(ESTIMATOR)

    def evaluate(self, job: bytes, context: bytes | None) -> bytes:
        assert context is not None
        asked = msgspec.msgpack.decode(job, type=ReplayJob)
        source = PolicySource(asked.name, asked.text)
        return msgspec.msgpack.encode(replay(self._template, asked.deadline_s, source, _unpacked(context)))

    def close(self) -> None:
        self._template.close()


def packed(stretch: Stretch) -> bytes:
    """The stretch as a worker reads it; it comes from our own process, or nothing may be unpickled."""
    return pickle.dumps(stretch, protocol=pickle.HIGHEST_PROTOCOL)


@lru_cache(maxsize=KEPT_CONTEXTS)
def _unpacked(context: bytes) -> Stretch:
    stretch = pickle.loads(context)
    assert isinstance(stretch, Stretch)
    return stretch
