"""One policy, or the evolving system, through a slice of a day, and what it came to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autopoiesis.bench.suite.results import Measured
from autopoiesis.control.prepare import Prepared
from autopoiesis.evolve.evolver import Evolver
from autopoiesis.evolve.providers import provider
from autopoiesis.evolve.providers.recorded import RecordedProvider
from autopoiesis.evolve.store import Store
from autopoiesis.policy.host_template import HostTemplate
from autopoiesis.policy.library import policy as human
from autopoiesis.policy.library import starters
from autopoiesis.policy.source import PolicySource
from autopoiesis.simulate.hosted import HostedPolicy
from autopoiesis.simulate.outcome import Books, PaperTimes, score
from autopoiesis.simulate.run import Outcome, Point, Policy, Run, with_mode_objective
from autopoiesis.simulate.scenario import Mode

FIRST_POLICY = "static"
"""What the evolving system starts under, as in `autopoiesis run`."""
BUDGET = 0.02
"""Metered seconds of evolution per second of serving, as in `autopoiesis run`."""
PROVIDER = "structural"


@dataclass(frozen=True)
class Served:
    """A finished run."""

    outcome: Outcome
    run: Run
    wall_s: float
    detail: dict[str, Any]

    @property
    def paper(self) -> PaperTimes:
        assert self.outcome.paper is not None
        return self.outcome.paper

    def measured(self) -> Measured:
        """In operator mode."""
        assert self.outcome.books is not None
        return measured(self.run.scenario.objective, self.outcome.books, self.outcome, self.wall_s)


def measured(objective: str, books: Books, outcome: Outcome, wall_s: float) -> Measured:
    """What is kept of a run's books."""
    return Measured(
        score=score(objective, books, None),
        goodput=books.goodput,
        cost_per_good_usd=books.cost_per_good_usd,
        delay_s=books.delay_s / max(books.completed, 1),
        cost_usd=books.cost_usd,
        reschedules=outcome.reschedules,
        failures=outcome.failures,
        charged_s=outcome.charged_s,
        completed=books.completed,
        requests=books.requests,
        wall_s=wall_s,
    )


def serve(prepared: Prepared, template: HostTemplate, source: PolicySource, mode: Mode = Mode.OPERATOR) -> Served:
    """A fixed policy."""
    scenario = with_mode_objective(prepared.scenario, mode)
    hosted = HostedPolicy(template, source, scenario.planner_deadline_s)
    try:
        return _finished(prepared, hosted, mode, None, dict)
    finally:
        hosted.close()


def serve_evolving(
    prepared: Prepared, template: HostTemplate, store: Store, run_key: str, mode: Mode = Mode.OPERATOR
) -> Served:
    """The evolving system, from its first request: it knows the human policies that ship, untuned, and what it sees.

    Completions and replays are remembered in the store, so that an interrupted run comes to the same again.
    """
    scenario = with_mode_objective(prepared.scenario, mode)
    evolver = Evolver(
        template,
        RecordedProvider(store, provider(PROVIDER), run_key),
        store,
        run_key,
        mode,
        human(FIRST_POLICY),
        starters(),
        budget=BUDGET,
        seed=scenario.seed,
        deadline_s=scenario.planner_deadline_s,
    )
    at_work = [HostedPolicy(template, human(FIRST_POLICY), scenario.planner_deadline_s)]

    def on_point(point: Point) -> Policy | None:
        successor = evolver(point)
        if isinstance(successor, HostedPolicy):
            at_work.append(successor)
            at_work.pop(0).close()
        return successor

    def told() -> dict[str, Any]:
        names = {identity: member.source.name for identity, member in evolver.population.members.items()}
        swaps = [[round(swap.t, 3), names.get(swap.policy, swap.policy), swap.provider] for swap in evolver.swaps]
        return {"swaps": swaps, "evolution_s": evolver.spent_s}

    try:
        return _finished(prepared, at_work[0], mode, on_point, told)
    finally:
        for hosted in at_work:
            hosted.close()


def _finished(
    prepared: Prepared,
    policy: Policy,
    mode: Mode,
    on_point: Callable[[Point], Policy | None] | None,
    detail: Callable[[], dict[str, Any]],
) -> Served:
    started = time.monotonic()
    run = Run(
        with_mode_objective(prepared.scenario, mode),
        policy,
        prepared.plan,
        prepared.capacity,
        mode,
        on_point=on_point,
    )
    outcome = run.finish()
    return Served(outcome, run, time.monotonic() - started, detail())
