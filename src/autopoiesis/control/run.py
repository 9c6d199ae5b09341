"""Driving a run: every baseline and the evolving system through the same scenario, each finished row kept.

A run is repeatable, so it resumes by being run again: what is finished is in the store under a key of everything that
determines it, and what is not (a row that was being served when the process died) is served again from its start with
every replay and completion of its evolution remembered.
"""

from __future__ import annotations

import hashlib
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from autopoiesis.control.account import Account, Leg, alone, course_of, happenings, lineage_of, setting_of
from autopoiesis.control.config import (
    PaperPair,
    Report,
    Row,
    RunConfig,
    SimulateReport,
    SwapEntry,
    Watch,
)
from autopoiesis.control.prepare import Prepared, prepare, read
from autopoiesis.evolve.evolver import Evolver
from autopoiesis.evolve.providers import Provider, provider
from autopoiesis.evolve.providers.recorded import RecordedProvider, entry_of
from autopoiesis.evolve.providers.transcript import Recording, ReplayedProvider, Transcript, read_transcript
from autopoiesis.evolve.retention import trim
from autopoiesis.evolve.store import DeploymentRecord, Store
from autopoiesis.evolve.versions import fingerprint
from autopoiesis.evolve.workers import Workers
from autopoiesis.loop.log import EventLog
from autopoiesis.loop.messages import Apply, Repair
from autopoiesis.policy.admission import admit
from autopoiesis.policy.host import PolicyHost
from autopoiesis.policy.host_template import HostTemplate
from autopoiesis.policy.library import starters
from autopoiesis.policy.source import PolicySource
from autopoiesis.simulate.hosted import ESTIMATOR, HostedPolicy
from autopoiesis.simulate.run import Notice, Point, Policy, Run, with_mode_objective
from autopoiesis.simulate.scenario import Mode

EVOLVING = "evolving"
FIRST_POLICY = "static"
"""What the evolving system starts under."""
REPLAYER = "autopoiesis.evolve.replay:ReplayEvaluator"
REPLAY_DEADLINE_S = 3600.0
"""Of one replay by the clock, all its calls included: each of these has the planner's deadline."""
COMPLETION_TIMEOUT_S = 600.0
"""A model that thinks may take minutes; what it takes is charged to evolution, not to serving."""


def run(config: RunConfig, watch: Watch, account: Callable[[Account], None] | None = None) -> Report:
    """The whole comparison. Raises an AutopoiesisError for anything a user can mend.

    `account` is given all that can be told of the run once it has ended, whether it was served now or before.
    """
    started = time.monotonic()
    baselines = starters()
    replayed = None if config.replay is None else read_transcript(config.replay)
    if replayed is not None:
        # in the name of who was recorded, so that what is told of the run is the same
        who = replayed.header
        evolution = replace(config.evolution, provider=who.provider, provider_command=None, model_name=who.model)
        config = replace(config, evolution=evolution)
    given = read(config.scenario, watch.stage)
    with ExitStack() as open_files:
        store = open_files.enter_context(Store(config.store))
        recording = None
        if config.record is not None:
            who_answers = config.evolution
            recording = Recording(config.record, who_answers.provider, who_answers.model_name)
            open_files.enter_context(recording)
        prepared = prepare(given, store, watch.stage)
        key = run_key(config, prepared, replayed)
        store.begin_run(key)
        trim(store, config.store_limit_bytes, key)
        if recording is not None:
            # what was answered before this recording began
            for record in store.completions(key):
                recording.put(entry_of(record))
        modes = tuple(Mode) if config.paper else (Mode.OPERATOR,)
        watch.stage("serving")
        workers = None
        if config.jobs > 1:
            pool = Workers(REPLAYER, config.jobs, deadline_s=REPLAY_DEADLINE_S, priority=config.priority)
            workers = open_files.enter_context(pool)
        with HostTemplate(ESTIMATOR) as template:
            comparison = Comparison(config, prepared, store, template, key, watch, recording, replayed, workers)
            legs: dict[tuple[str, Mode], Leg] = {}
            for mode in modes:
                for name, source in ((EVOLVING, baselines[FIRST_POLICY]), *sorted(baselines.items())):
                    legs[name, mode] = comparison.kept(name, source, mode)
        store.finish_run()
    rows = tuple(_row(name, modes, legs) for name in (EVOLVING, *sorted(baselines)))
    swaps = tuple(swap for mode in modes for swap in legs[EVOLVING, mode].swaps)
    if account is not None:
        account(Account(setting_of(config.scenario, config.evolution, prepared), rows, swaps, legs))
    return Report(rows, swaps, config.scenario.seed, time.monotonic() - started)


