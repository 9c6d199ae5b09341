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
    label,
    objective,
    partial,
    percent,
    standing,
    value,
)
from autopoiesis.bench.suite.intervals import Interval
from autopoiesis.bench.suite.layout import WIDTH, Table, plain
from autopoiesis.bench.suite.paper import ACCOUNTINGS, Batches, batches
from autopoiesis.bench.suite.results import Meta, PaperResult, Results
from autopoiesis.bench.suite.statistics import (
    BEST_FIXED,
    HUMAN,
    PER_WINDOW,
    Comparison,
    Variant,
    by_group,
    by_objective,
    comparisons,
    over_cells,
)
from autopoiesis.bench.suite.summary import groups, mean_entry, summary
from autopoiesis.bench.suite.sweeps import Setting, settings
from autopoiesis.report.numbers import short, span

ORDER = ("bound", "reference", "evolving", *HUMAN)
"""Kinds from the top of a table down; human policies stand by name, tuned below default."""
HINDSIGHT = "best policy in hindsight"
"""The best tuned baseline of each cell, as if it had been known beforehand; it stands below bounds and references."""
KEPT = "Load and first plan are the cell's."
DRIVEN = {
    "window_s": f"Seconds from one look at the load to the next. {KEPT}",
    "planner_cost": f"A factor on the time that planning takes. {KEPT}",
    "weight_loading": "GB/s at which nodes read weights. Host memory keeps none of them here, though it does in the "
    f"cell, so that no value is the cell's own. {KEPT}",
    "price": f"A factor on the price of spot pools. {KEPT}",
    "churn": "Losses per node and hour of spot pools. They come without memory, in place of the cell's market, so that "
    f"no value is the cell's own. {KEPT}",
    "load": "ρ. The first plan is found anew at every value.",
    "amplitude": "A factor on the drift of the mix. The first plan is found anew at every value.",
}
"""What is varied, and what is not."""


def tables(results: Results, whole: bool = True) -> list[Table]:
    """The summary first, what is missing last; between them, if `whole`, every policy, the sweeps and paper mode."""
    found, swept, timed = comparisons(results), settings(results), batches(results)
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
    """Every policy in every cell of a group, relative to the best found, and the best policy in hindsight."""
    everybody = sorted({of for comparison in group for of in comparison.everybody}, key=_rank)
    lines: list[tuple[str, list[Variant | None]]] = [(of.label, [of] * len(group)) for of in everybody]
    above = sum(of.kind in ("bound", "reference") for of in everybody)
    lines.insert(above, (HINDSIGHT, [comparison.best_baseline for comparison in group]))
    objectives = [name for name, _ in by_objective(group)]
    averaged = [name for name, of in by_objective(group) if len(of) > 1]
    rows = []
    for called, who in lines:
        entries = list(zip(group, who, strict=True))
        means = [over_cells(entry for entry in entries if entry[0].objective == name) for name in averaged]
        shown = (MISSING if of is None else standing(comparison, of) for comparison, of in entries)
        rows.append((called, *shown, *map(mean_entry, means)))
    best = frozenset(
        (row, column)
        for column, comparison in enumerate(group, start=1)
        for row, (called, who) in enumerate(lines)
        if called != HINDSIGHT and who[column - 1] in _best(comparison)
    )
    several = len(objectives) > 1
    headings = [f"{c.cell}, {objective(c.objective)}" if several else c.cell for c in group]
    means_of = [f"mean, {objective(name)}" if several else "mean" for name in averaged]
    title = f"Group {name}" + ("" if several else f": {objective(objectives[0])}") + ", relative to the best found"
    notes = tuple(_group_notes(group, headings, everybody))
    return Table(title, ("policy", *headings, *means_of), tuple(rows), notes, marked=best)


def _group_notes(group: Sequence[Comparison], names: Sequence[str], everybody: Sequence[Variant]) -> Iterator[str]:
    yield "Mean, where several cells share an objective: geometric, over seeds and cells."
    yield f"{HINDSIGHT.capitalize()}: the best tuned baseline of each cell; the first table says which."
    if any(of.policy == PER_WINDOW for of in everybody):
        yield (
            f"{PER_WINDOW}: only a score, told in the proportion that it has, in the fluid model, to the best sequence "
            "that the search found."
        )
    failed = [
        f"{count} of {of.label} in {name}"
        for of in everybody
        for name, comparison in zip(names, group, strict=True)
        if (count := failures(comparison, of))
    ]
    if failed:
        yield f"{FAILED} failed calls, whose rows count like any other: {'; '.join(failed)}."
    if any(math.isinf(m.score) for comparison in group for runs in comparison.runs.values() for m in runs.values()):
        yield f"{INFINITE}: with one seed at least, no request was good."
    for name, comparison in zip(names, group, strict=True):
        if not comparison.ratios_mean_something and comparison.runs:
            why = "missing" if comparison.found is None else "near zero, or infinite, with one seed at least"
            yield f"{name}: scores themselves, since the best found is {why}; not in the mean."


