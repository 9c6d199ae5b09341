"""How single figures of the comparison are written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable

from autopoiesis.bench.suite.intervals import Interval
from autopoiesis.bench.suite.statistics import AS_GOOD, WORTH_WINNING, Comparison, Variant
from autopoiesis.report.numbers import dollars, short

MISSING, NONE, INFINITE, FAILED = "missing", "–", "∞", "†"
"""What was to be measured and was not; what was not to be; a score that is infinite; calls of the policy failed."""
_OBJECTIVES = {"cost_per_good": "cost", "goodput": "goodput", "delay": "delay", "total_time": "total time"}


def objective(name: str) -> str:
    """What an objective is called in a table."""
    return _OBJECTIVES.get(name, name)


def ratio(found: Interval) -> str:
    """`1.03 ±0.01`, with fewer decimals the larger it is."""
    if math.isinf(found.mean):
        return INFINITE
    decimals = 2 if found.mean < 9.995 else 1 if found.mean < 99.95 else 0
    return f"{found.mean:.{decimals}f}" + ("" if found.half is None else f" ±{found.half:.{decimals}f}")


def percent(found: Interval | None, seeds: int, signed: bool = True) -> str:
    """`+12.3 ±1.1`, in per cent, with how many of the seeds if not all; a dash where there is none."""
    if found is None:
        return NONE
    partly = partial(found.n, seeds)
    if math.isinf(found.mean):
        return f"{'-' if found.mean < 0 else '+'}{INFINITE}{partly}"
    # Adding zero takes the sign off a negative zero.
    mean = round(100 * found.mean, 1) + 0.0
    half = "" if found.half is None else f" ±{100 * found.half:.1f}"
    return f"{mean:{'+' if signed else ''}.1f}{half}{partly}"


def partial(n: int, seeds: int) -> str:
    """How many seeds a figure is of, unless it is all."""
    return "" if n == seeds else f" ({n} of {seeds})"


def absolute(name: str, score: float) -> str:
    """A score in a unit that suits it: `$1.23/1k`, `0.4 % bad`, `8.1 ms`."""
    if math.isinf(score):
        return INFINITE
    match name:
        case "cost_per_good":
            return f"${dollars(1000 * score)}/1k"
        case "goodput":
            return f"{short(100 * score)} % bad"
        case "delay":
            return f"{short(1000 * score)} ms" if score < 1 else f"{short(score)} s"
        case _:
            return f"{short(score)} s"


def standing(comparison: Comparison, of: Variant) -> str:
    """A policy in its column: relative to the best found where that means something, else the score itself.

    With how many of the seeds, if not all; a dagger where calls of the policy failed.
    """
    if of not in comparison.everybody:
        return NONE
    score = comparison.mean(of, lambda measured: measured.score)
    if score is None:
        return MISSING
    relative = comparison.relative(of)
    if comparison.ratios_mean_something and relative is None:
        return MISSING
    found = absolute(comparison.objective, score.mean) if relative is None else ratio(relative)
    return found + dagger(comparison, of) + partial((relative or score).n, len(comparison.seeds))


def failures(comparison: Comparison, of: Variant) -> int:
    """Calls of the policy that failed, with all seeds."""
    return sum(measured.failures for measured in comparison.runs.get(of, {}).values())


def dagger(comparison: Comparison, of: Variant | None) -> str:
    """Where calls of the policy failed."""
    return FAILED if of is not None and failures(comparison, of) else ""


def label(comparison: Comparison, of: Variant | None, otherwise: str = NONE) -> str:
    """Who it is, with a dagger where calls of the policy failed."""
    return otherwise if of is None else of.label + dagger(comparison, of)


def verdict(headroom: Interval | None) -> str:
    """Whether there is something to win: `yes` or `no` where the whole interval says so."""
    if headroom is None:
        return NONE
    if headroom.half is None and math.isfinite(headroom.mean):
        return "unclear"
    if headroom.low > WORTH_WINNING:
        return "yes"
    return "no" if headroom.high <= WORTH_WINNING else "unclear"


def achievement(comparison: Comparison, saved: Interval | None) -> str:
    """Of the evolving system: the share of headroom that it closed, or how near it kept to the best tuned baseline."""
    if saved is None:
        return NONE
    if comparison.closed is not None:
        return f"{100 * comparison.closed:.0f} %" if math.isfinite(comparison.closed) else f"-{INFINITE}"
    if comparison.headroom is not None and comparison.headroom.mean > WORTH_WINNING:
        return NONE
    if abs(saved.mean) <= AS_GOOD:
        return "within 1 %"
    much = INFINITE if math.isinf(saved.mean) else f"{abs(100 * saved.mean):.1f} %"
    return f"{much} {'better' if saved.mean > 0 else 'worse'}"


def value(number: float) -> str:
    """A value of a driver."""
    return f"{number:g}"


def headroom_entry(comparison: Comparison) -> str:
    """Headroom in per cent, with how many of the seeds if not all; what stands in its place where there is none."""
    headroom = comparison.headroom
    if headroom is None:
        return "no ratio" if comparison.best_baseline and comparison.found else MISSING
    return percent(headroom, len(comparison.seeds), signed=False)


def describe_missing(
    missing: Iterable[tuple[Variant, tuple[int, ...]]], planned: Collection[tuple[Variant, int]]
) -> list[tuple[str, str]]:
    """Seeds and who is missing with them, in words; seeds that lack the same are told together."""
    lacking: dict[int, list[str]] = {}
    for of, seeds in missing:
        for seed in seeds:
            lacking.setdefault(seed, []).append(of.label)
    wanted = Counter(seed for _, seed in planned)
    alike: dict[str, list[int]] = {}
    for seed in sorted(lacking):
        who = "everybody" if len(lacking[seed]) == wanted[seed] else "; ".join(lacking[seed])
        alike.setdefault(who, []).append(seed)
    return [("all" if len(of) == len(wanted) else ", ".join(map(str, of)), who) for who, of in alike.items()]
