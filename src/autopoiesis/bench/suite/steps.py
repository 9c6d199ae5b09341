"""A job done: parameters searched; or human policies, the evolving system and the bounds measured; or paper mode."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import msgspec

from autopoiesis.bench.suite.bounds import Found as Bound
from autopoiesis.bench.suite.bounds import bounds_of
from autopoiesis.bench.suite.day import slice_of
from autopoiesis.bench.suite.jobs import TRAINING_SEEDS, Job
from autopoiesis.bench.suite.kept import Bench, Found
from autopoiesis.bench.suite.results import Measured, PaperResult, RowResult, SweepResult
from autopoiesis.bench.suite.rows import Served, serve, serve_evolving
from autopoiesis.bench.suite.statistics import PER_WINDOW
from autopoiesis.bench.suite.tuning import Setting, Tuned, search, strongest, with_setting
from autopoiesis.control.prepare import Prepared
from autopoiesis.evolve.versions import fingerprint
from autopoiesis.plan import ServingPlan
from autopoiesis.policy.library import starters
from autopoiesis.policy.source import PolicySource
from autopoiesis.simulate.scenario import Mode

EVOLVING = "evolving"
ACCOUNTINGS = {Mode.OVERLAPPED: "overlapped", Mode.ADDITIVE: "additive"}
SWEPT = ("static", "amortised")
"""Human policies measured wherever one thing is varied, beside the one that did best on the training days."""
PAPER = ("static", "greedy-replan", "milp-replan", "threshold", "amortised", "oserve", "thunderserve")
"""Human policies measured in paper mode, beside the same."""
PAPER_SHARE = 0.5
"""Of a slice: paper mode serves everything twice, and the evolving system with it."""


@dataclass(frozen=True)
class Step:
    """One measurement: what identifies it beside the job, and how it is made."""

    title: str
    parts: tuple[object, ...]
    make: Callable[[], Found]


def carry_out(job: Job, bench: Bench, say: Callable[[str, float], None]) -> None:
    """Do what is left of a job; `say` is told what is being done, and what share of the job is behind."""
    if job.kind == "tune":
        _tune(job, bench, say)
        return
    steps = list(steps_of(job, bench))
    for position, step in enumerate(steps):
        say(step.title, position / len(steps))
        bench.kept(Found, step.parts, step.make)


def measured_by(job: Job, bench: Bench) -> list[Found]:
    """What the store has of a job."""
    if job.kind == "tune":
        return []
    recalled = [bench.recalled(Found, step.parts) for step in steps_of(job, bench)]
    return [found for found in recalled if found is not None]


def _tune(job: Job, bench: Bench, say: Callable[[str, float], None]) -> None:
    suite, cell = bench.suite, job.cell

    @cache
    def training(seed: int) -> Prepared:
        return slice_of(*bench.day(cell, seed, lambda text: None), suite.training_share)

    def score(seed: int, source: PolicySource) -> float:
        served = serve(training(seed), bench.template, source)
        return math.inf if served.outcome.failures else served.measured().score

    days = [partial(score, seed) for seed in TRAINING_SEEDS]
    for position, name in enumerate(bench.tunable):
        say(name, position / len(bench.tunable))
        bench.kept(
            Tuned,
            bench.search_parts(cell, name),
            lambda name=name: search(name, suite.trials, suite.finalists, job.seed, days),  # type: ignore[misc]
        )


def steps_of(job: Job, bench: Bench) -> Iterator[Step]:
    """What a job measures, in order. Reading what a step found must not need what only making it does."""
    cell, seed = job.cell, job.seed

    share = PAPER_SHARE if job.kind == "paper" else 1.0

    @cache
    def prepared() -> Prepared:
        return slice_of(*bench.day(cell, seed, lambda text: None), share)

    def identified(what: str, *parts: object) -> tuple[object, ...]:
        return what, cell.digest(), seed, job.driver, job.value, *parts

    if job.kind == "paper":
        yield from _paper_steps(job, bench, prepared, identified)
        return
    before: list[Step] = []
    for name, kind, source, setting in _policies(job, bench):
        shown = identified("row", name, kind, source.text)
        step = Step(f"{name} {kind}", shown, partial(_row, job, bench, prepared, name, kind, source, setting))
        before.append(step)
        yield step
    if job.kind == "measure":
        known = [source.text for source in starters().values()]
        evolving = Step(EVOLVING, identified(EVOLVING, known), partial(_evolving, job, bench, prepared))
        before.append(evolving)
        yield evolving
    terms = (_bound_runs(job, bench), [step.parts for step in before])
    yield Step("bounds", identified("bounds", terms), partial(_bounds, job, bench, prepared, before))


def _policies(job: Job, bench: Bench) -> Iterator[tuple[str, str, PolicySource, Setting]]:
    """Name, kind, policy and setting of every human policy that a job measures."""
    tuned = bench.tuned(job.base)
    best = strongest(tuned) if tuned else ""
    wanted = {"measure": list(bench.human), "sweep": [*SWEPT, best], "paper": [*PAPER, best]}[job.kind]
    for name in dict.fromkeys(wanted):
        if name not in bench.human:
            continue
        source = bench.human[name]
        if job.kind == "measure" or name not in tuned:
            yield name, "default", source, {}
        if name in tuned:
            yield name, "tuned", with_setting(source, tuned[name].setting), tuned[name].setting


def _result(job: Job, policy: str, kind: str, measured: Measured, detail: dict[str, Any]) -> Found:
    cell = job.base
    if job.kind == "sweep":
        swept = SweepResult(
            cell.name, cell.group, cell.objective, job.seed, job.driver, job.value, policy, kind, measured
        )
        return Found(sweeps=[swept])
    return Found(rows=[RowResult(cell.name, cell.group, cell.objective, job.seed, policy, kind, measured, detail)])


def _row(
    job: Job,
    bench: Bench,
    prepared: Callable[[], Prepared],
    name: str,
    kind: str,
    source: PolicySource,
    setting: Setting,
) -> Found:
    if kind == "tuned" and not setting and job.kind == "measure":
        # what ships was the best: it has been measured
        parts = ("row", job.cell.digest(), job.seed, job.driver, job.value, name, "default", source.text)
        same = bench.recalled(Found, parts)
        assert same is not None, "a policy is measured as it ships before it is tuned"
        return msgspec.structs.replace(same, rows=[msgspec.structs.replace(row, kind=kind) for row in same.rows])
    served = serve(prepared(), bench.template, source)
    found = _result(job, name, kind, served.measured(), {"setting": setting} if kind == "tuned" else {})
    return msgspec.structs.replace(found, plans=_visited(served))


def _visited(served: Served) -> list[ServingPlan]:
    """Plans that were in force at the end of a window, in order of appearance."""
    return list(dict.fromkeys(mark.plan for mark in served.run.marks))


def _evolving(job: Job, bench: Bench, prepared: Callable[[], Prepared]) -> Found:
    served = serve_evolving(prepared(), bench.template, bench.store, _run_key(job, Mode.OPERATOR))
    found = _result(job, EVOLVING, EVOLVING, served.measured(), served.detail)
    return msgspec.structs.replace(found, plans=_visited(served))


def _run_key(job: Job, mode: Mode) -> str:
    parts = (job.cell.digest(), job.seed, job.driver, job.value, mode.value, fingerprint())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _bound_runs(job: Job, bench: Bench) -> int:
    return bench.suite.sweep_bound_runs if job.kind == "sweep" else bench.suite.bound_runs


def _bounds(job: Job, bench: Bench, prepared: Callable[[], Prepared], before: list[Step]) -> Found:
    """What everybody is compared with. What was found to be best is the best found, by a policy or by the search."""
    others = [bench.recalled(Found, step.parts) or Found() for step in before]
    visited = list(dict.fromkeys(plan.sorted() for found in others for plan in found.plans))
    began_s = time.monotonic()
    bounds = bounds_of(prepared(), visited, _bound_runs(job, bench))
    wall_s = time.monotonic() - began_s
    fixed, best = (_of_bound(found, wall_s) for found in (bounds.fixed, bounds.sequence))
    detail = {"by": "search", "switches": bounds.sequence.served.sequence.switches, "runs": bounds.sequence.runs}
    # the two models differ by a factor on the same plans; the loose bound is told in terms of the event model
    factor = bounds.per_window.value / bounds.sequence.fluid if bounds.sequence.fluid > 0 else 1.0
    per_window = msgspec.structs.replace(best, score=best.score * factor, reschedules=0)
    results = [
        _result(job, "best-fixed", "bound", fixed, {"plan": str(bounds.fixed.served.sequence.plans[0])}),
        _result(job, PER_WINDOW, "bound", per_window, {}),
    ]
    rows: list[RowResult | SweepResult] = []
    for found in others:
        rows += [*found.rows, *found.sweeps]
    if job.base.colocated and job.kind == "measure":
        alike = bounds_of(prepared(), visited, _bound_runs(job, bench), colocated=True)
        reference = _of_bound(alike.sequence, time.monotonic() - began_s - wall_s)
        results.append(_result(job, "best-colocated", "reference", reference, {}))
        rows += results[-1].rows
    for row in rows:
        if row.measured.score < best.score and not row.measured.failures:
            best, detail = row.measured, {"by": f"{row.policy} {row.kind}"}
    results.append(_result(job, "best-found", "bound", best, detail))
    return Found(
        rows=[row for found in results for row in found.rows],
        sweeps=[row for found in results for row in found.sweeps],
    )


def _of_bound(found: Bound, wall_s: float) -> Measured:
    books = found.served.books
    return Measured(
        score=found.served.score,
        goodput=books.goodput,
        cost_per_good_usd=books.cost_per_good_usd,
        delay_s=books.delay_s / max(books.completed, 1),
        cost_usd=books.cost_usd,
        reschedules=found.served.sequence.switches,
        failures=0,
        charged_s=0.0,
        completed=books.completed,
        requests=books.requests,
        wall_s=wall_s,
    )


def _paper_steps(
    job: Job,
    bench: Bench,
    prepared: Callable[[], Prepared],
    identified: Callable[..., tuple[object, ...]],
) -> Iterator[Step]:
    cell = job.cell

    def times(policy: str, kind: str, mode: Mode, serve_it: Callable[[], Served]) -> Found:
        paper = serve_it().paper
        told = (paper.total_s, paper.scheduling_s, paper.reconfiguration_s, paper.serving_s)
        return Found(papers=[PaperResult(cell.name, cell.group, job.seed, policy, kind, ACCOUNTINGS[mode], *told)])

    for mode, accounting in ACCOUNTINGS.items():
        for name, kind, source, _ in _policies(job, bench):
            yield Step(
                f"{name} {accounting}",
                identified("paper", accounting, name, kind, source.text),
                partial(times, name, kind, mode, partial(_paper_row, bench, prepared, source, mode)),
            )
        known = [source.text for source in starters().values()]
        yield Step(
            f"{EVOLVING} {accounting}",
            identified("paper", accounting, EVOLVING, known),
            partial(times, EVOLVING, EVOLVING, mode, partial(_paper_evolving, job, bench, prepared, mode)),
        )


def _paper_row(bench: Bench, prepared: Callable[[], Prepared], source: PolicySource, mode: Mode) -> Served:
    return serve(prepared(), bench.template, source, mode)


def _paper_evolving(job: Job, bench: Bench, prepared: Callable[[], Prepared], mode: Mode) -> Served:
    return serve_evolving(prepared(), bench.template, bench.store, _run_key(job, mode), mode)