def sweep_table(driver: str, swept: Sequence[Setting]) -> Table:
    """Headroom at every value of a driver, against whom, and what the best fixed plan saves."""
    values = sorted({setting.value for setting in swept})
    rows: list[tuple[str, ...]] = []
    own = set()
    for (cell, name), of in groupby(swept, key=lambda s: (s.comparison.cell, s.comparison.objective)):
        at = {setting.value: setting for setting in of}
        there = [at[v].comparison if v in at else None for v in values]
        own |= {(len(rows), 3 + column) for column, v in enumerate(values) if v in at and at[v].own}
        fixed = [NONE if c is None else percent(c.saved(c.named(BEST_FIXED)), len(c.seeds)) for c in there]
        rows += [
            (cell, objective(name), "headroom %", *(NONE if c is None else headroom_entry(c) for c in there)),
            (cell, objective(name), f"{BEST_FIXED} %", *fixed),
            (cell, objective(name), "against", *(NONE if c is None else label(c, c.best_baseline) for c in there)),
        ]
    headings = ("cell", "objective", f"{driver} =", *map(value, values))
    notes = tuple(_sweep_notes(driver, swept))
    title = f"Headroom against {driver}"
    return Table(title, headings, tuple(rows), notes, words=3, marked=frozenset(own), mark="the cell's own value")


def _sweep_notes(driver: str, swept: Sequence[Setting]) -> Iterator[str]:
    if driver in DRIVEN:
        yield DRIVEN[driver]
    if any(setting.own for setting in swept):
        yield "The cell's own value stands out."
    field = sorted({of.policy for setting in swept for of in setting.comparison.baselines})
    seeds = max(len(setting.comparison.seeds) for setting in swept)
    yield (
        f"In per cent of the score of the best tuned baseline at that value, which is named below, of "
        f"{', '.join(field)}, each as tuned at the cell's own value. {'One seed' if seeds == 1 else f'{seeds} seeds'}, "
        "and fewer runs of the search than elsewhere, so that headroom at the cell's own value need not be that of "
        "the first table."
    )
    if any(label(setting.comparison, setting.comparison.best_baseline).endswith(FAILED) for setting in swept):
        yield f"{FAILED}: calls of the policy failed; its rows count like any other."


def paper_table(of: Batches) -> Table:
    """Seconds in all and what they went into, under both accountings."""
    everybody = sorted(of.everybody, key=_rank)
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
    return Table(f"Paper mode: {of.cell}", headings, rows, notes, marked=best)


def _times(of: Batches, accounting: str, variant: Variant) -> tuple[str, str, str]:
    def mean(field: str) -> Interval | None:
        def seconds(times: PaperResult) -> float:
            found: float = getattr(times, field)
            return found

        return of.mean(accounting, variant, seconds)

    total = mean("total_s")
    if total is None:
        return MISSING if any(entry[:2] == (accounting, variant) for entry in of.planned) else NONE, NONE, NONE
    parts = [part for field in ("scheduling_s", "reconfiguration_s", "serving_s") if (part := mean(field))]
    seconds = INFINITE if math.isinf(total.mean) else short(total.mean)
    return (
        seconds + partial(total.n, len(of.seeds)),
        percent(of.change(accounting, variant), len(of.seeds)),
        "/".join(INFINITE if math.isinf(part.mean) else short(part.mean) for part in parts),
    )


def missing_tables(found: Sequence[Comparison], swept: Sequence[Setting], timed: Sequence[Batches]) -> list[Table]:
    """What a run was to measure and lacks; none if it is whole."""
    lacking = [(of, objective(of.objective), "") for of in found]
    for setting in swept:
        of = setting.comparison
        lacking.append((of, f"{objective(of.objective)}, {setting.driver} = ", value(setting.value)))
    # alike but for the value or the accounting: one line
    lines: dict[tuple[str, str, str, str], list[str]] = {}
    for of, what, detail in lacking:
        for seeds, who in describe_missing(of.missing, of.planned):
            lines.setdefault((of.cell, what, seeds, who), []).append(detail)
    for batch in timed:
        for accounting, entries in groupby(batch.missing, key=lambda entry: entry[0]):
            planned = [entry[1:] for entry in batch.planned if entry[0] == accounting]
            for seeds, who in describe_missing((entry[1:] for entry in entries), planned):
                lines.setdefault((batch.cell, "paper mode, ", seeds, who), []).append(accounting)
    if not lines:
        return []
    count = sum(len(lost) for of, *_ in lacking for _, lost in of.missing)
    count += sum(len(lost) for batch in timed for *_, lost in batch.missing)
    notes = (f"{count} rows in all. A seed that lacks a baseline or the best found does not count for headroom.",)
    rows = tuple((cell, what + ", ".join(details), *whose) for (cell, what, *whose), details in lines.items())
    return [Table("Missing", ("cell", "of", "seeds", "who"), rows, notes, words=4)]


def _rank(of: Variant) -> tuple[int, str, str]:
    human = ORDER.index(HUMAN[0])
    return (min(ORDER.index(of.kind), human) if of.kind in ORDER else len(ORDER)), of.policy, of.kind


def _best(comparison: Comparison) -> list[Variant]:
    """Who could be deployed and is best; several if they are equal, none before somebody has all seeds."""
    means = {}
    for of in comparison.everybody:
        mean = comparison.relative(of) or comparison.mean(of, lambda measured: measured.score)
        if of.kind in (*HUMAN, "evolving") and mean and mean.n == len(comparison.seeds) and math.isfinite(mean.mean):
            means[of] = mean.mean
    return [of for of, mean in means.items() if mean == min(means.values())]
