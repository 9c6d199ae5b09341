"""Charts of a run over time: what came, what was held and paid, where time went, how well requests were answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import isnan, nan

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

from autopoiesis.control.account import Account, Course
from autopoiesis.report.cast import Cast
from autopoiesis.report.figures import INK, MODELS, NARROW, RULE, plot, thousands, time_axis
from autopoiesis.report.html import Markup, joined
from autopoiesis.report.numbers import clock, short
from autopoiesis.simulate.scenario import Mode

Series = NDArray[np.float64]
WIDE_RANGE = 40.0
"""Ratio of the largest to the smallest value from which on an axis is logarithmic."""
VISIBLE = 0.5
"""Per cent of a window; less is no more than a line on a chart."""
SCHEDULING, RECONFIGURATION = "#0072b2", "#e69f00"


def series(values: Iterable[float | None]) -> Series:
    """The values, NaN where there is none."""
    return np.array([nan if value is None else value for value in values], dtype=np.float64)


def edges(course: Course) -> Series:
    """(n + 1,) seconds: where the stretches begin and the last one ends."""
    return np.array([0.0, *course.end_s])


def ratio(part: Series, whole: Series) -> Series:
    """NaN where there is nothing to divide by."""
    found = np.full(len(part), nan)
    np.divide(part, whole, out=found, where=whole > 0)
    return found


def goodput(course: Course) -> Series:
    """Per cent of the requests that ended in each stretch that were answered within their SLO."""
    ended = sum((series(getattr(course, name)) for name in ("completed", "lost", "shed", "rejected")), series([0.0]))
    return 100 * ratio(series(course.good), ended)


def cost_per_thousand(course: Course) -> Series:
    """Dollars paid in each stretch for a thousand good answers."""
    return 1000 * ratio(series(course.cost_usd), series(course.good))


def load_charts(course: Course) -> Markup:
    """What came: how often, and how long prompts and answers were, by model."""
    rates = {model: ratio(series(load.arrivals), np.diff(edges(course))) for model, load in course.loads.items()}
    prompts = {m: ratio(series(load.input_tokens), series(load.arrivals)) for m, load in course.loads.items()}
    outputs = {m: ratio(series(load.output_tokens), series(load.completed)) for m, load in course.loads.items()}
    tokens = {m: ratio(series(load.input_tokens), np.diff(edges(course))) for m, load in course.loads.items()}
    return joined(
        (
            _by_model("rate", "Requests per second", "that arrived, stacked by model", course, rates, stacked=True),
            _by_model(
                "demand", "Prompt tokens per second", "that arrived, stacked by model", course, tokens, stacked=True
            ),
            _by_model("prompts", "Prompt length", "mean tokens, by arrival", course, prompts),
            _by_model("answers", "Answer length", "mean tokens, by completion", course, outputs),
        )
    )


def money_charts(account: Account, cast: Cast) -> Markup:
    """GPUs held, money spent and what a thousand good answers cost, by policy."""
    courses = {name: account.course(name) for name in cast.names}
    return joined(
        (
            _by_policy("gpus", "GPUs held", "mean of each window", cast, courses, lambda c: series(c.gpus), zero=True),
            _by_policy(
                "spent",
                "Money spent",
                "US dollars since the beginning",
                cast,
                courses,
                lambda c: np.cumsum(np.nan_to_num(series(c.cost_usd))),
                zero=True,
            ),
            _by_policy(
                "cost",
                "Price of good answers",
                "US dollars per thousand, window by window",
                cast,
                courses,
                cost_per_thousand,
            ),
        )
    )


def service_charts(account: Account, cast: Cast) -> Markup:
    """Good answers, backlog and latencies, by policy."""
    courses = {name: account.course(name) for name in cast.names}

    def latency(name: str, title: str, field: str, scale: float, unit: str) -> Markup:
        return _by_policy(
            name,
            title,
            f"{unit}, of what completed in each window",
            cast,
            courses,
            lambda course: scale * series(getattr(course, field)),
        )

    return joined(
        (
            _by_policy(
                "goodput",
                "Good answers",
                "% of the requests that ended in each window",
                cast,
                courses,
                goodput,
                most=100.0,
            ),
            _by_policy(
                "backlog",
                "Backlog",
                "requests that had come and not ended",
                cast,
                courses,
                lambda c: series(c.backlog),
                zero=True,
            ),
            latency("ttft50", "Time to first token, median", "ttft_p50_s", 1.0, "seconds"),
            latency("ttft90", "Time to first token, p90", "ttft_p90_s", 1.0, "seconds"),
            latency("ttft99", "Time to first token, p99", "ttft_p99_s", 1.0, "seconds"),
            latency("tpot90", "Time per output token, p90", "tpot_p90_s", 1000.0, "milliseconds"),
        )
    )


@dataclass(frozen=True)
class Phases:
    """What the time of a row went into: every instant counts once."""

    at: Series
    """(n + 1,) seconds: edges of the stretches."""
    scheduling_s: Series
    """(n,)"""
    reconfiguration_s: Series
    """(n,)"""

    @property
    def totals_s(self) -> tuple[float, float, float, float]:
        """Everything, scheduling, reconfiguration, serving."""
        whole, planned, moved = float(self.at[-1]), float(self.scheduling_s.sum()), float(self.reconfiguration_s.sum())
        return whole, planned, moved, whole - planned - moved

    def shares(self) -> tuple[Series, Series]:
        """Per cent of every stretch: scheduling, reconfiguration."""
        length = np.diff(self.at)
        planned, moved = (np.nan_to_num(ratio(part, length)) for part in (self.scheduling_s, self.reconfiguration_s))
        return 100 * planned, 100 * moved


def phases(course: Course) -> Phases:
    """Where the time of a row went."""
    planned, moved = (np.nan_to_num(series(values)) for values in (course.scheduling_s, course.reconfiguration_s))
    return Phases(edges(course), planned, moved)


def phase_charts(account: Account, cast: Cast, mode: Mode) -> Markup:
    """Where the time of every window went, a small chart for every policy; empty if there is nothing to be seen."""
    found = {name: phases(account.course(name, mode)) for name in cast.names}
    if not any((np.add(*of.shares()) >= VISIBLE).any() for of in found.values()):
        return Markup()
    end_s = max(float(of.at[-1]) for of in found.values())
    return joined(_phases(f"phases-{mode.value}-{i}", name, of, end_s) for i, (name, of) in enumerate(found.items()))


def _phases(name: str, policy: str, of: Phases, end_s: float) -> Markup:
    planned, moved = of.shares()
    with plot(name, height=1.15, width=NARROW) as drawn:
        axes = drawn.axes
        axes.stairs(np.full(len(planned), 100.0), of.at, fill=True, color=RULE, linewidth=0)
        axes.stairs(planned + moved, of.at, fill=True, color=SCHEDULING, linewidth=0)
        axes.stairs(moved, of.at, fill=True, facecolor=RECONFIGURATION, edgecolor=INK, linewidth=0, hatch="/////")
        axes.set_ylim(0, 100)
        axes.set_yticks([0, 50, 100])
        axes.grid(False)
        time_axis(axes, end_s)
        whole, *parts = of.totals_s
        said = ", ".join(
            f"{word} {100 * seconds / max(whole, 1e-9):.1f} %"
            for word, seconds in zip(("scheduling", "reconfiguration"), parts[:2], strict=True)
        )
        return drawn.figure(policy, said, f"Of {clock(whole)}: {said}.")


def _by_model(
    name: str, title: str, caption: str, course: Course, values: dict[str, Series], stacked: bool = False
) -> Markup:
    at = edges(course)
    with plot(name, height=1.6, width=NARROW) as drawn:
        base = np.zeros(len(at) - 1)
        for colour, (model, of) in zip(cycle(MODELS), values.items(), strict=False):
            if stacked:
                drawn.axes.stairs(base + of, at, baseline=base, fill=True, color=colour, alpha=0.85, label=model)
                base = base + np.nan_to_num(of)
            else:
                _steps(drawn.axes, at, of, color=colour, linewidth=1.6, label=model)
        drawn.axes.set_ylim(
            0, 1.08 * max((float(np.nanmax(of, initial=0.0)) for of in [base, *values.values()]), default=0.0) or 1.0
        )
        time_axis(drawn.axes, at[-1])
        drawn.axes.yaxis.set_major_formatter(FuncFormatter(thousands))
        _legend_above(drawn.axes)
        return drawn.figure(title, caption, _told(values))


def _by_policy(
    name: str,
    title: str,
    caption: str,
    cast: Cast,
    courses: dict[str, Course],
    value: Callable[[Course], Series],
    zero: bool = False,
    most: float | None = None,
) -> Markup:
    values = {policy: value(course) for policy, course in courses.items()}
    with plot(name) as drawn:
        axes = drawn.axes
        for policy in reversed(cast.names):
            line = cast.line(policy)
            _steps(
                axes,
                edges(courses[policy]),
                values[policy],
                color=line.colour,
                linewidth=line.width,
                linestyle=line.dashes,
                zorder=line.over,
            )
        time_axis(axes, max(course.end_s[-1] if course.end_s else 0.0 for course in courses.values()))
        _scale(axes, list(values.values()), zero, most)
        return drawn.figure(title, caption, _told({policy: values[policy] for policy in cast.leads}))


def _scale(axes: Axes, values: Sequence[Series], zero: bool, most: float | None) -> None:
    known = np.concatenate([of[~np.isnan(of)] for of in values]) if values else np.zeros(0)
    positive = known[known > 0]
    if not zero and most is None and len(positive) and positive.max() / positive.min() > WIDE_RANGE:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        return
    axes.yaxis.set_major_formatter(FuncFormatter(thousands))
    top = float(known.max()) if len(known) else 1.0
    axes.set_ylim(0, most * 1.04 if most is not None else (1.08 * top or 1.0))


def _steps(axes: Axes, at: Series, values: Series, **style: object) -> None:
    axes.stairs(values, at, baseline=None, **style)  # type: ignore[arg-type]


def _legend_above(axes: Axes) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        frameon=False,
        borderpad=0,
        borderaxespad=0.2,
        handlelength=1.2,
        columnspacing=1.2,
        fontsize=8,
    )


def _told(values: dict[str, Series]) -> str:
    """The lines in words."""
    said = []
    for name, of in values.items():
        known = [float(value) for value in of if not isnan(value)]
        if known:
            said.append(
                f"{name}: from {short(known[0])} to {short(known[-1])}, "
                f"between {short(min(known))} and {short(max(known))}"
            )
    return "; ".join(said) + "." if said else "Nothing to be shown."
