"""From what the store has to results: every measurement named by what it measures, and what was to be measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autopoiesis.bench.suite.cells import Suite
from autopoiesis.bench.suite.jobs import COLOCATED, REFERENCE, Job, variants
from autopoiesis.bench.suite.kept import Bench
from autopoiesis.bench.suite.paper import ACCOUNTINGS
from autopoiesis.bench.suite.results import Meta, PaperResult, Results, RowResult, SweepResult
from autopoiesis.bench.suite.steps import measured_by

Row = RowResult | SweepResult | PaperResult


def collected(jobs: Sequence[Job], bench: Bench, meta: Meta) -> Results:
    """All that has been measured of these jobs so far."""
    rows: list[RowResult] = []
    sweeps: list[SweepResult] = []
    papers: list[PaperResult] = []
    for job in jobs:
        for row in _rows(job, bench):
            match row:
                case RowResult():
                    rows.append(row)
                case SweepResult():
                    sweeps.append(row)
                case PaperResult():
                    papers.append(row)
    return Results(meta, rows, sweeps, papers)


def planned_rows(jobs: Sequence[Job], suite: Suite) -> list[tuple[str, str, str, int, str, str]]:
    """Group, cell, objective, seed, policy and kind of all rows there are to be."""
    return [
        (job.base.group, job.base.name, job.base.objective, job.seed, *variant)
        for job in jobs
        if job.kind == "measure"
        for variant in variants(job, suite)
    ]


def planned_sweeps(jobs: Sequence[Job], suite: Suite) -> list[tuple[str, str, str, str, float, int, str, str]]:
    """Group, cell, objective, driver, value, seed, policy and kind of all there is to be with one thing varied."""
    return [
        (job.base.group, job.base.name, job.base.objective, job.driver, job.value, job.seed, *variant)
        for job in jobs
        if job.kind == "sweep"
        for variant in variants(job, suite)
    ]


def planned_papers(jobs: Sequence[Job], suite: Suite) -> list[tuple[str, str, int, str, str, str]]:
    """Group, cell, seed, policy, kind and accounting of all that is to be measured in paper mode."""
    return [
        (job.base.group, job.base.name, job.seed, *variant, accounting)
        for job in jobs
        if job.kind == "paper"
        for variant in variants(job, suite)
        for accounting in ACCOUNTINGS
    ]


def _rows(job: Job, bench: Bench) -> Iterator[Row]:
    base = job.base
    for step, found in measured_by(job, bench):
        for entry in found.entries:
            kind = REFERENCE if entry.policy == COLOCATED else step.kind
            cell = (base.name, base.group, base.objective, job.seed)
            if job.kind == "sweep":
                own = job.value == base.own(job.driver)
                yield SweepResult(*cell, job.driver, job.value, entry.policy, kind, entry.measured, own)
            else:
                yield RowResult(*cell, entry.policy, kind, entry.measured, {**entry.detail, **step.detail})
        for times in found.times:
            spent = (times.total_s, times.scheduling_s, times.reconfiguration_s, times.serving_s)
            yield PaperResult(base.name, base.group, job.seed, times.policy, step.kind, times.accounting, *spent)
