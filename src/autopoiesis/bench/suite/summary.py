"""The tables that answer first: where there is something to win, and who is strongest where."""

from __future__ import annotations

from collections.abc import Sequence

from autopoiesis.bench.suite.entries import (
    FAILED,
    MISSING,
    NONE,
    absolute,
    achievement,
    dagger,
    failures,
    headroom_entry,
    label,
    objective,
    percent,
    ratio,
    verdict,
)
from autopoiesis.bench.suite.intervals import Interval
from autopoiesis.bench.suite.layout import Table
from autopoiesis.bench.suite.statistics import (
    BEST_FIXED,
    EVOLVING,
    FLOORS,
    Comparison,
    Variant,
    by_group,
    by_objective,
    over_cells,
    strongest,
)

BESIDE = (EVOLVING, BEST_FIXED)
"""Who stands beside the human policies."""


def summary(found: Sequence[Comparison]) -> Table:
    """A row for every comparison: headroom, and who got how much of it."""
    rows = []
    for comparison in [comparison for _, of in by_group(found) for comparison in of]:
        best = comparison.best_baseline
        system = comparison.named(EVOLVING)
        fixed, evolving = (comparison.saved(of) for of in (comparison.named(BEST_FIXED), system))
        score = None if best is None else comparison.mean(best, lambda measured: measured.score)
        rows.append(
            (
                comparison.cell,
                objective(comparison.objective),
                label(comparison, best, MISSING),
                NONE if score is None else absolute(comparison.objective, score.mean),
                headroom_entry(comparison),
                verdict(comparison.headroom),
                percent(fixed, len(comparison.seeds)),
                percent(evolving, len(comparison.seeds)) + dagger(comparison, system),
                achievement(comparison, evolving),
                "/".join(_moves(comparison, of) for of in (best, comparison.found, system)),
            )
        )
    headings = (
        *("cell", "objective", "best tuned baseline", "its score", "headroom %", "> 3 %?", "best fixed plan %"),
        *("evolving %", "closed", "moves"),
    )
    notes = (
        *_worth_notes(found),
        "Headroom: what the best found saves of the best tuned baseline's score. Best fixed plan, evolving: the same "
        "for these; negative is worse than the best tuned baseline. Mean and 95 % interval over seeds.",
        "Column > 3 %: yes or no where the whole interval lies on one side. One seed has no interval: unclear.",
        "Closed: share of the headroom that the evolving system won; where headroom is at most 3 %, how far it is from "
        "the best tuned baseline.",
        "Moves: mean number of reschedules of the best tuned baseline / the best found / the evolving system.",
        *_floor_notes(found),
        *_failed_notes(found),
        *_beaten_notes(found),
    )
    return Table("Is there anything to win?", headings, tuple(rows), notes, words=3)


def groups(found: Sequence[Comparison]) -> Table:
    """Who is strongest in each group, and how others stand beside it; objectives apart."""
    rows = []
    for name, group in by_group(found):
        for wanted, of in by_objective(group):
            best = strongest(of)
            everybodys = (
                None if best is None else best[1],
                over_cells((comparison, comparison.best_baseline) for comparison in of),
                *(over_cells((comparison, comparison.named(policy)) for comparison in of) for policy in BESIDE),
            )
            headrooms = [comparison.headroom.mean for comparison in of if comparison.headroom is not None]
            clear = sum(verdict(comparison.headroom) == "yes" for comparison in of)
            rows.append(
                (
                    name,
                    objective(wanted),
                    NONE if best is None else best[0].label + FAILED * any(dagger(c, best[0]) for c in of),
                    *(mean_entry(mean) for mean in everybodys),
                    f"{clear} of {len(of)}",
                    NONE if not headrooms else f"{100 * min(headrooms):.1f} to {100 * max(headrooms):.1f}",
                )
            )
    headings = (
        *("group", "objective", "strongest human policy", "its mean", "best policy in hindsight", *BESIDE),
        *("headroom > 3 %", "headroom %"),
    )
    notes = (
        "Geometric mean over the seeds and cells of the group, objectives apart, of the score relative to the best "
        "found. Who lacks a cell or a seed has no mean.",
        "Best policy in hindsight: in each cell its best tuned baseline, as if known beforehand.",
    )
    return Table("The strongest human policy of each group", headings, tuple(rows), notes, words=3)


def mean_entry(mean: float | None) -> str:
    """A mean over cells."""
    return NONE if mean is None else ratio(Interval(mean, None, 1))


def _moves(comparison: Comparison, of: Variant | None) -> str:
    mean = None if of is None else comparison.mean(of, lambda measured: measured.reschedules)
    return NONE if mean is None else f"{mean.mean:.3g}"


def _worth_notes(found: Sequence[Comparison]) -> list[str]:
    verdicts = [(verdict(comparison.headroom), _name(comparison)) for comparison in found]
    said = []
    for word, meaning in (
        ("yes", "above 3 % with the whole interval"),
        ("unclear", "above or below 3 %, too unsure to say which"),
    ):
        names = [name for given, name in verdicts if given == word]
        said.append(f"Headroom {meaning}: {len(names)} of {len(found)}{': ' * bool(names)}{'; '.join(names)}.")
    return said


def _name(of: Comparison) -> str:
    return f"{of.cell}, {objective(of.objective)}"


def _floor_notes(found: Sequence[Comparison]) -> list[str]:
    names = sorted({comparison.objective for comparison in found} & FLOORS.keys())
    if not names:
        return []
    floors = " and ".join(f"{absolute(name, FLOORS[name])} ({objective(name)})" for name in names)
    return [
        f"No ratio: the best tuned baseline's score is at most {floors} with a seed, and a ratio of two numbers near "
        "zero says nothing."
    ]


def _failed_notes(found: Sequence[Comparison]) -> list[str]:
    shown = ((comparison, of) for comparison in found for of in (comparison.best_baseline, comparison.named(EVOLVING)))
    failed = any(of is not None and failures(comparison, of) for comparison, of in shown)
    return [f"{FAILED}: calls of the policy failed; its rows count like any other."] if failed else []


def _beaten_notes(found: Sequence[Comparison]) -> list[str]:
    beaten = [f"{_name(of)}: {', '.join(v.label for v in of.beaten)}" for of in found if of.beaten]
    return (
        [f"Better than the best found, so that headroom is larger than shown: {'; '.join(beaten)}."] if beaten else []
    )
