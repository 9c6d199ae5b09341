"""A job done: parameters searched; or human policies, the evolving system and the bounds measured; or paper mode."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial

from autopoiesis.bench.suite.bounds import bounds_of
from autopoiesis.bench.suite.day import slice_of
from autopoiesis.bench.suite.jobs import (
    BOUND,
    COLOCATED,
    TRAINING_SEEDS,
    Job,
    variants,
)
from autopoiesis.bench.suite.kept import Bench, Entry, Found, Times
from autopoiesis.bench.suite.paper import ACCOUNTINGS
from autopoiesis.bench.suite.results import Measured
from autopoiesis.bench.suite.rows import Served, serve, serve_evolving
from autopoiesis.bench.suite.sequence import Served as Sequenced
from autopoiesis.bench.suite.statistics import BEST_FIXED, BEST_FOUND, EVOLVING, PER_WINDOW
from autopoiesis.bench.suite.tuning import Setting, Tuned, search, with_setting
from autopoiesis.control.prepare import Prepared
from autopoiesis.policy.library import starters
from autopoiesis.policy.source import PolicySource
from autopoiesis.simulate.scenario import Mode

PAPER_SHARE = 0.5
"""Of a slice: paper mode serves everything twice, and the evolving system with it."""

Say = Callable[[str, float], None]
Ready = Callable[[], Prepared]


@dataclass(frozen=True)
class Step:
    """One measurement: what identifies it beside the job, and how it is made."""

    title: str
    kind: str
    """Of the policies that it measures, as results say it: `default`, `tuned`, `evolving` or `bound`."""
    parts: tuple[object, ...]
    make: Callable[[], Found]
    detail: dict[str, object] = field(default_factory=dict)
    """What is known of the policy before it is measured."""


def carry_out(job: Job, bench: Bench, say: Say) -> None:
    """Do what is left of a job; `say` is told what is being done, and what share of the job is behind."""
    if job.kind == "tune":
        _tune(job, bench, say)
        return
    steps = list(steps_of(job, bench))
    for position, step in enumerate(steps):
        say(step.title, position / len(steps))
        bench.kept(Found, step.parts, step.make)


def measured_by(job: Job, bench: Bench) -> Iterator[tuple[Step, Found]]:
    """What the store has of a job."""
    if job.kind != "tune" and _tuned(job, bench):
        for step in steps_of(job, bench):
            found = bench.recalled(Found, step.parts)
            if found is not None:
                yield step, found


def is_done(job: Job, bench: Bench) -> bool:
    """Whether the store has all that a job is to leave there."""
    if job.kind == "tune":
        return _tuned(job, bench)
    return _tuned(job, bench) and all(bench.recalled(Found, step.parts) is not None for step in steps_of(job, bench))


def _tuned(job: Job, bench: Bench) -> bool:
    return len(bench.tuned(job.base)) == len(bench.tunable)


def _tune(job: Job, bench: Bench, say: Say) -> None:
    suite, cell = bench.suite, job.cell

    @cache
    def training(seed: int) -> Prepared:
        return slice_of(*bench.day(cell, seed), suite.training_share)

    def score(seed: int, source: PolicySource) -> float:
        served = serve(training(seed), bench.template, source)
        return math.inf if served.outcome.failures else served.measured().score

    days = [partial(score, seed) for seed in TRAINING_SEEDS]
    for position, name in enumerate(bench.tunable):
        say(name, position / len(bench.tunable))
        searched = partial(search, name, suite.trials, suite.finalists, job.seed, days)
        bench.kept(Tuned, bench.search_parts(cell, name), searched)


def steps_of(job: Job, bench: Bench) -> Iterator[Step]:
    """What a job measures, in order. Reading what a step found must not need what only making it does."""
    share = PAPER_SHARE if job.kind == "paper" else 1.0

    @cache
    def prepared() -> Prepared:
        return slice_of(*bench.day(job.cell, job.seed, job.settled_as), share)

    modes = [Mode.OPERATOR] if job.kind != "paper" else [Mode(accounting) for accounting in ACCOUNTINGS]
    before: list[Step] = []
    for mode in modes:
        for name, kind in variants(job, bench.suite):
            if kind in ("default", "tuned"):
                source, setting = _policy(job, bench, name, kind)
                made = partial(_human, bench, prepared, mode, name, source)
                detail: dict[str, object] = {"setting": setting} if kind == "tuned" else {}
                before.append(Step(f"{name} {kind}", kind, _parts(job, mode.value, name, source.text), made, detail))
            elif name == EVOLVING:
                known = [source.text for source in starters().values()]
                made = partial(_evolving, job, bench, prepared, mode)
                before.append(Step(name, EVOLVING, _parts(job, mode.value, name, known), made))
    yield from before
    if job.kind != "paper":
        others = [step.parts for step in before]
        yield Step(
            "bounds",
            BOUND,
            _parts(job, "bounds", _bound_runs(job, bench), job.cell.colocated and job.kind == "measure", others),
            partial(_bounds, job, bench, prepared, others),
        )


def _parts(job: Job, *what: object) -> tuple[object, ...]:
    """What identifies a measurement of a job. Whether a sweep or the cell itself asks for it does not count."""
    share = PAPER_SHARE if job.kind == "paper" else 1.0
    return job.cell.digest(), job.settled_as.digest(), job.seed, share, *what


def _policy(job: Job, bench: Bench, name: str, kind: str) -> tuple[PolicySource, Setting]:
    setting = bench.tuned(job.base)[name].setting if kind == "tuned" else {}
    return with_setting(bench.human[name], setting), setting


def _human(bench: Bench, prepared: Ready, mode: Mode, name: str, source: PolicySource) -> Found:
    return _found(serve(prepared(), bench.template, source, mode), mode, name)


def _evolving(job: Job, bench: Bench, prepared: Ready, mode: Mode) -> Found:
    run_key = bench.digest(job.cell.digest(), job.settled_as.digest(), job.seed, job.kind, mode.value)[:32]
    served = serve_evolving(prepared(), bench.template, bench.store, run_key, mode)
    return _found(served, mode, EVOLVING)


def _found(served: Served, mode: Mode, policy: str) -> Found:
    if mode is Mode.OPERATOR:
        plans = list(dict.fromkeys(mark.plan for mark in served.run.marks))
        return Found(entries=[Entry(policy, served.measured(), served.detail)], plans=plans)
    times = served.paper
    spent = (times.total_s, times.scheduling_s, times.reconfiguration_s, times.serving_s)
    return Found(times=[Times(policy, mode.value, *spent)])


def _bound_runs(job: Job, bench: Bench) -> int:
    return bench.suite.sweep_bound_runs if job.kind == "sweep" else bench.suite.bound_runs


def _bounds(job: Job, bench: Bench, prepared: Ready, others: list[tuple[object, ...]]) -> Found:
    """What everybody is compared with. What was found to be best is the best found, by a policy or by the search."""
    founds = [bench.recalled(Found, parts) or Found() for parts in others]
    visited = list(dict.fromkeys(plan.sorted() for found in founds for plan in found.plans))
    began_s = time.monotonic()
    bounds = bounds_of(prepared(), visited, _bound_runs(job, bench))
    wall_s = time.monotonic() - began_s
    sequence = bounds.sequence
    searched = {"by": "search", "switches": sequence.served.sequence.switches, "runs": sequence.runs}
    known = [entry for found in founds for entry in found.entries]
    found = [
        Entry(BEST_FIXED, _of_bound(bounds.fixed.served, wall_s), {"plan": str(bounds.fixed.served.sequence.plans[0])})
    ]
    if 0 < sequence.fluid < math.inf:
        # the two models differ by a factor on the same plans; the loose bound is told in terms of the event model
        loose = sequence.served.score * bounds.per_window.value / sequence.fluid
        found.append(Entry(PER_WINDOW, _only(loose), {"fluid": bounds.per_window.value}))
    best = Entry(BEST_FOUND, _of_bound(sequence.served, wall_s), searched)
    if bounds.rejecting.score < best.measured.score:
        told = {"by": "search, late requests turned away", "switches": bounds.rejecting.sequence.switches}
        best = Entry(BEST_FOUND, _of_bound(bounds.rejecting, wall_s), told)
    if job.cell.colocated and job.kind == "measure":
        alike = bounds_of(prepared(), visited, _bound_runs(job, bench), colocated=True)
        found.append(Entry(COLOCATED, _of_bound(alike.sequence.served, time.monotonic() - began_s - wall_s), {}))
        known.append(found[-1])
    for entry in known:
        if entry.measured.score < best.measured.score:
            best = Entry(BEST_FOUND, entry.measured, {"by": entry.policy})
    return Found(entries=[*found, best])


def _of_bound(served: Sequenced, wall_s: float) -> Measured:
    books = served.books
    return Measured(
        score=served.score,
        goodput=books.goodput,
        cost_per_good_usd=books.cost_per_good_usd,
        delay_s=books.delay_s / max(books.completed, 1),
        cost_usd=books.cost_usd,
        reschedules=served.sequence.switches,
        failures=0,
        charged_s=0.0,
        completed=books.completed,
        requests=books.requests,
        wall_s=wall_s,
    )


def _only(score: float) -> Measured:
    """A score and nothing else: nobody was served."""
    return Measured(
        score=score,
        goodput=0.0,
        cost_per_good_usd=None,
        delay_s=0.0,
        cost_usd=0.0,
        reschedules=0,
        failures=0,
        charged_s=0.0,
        completed=0,
        requests=0,
        wall_s=0.0,
    )
