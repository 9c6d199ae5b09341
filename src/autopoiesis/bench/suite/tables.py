"""The tables of the comparison: what there is to win, who wins it, what drives it, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from textwrap import wrap

from autopoiesis.bench.suite.entries import (
    FAILED,
    INFINITE,
    MISSING,
    NONE,
    describe_missing,
    failures,
    headroom_entry,
    objective,
    partial,
    percent,
    ratio,
    standing,
    value,
)
from autopoiesis.bench.suite.layout import WIDTH, Table, plain
from autopoiesis.bench.suite.paper import ACCOUNTINGS, Batches, batches
from autopoiesis.bench.suite.results import Meta, PaperResult, Results
from autopoiesis.bench.suite.statistics import (
    BEST_FIXED,
    EVOLVING,
    HUMAN,
    Comparison,
    Interval,
    Setting,
    Variant,
    by_group,
    comparisons,
    over_cells,
    settings,
)
from autopoiesis.bench.suite.summary import groups, summary
from autopoiesis.report.numbers import short, span

ORDER = ("bound", "reference", "evolving", *HUMAN)
"""Kinds from the top of a table down; human policies stand by name, tuned below default."""


def tables(results: Results, whole: bool = True) -> list[Table]:
    """The summary first, what is missing last; between them, if `whole`, every policy, the sweeps and paper mode."""
    found, swept, timed = comparisons(results), settings(results.sweeps), batches(results.papers)
    made = [summary(found), groups(found)]
    if whole:
        made += [group_table(name, of) for name, of in by_group(found)]
        made += [sweep_table(driver, list(of)) for driver, of in groupby(swept, key=lambda setting: setting.driver)]
        made += [paper_table(of) for of in timed]
    return [*made, *missing_tables(found, swept, timed)]


def terminal(results: Results, whole: bool = False) -> str:
    """Tables as aligned text, after a line on the run."""
    return "\n".join([*wrap(provenance(results.meta), WIDTH), "", *map(plain, tables(results, whole))])


def provenance(meta: Meta) -> str:
    """Which run this is and what it took."""
    seeds = f"{'seed' if len(meta.seeds) == 1 else 'seeds'} {', '.join(map(str, meta.seeds))}"
    processes = "1 process" if meta.jobs == 1 else f"{meta.jobs} processes"
    return (
        f"Suite {meta.suite}, version {meta.version}, {seeds}; {span(meta.wall_s)} of wall clock and "
        f"{span(meta.cpu_s)} of CPU, {processes} on {meta.cores} cores ({meta.machine})."
    )


def group_table(name: str, group: Sequence[Comparison]) -> Table:
    """Every policy in every cell of a group, relative to the best found."""
    everybody = sorted({of for comparison in group for of in (*comparison.expected, *comparison.runs)}, key=_rank)
    means = [over_cells(group, of) for of in everybody]
    rows = tuple(
        (
            of.label,
            *(standing(comparison, of) for comparison in group),
            NONE if mean is None else ratio(Interval(mean, None, 1)),
        )
        for of, mean in zip(everybody, means, strict=True)
    )
    best = frozenset(
        (everybody.index(of), column) for column, c in enumerate(group, start=1) for of in _best(c, everybody)
    )
    several = len({comparison.objective for comparison in group}) > 1
    headings = [f"{c.cell}, {objective(c.objective)}" if several else c.cell for c in group]
    title = f"Group {name}" + ("" if several else f": {objective(group[0].objective)}") + ", relative to the best found"
    return Table(title, ("policy", *headings, "mean"), rows, tuple(_group_notes(group, headings, everybody)), best=best)


def _group_notes(group: Sequence[Comparison], names: Sequence[str], everybody: Sequence[Variant]) -> Iterator[str]:
    for of in everybody:
        for name, comparison in zip(names, group, strict=True):
            if count := failures(comparison, of):
                yield f"{FAILED} failed calls: {count} of {of.label} in {name}."
    if any(math.isinf(m.score) for comparison in group for runs in comparison.runs.values() for m in runs.values()):
        yield f"{INFINITE}: with one seed at least, no request was good."
    for name, comparison in zip(names, group, strict=True):
        if not comparison.ratios_mean_something and comparison.runs:
            why = "missing" if comparison.found is None else "near zero, or infinite, with one seed at least"
            yield f"{name}: scores themselves, since the best found is {why}; not in the mean."


def sweep_table(driver: str, swept: Sequence[Setting]) -> Table:
    """Headroom at every value of a driver, against whom, and what the evolving system made of it."""
    values = sorted({setting.value for setting in swept})
    rows: list[tuple[str, ...]] = []
    for (cell, name), of in groupby(swept, key=lambda s: (s.comparison.cell, s.comparison.objective)):
        at = {setting.value: setting.comparison for setting in of}
        rows.append(
            (cell, objective(name), "headroom %", *(headroom_entry(at[v]) if v in at else NONE for v in values))
        )
        for policy in (BEST_FIXED, EVOLVING):
            if any(comparison.named(policy) for comparison in at.values()):
                saved = [(at[v].saved(at[v].named(policy)), len(at[v].seeds)) if v in at else (None, 0) for v in values]
                rows.append((cell, objective(name), f"{policy} %", *(percent(*of) for of in saved)))
        against = [at[v].best_baseline if v in at else None for v in values]
        rows.append((cell, objective(name), "against", *(of.label if of else NONE for of in against)))
    notes = ("In per cent of the score of the best tuned baseline at that value, which is named below.",)
    headings = ("cell", "objective", f"{driver} =", *map(value, values))
    return Table(f"Headroom against {driver}", headings, tuple(rows), notes, words=3)


def paper_table(of: Batches) -> Table:
    """Seconds in all and what they went into, under both accountings."""
    everybody = sorted(of.expected, key=_rank)
    rows = tuple(
        (variant.label, *(cell for accounting in ACCOUNTINGS for cell in _times(of, accounting, variant)))
        for variant in everybody
    )
    best = frozenset(
        (everybody.index(named), 1 + 3 * position)
        for position, accounting in enumerate(ACCOUNTINGS)
        if (named := of.best_baseline(accounting)) is not None
    )
    notes = (
        "Overlapped: the old plan serves meanwhile. Additive: nothing serves while planning or moving. "
        "vs best: change of the total against the best human policy, which stands out.",
    )
    parts = ((f"{accounting} s", "vs best %", "sched/reconf/serving") for accounting in ACCOUNTINGS)
    headings = ("policy", *(heading for part in parts for heading in part))
    return Table(f"Paper mode: {of.cell}", headings, rows, notes, best=best)


def _times(of: Batches, accounting: str, variant: Variant) -> tuple[str, str, str]:
    def mean(field: str) -> Interval | None:
        def seconds(times: PaperResult) -> float:
            found: float = getattr(times, field)
            return found

        return of.mean(accounting, variant, seconds)

    total = mean("total_s")
    if total is None:
        return MISSING, NONE, NONE
    parts = [part for field in ("scheduling_s", "reconfiguration_s", "serving_s") if (part := mean(field))]
    seconds = INFINITE if math.isinf(total.mean) else short(total.mean)
    return (
        seconds + partial(total.n, len(of.seeds)),
        percent(of.change(accounting, variant), len(of.seeds)),
        "/".join(INFINITE if math.isinf(part.mean) else short(part.mean) for part in parts),
    )


def missing_tables(found: Sequence[Comparison], swept: Sequence[Setting], timed: Sequence[Batches]) -> list[Table]:
    """What a run lacks; none if it is whole."""
    lacking = [(of, objective(of.objective)) for of in found]
    for setting in swept:
        of = setting.comparison
        lacking.append((of, f"{objective(of.objective)}, {setting.driver} = {value(setting.value)}"))
    rows = [
        (of.cell, what, describe_missing(of.missing, of.seeds) if of.runs else "everybody")
        for of, what in lacking
        if of.missing or not of.runs
    ]
    for batch in timed:
        for accounting in ACCOUNTINGS:
            missing = [(variant, seeds) for where, variant, seeds in batch.missing if where == accounting]
            if missing:
                rows.append((batch.cell, f"paper mode, {accounting}", describe_missing(missing, batch.seeds)))
    if not rows:
        return []
    count = sum(len(seeds) for of, _ in lacking for _, seeds in of.missing)
    count += sum(len(seeds) for batch in timed for _, _, seeds in batch.missing)
    notes = (
        f"{count} rows in all. A seed that lacks a baseline or the best found does not count for headroom, and who is "
        "wholly missing in a cell is not among its baselines.",
    )
    return [Table("Missing", ("cell", "of", "who"), tuple(rows), notes, words=3)]


def _rank(of: Variant) -> tuple[int, str, str]:
    human = ORDER.index(HUMAN[0])
    return (min(ORDER.index(of.kind), human) if of.kind in ORDER else len(ORDER)), of.policy, of.kind


def _best(comparison: Comparison, everybody: Sequence[Variant]) -> list[Variant]:
    """Who could be deployed and is best; several if they are equal, none before somebody has all seeds."""
    means = {}
    for of in everybody:
        mean = comparison.relative(of) or comparison.mean(of, lambda measured: measured.score)
        if of.kind in (*HUMAN, "evolving") and mean and mean.n == len(comparison.seeds) and math.isfinite(mean.mean):
            means[of] = mean.mean
    return [of for of, mean in means.items() if mean == min(means.values())]