def simulate(
    config: RunConfig,
    policy: PolicySource,
    watch: Watch,
    served: Callable[[Mode, Run], None] = lambda mode, run: None,
    account: Callable[[Account], None] | None = None,
) -> SimulateReport:
    """One policy through the scenario, and how fast that went. `served` is given each mode's run once it has ended, and
    `account` all that can be told of them at the end."""
    started = time.monotonic()
    with ExitStack() as opened:
        template = opened.enter_context(HostTemplate(ESTIMATOR))
        with PolicyHost(template, policy.text) as host:
            policy = admit(host, policy.name)
        given = read(config.scenario, watch.stage)
        store = opened.enter_context(Store(config.store))
        prepared = prepare(given, store, watch.stage)
        modes = tuple(Mode) if config.paper else (Mode.OPERATOR,)
        watch.stage("warming up")
        _warm_up(prepared, template, policy)
        watch.stage("serving")
        comparison = Comparison(config, prepared, store, template, "", watch)
        legs: dict[tuple[str, Mode], Leg] = {}
        simulating_s = 0.0
        for mode in modes:
            began = time.monotonic()
            leg, run = comparison.serve(policy.name, policy, mode)
            simulating_s += time.monotonic() - began
            legs[policy.name, mode] = leg
            served(mode, run)
            if account is not None:
                leg.course, leg.lineage = course_of(run), alone(policy)
            # the next mode needs the memory of this one
            del run
    row = _row(policy.name, modes, legs)
    if account is not None:
        account(Account(setting_of(config.scenario, None, prepared), (row,), (), legs))
    return SimulateReport(
        row=row,
        wall_s=time.monotonic() - started,
        simulated_requests_per_s=len(modes) * len(prepared.scenario.requests) / max(simulating_s, 1e-9),
        peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def run_key(config: RunConfig, prepared: Prepared, replayed: Transcript | None = None) -> str:
    """Identifies everything that determines a run's results."""
    parts = (
        prepared.scenario.digest(),
        prepared.plan,
        prepared.capacity,
        config.evolution,
        None if replayed is None else replayed.digest,
        fingerprint(),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Comparison:
    """What all rows of a run have in common."""

    config: RunConfig
    prepared: Prepared
    store: Store
    template: HostTemplate
    key: str
    """Identifies the run in the store; empty for a row that is not kept."""
    watch: Watch
    recording: Recording | None = None
    replayed: Transcript | None = None
    """What answers instead of the provider."""
    workers: Workers | None = None
    """Who replays candidates; without them this process does."""

    def kept(self, name: str, source: PolicySource, mode: Mode) -> Leg:
        """A finished leg from the store, or served now and kept."""
        memo = f"leg:{self.key}:{name}:{mode.value}"
        known = self.store.recall(memo)
        if known is not None:
            self.watch.progress(name, mode.value, 1.0)
        else:
            leg, run = self.serve(name, source, mode)
            leg.course = course_of(run)
            if name == EVOLVING:
                leg.lineage = lineage_of(self.store, self.key, mode, source, leg.swaps)
            known = msgspec.json.encode(leg)
            self.store.remember(memo, known)
        # as read back, so that a resumed run and an uninterrupted one go on from the same bytes
        return msgspec.json.decode(known, type=Leg)

    def serve(self, name: str, source: PolicySource, mode: Mode) -> tuple[Leg, Run]:
        """One policy, or the evolving system from `source` on, through the whole scenario: the result and the run."""
        scenario = with_mode_objective(self.prepared.scenario, mode)
        evolver = self._evolver(mode, source, scenario.planner_deadline_s) if name == EVOLVING else None
        at_work = [HostedPolicy(self.template, source, scenario.planner_deadline_s)]
        log = EventLog()
        notices: list[Notice] = []

        def on_point(point: Point) -> Policy | None:
            successor = evolver(point) if evolver is not None else None
            if self.key:
                trim(self.store, self.config.store_limit_bytes, self.key)
            if isinstance(successor, HostedPolicy):
                at_work.append(successor)
                at_work.pop(0).close()
            return successor

        def notify(notice: Notice) -> None:
            notices.append(notice)
            self.watch.notice(name, mode.value, notice)

        def progress(fraction: float) -> None:
            self.watch.progress(name, mode.value, fraction)

        try:
            served = Run(
                scenario,
                at_work[0],
                self.prepared.plan,
                self.prepared.capacity,
                mode,
                on_point=on_point if evolver is not None else None,
                notify=notify,
                log=log,
            )
            progress(0.0)
            outcome = served.finish(progress)
            if outcome.failures:
                text = (
                    f"{outcome.failures} calls of the policy failed or were answered by the built-in balancer instead"
                )
                notify(Notice(outcome.ended_s, "failure", text))
            progress(1.0)
        finally:
            for policy in at_work:
                policy.close()
        if self.key:
            with self.store.transaction():
                self.store.put_log(self.key, mode.value, name, "\n".join(log.lines()).encode())
                self.store.put_deployments(self._deployments(log, name, mode))
        swaps = evolver.swaps if evolver is not None else []
        leg = Leg(
            outcome.books,
            outcome.paper,
            outcome.reschedules,
            [SwapEntry(s.t, s.mode, s.policy, s.parent, s.provider, s.evidence) for s in swaps],
            *happenings(notices),
        )
        return leg, served

    def _deployments(self, log: EventLog, name: str, mode: Mode) -> Iterator[DeploymentRecord]:
        """Every plan that the row was set to."""
        key = (self.key, mode.value, name)
        yield DeploymentRecord(*key, -1, 0.0, "start", msgspec.to_builtins(self.prepared.plan))
        for step, record in enumerate(log.records):
            for command in record.commands:
                if isinstance(command, Apply | Repair):
                    cause = "apply" if isinstance(command, Apply) else "repair"
                    yield DeploymentRecord(*key, step, record.now_s, cause, msgspec.to_builtins(command.plan))

    def _evolver(self, mode: Mode, first: PolicySource, deadline_s: float) -> Evolver:
        evolution = self.config.evolution
        return Evolver(
            self.template,
            RecordedProvider(self.store, self._provider(), self.key, self.recording),
            self.store,
            self.key,
            mode,
            first,
            starters(),
            budget=evolution.budget,
            seed=self.config.scenario.seed,
            deadline_s=deadline_s,
            workers=self.workers,
        )

    def _provider(self) -> Provider:
        if self.replayed is not None:
            return ReplayedProvider(self.replayed)
        evolution = self.config.evolution
        return provider(
            evolution.provider,
            command=evolution.provider_command,
            model=evolution.model_name,
            timeout_s=COMPLETION_TIMEOUT_S,
        )


def _row(name: str, modes: tuple[Mode, ...], legs: dict[tuple[str, Mode], Any]) -> Row:
    operator = legs[name, Mode.OPERATOR]
    paper = None
    if Mode.ADDITIVE in modes:
        paper = PaperPair(legs[name, Mode.OVERLAPPED].paper, legs[name, Mode.ADDITIVE].paper)
    return Row(
        name=name,
        kind="evolving" if name == EVOLVING else "baseline",
        operator=operator.books,
        paper=paper,
        reschedules=operator.reschedules,
    )


def _warm_up(prepared: Prepared, template: HostTemplate, policy: PolicySource) -> None:
    """Load compiled code and start the template, so that `simulated_requests_per_s` measures the simulation."""
    scenario = prepared.scenario
    few = replace(scenario, requests=scenario.requests.take(np.arange(min(200, len(scenario.requests)))))
    hosted = HostedPolicy(template, policy, scenario.planner_deadline_s)
    try:
        Run(few, hosted, prepared.plan, prepared.capacity, Mode.OPERATOR).finish()
    finally:
        hosted.close()
