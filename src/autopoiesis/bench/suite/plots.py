"""The comparison in three pictures: headroom by cell, every policy everywhere, and what drives headroom.

Groups differ in colour (Okabe and Ito's, which the colour-blind tell apart) and in their marker. Text is drawn as
shapes, so that a picture is the same wherever it is shown; equal results give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from autopoiesis.bench.suite.entries import INFINITE, headroom_entry, objective
from autopoiesis.bench.suite.marks import canvas, colour_of, legend, mark_of, marker_of, written
from autopoiesis.bench.suite.results import Results
from autopoiesis.bench.suite.statistics import (
    BEST_FIXED,
    EVOLVING,
    HUMAN,
    WORTH_WINNING,
    Comparison,
    by_group,
    comparisons,
)
from autopoiesis.bench.suite.sweeps import Setting, settings
from autopoiesis.report.figures import INK, RULE, SOFT

WORST = -30.0
"""Per cent; what is worse than that against the best tuned baseline is drawn at the edge, with its number."""
FLOATING: Any = {"marker": "d", "markersize": 5, "markerfacecolor": "none", "color": INK, "zorder": 6}
UPRIGHT: Any = {"marker": "|", "markersize": 9, "markeredgewidth": 1.4, "color": INK, "zorder": 6}
NEAREST, FARTHEST = 0.95, 4.0
"""Relative scores up to which, and from which on, a point is not drawn in its place."""
BEYOND, EDGE = 4.7, 6.8
"""Where those beyond are drawn instead, with the largest in figures, and where the axis ends."""
TICKS = (1.0, 1.5, 2.0, 3.0, 4.0)
ACROSS = 4
"""Small multiples beside one another."""


def pictures(results: Results) -> dict[str, str]:
    """SVG by name: `headroom`, `policies` and `sweeps`, each only where there is something to be drawn."""
    found, swept = comparisons(results), settings(results)
    drawn = {
        "headroom": headroom_plot(found),
        "policies": policies_plot(found),
        "sweeps": sweeps_plot(swept),
    }
    return {name: svg for name, svg in drawn.items() if svg}


def headroom_plot(found: Sequence[Comparison]) -> str:
    """Headroom of every comparison with its interval; beside it what evolving and the best fixed plan save."""
    groups = by_group(found)
    if not any(comparison.headroom for comparison in found):
        return ""
    rows = [(look, comparison) for look, (_, of) in enumerate(groups) for comparison in of]
    several = {cell for _, of in groups for cell, n in _objectives(of).items() if n > 1}
    with canvas(7.2, 0.9 + 0.24 * (len(rows) + len(groups))) as figure:
        axes = figure.add_subplot()
        axes.axvspan(0, 100 * WORTH_WINNING, color=RULE, alpha=0.45, linewidth=0)
        axes.axvline(0, color=SOFT, linewidth=0.8)
        ticks, names = [], []
        for position, (look, comparison) in enumerate(rows):
            # an empty line between groups
            y = position + look
            ticks.append(y)
            name = comparison.cell
            names.append(f"{name}, {objective(comparison.objective)}" if name in several else name)
            _savings(axes, y, look, comparison)
        axes.set_yticks(ticks, names)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(rows) + len(groups) - 1.4, -0.6)
        low, high = axes.get_xlim()
        # headroom is at most all there is; an interval may go on
        axes.set_xlim(max(low, WORST - 2), min(high, 104.0))
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:+.0f} %" if share else "0"))
        axes.set_xlabel("better than the best tuned baseline by (grey: up to 3 %)")
        marks = [
            *(mark_of(look, name) for look, (name, _) in enumerate(groups)),
            Line2D([], [], linestyle="", label="evolving", **FLOATING),
            Line2D([], [], linestyle="", label="best fixed plan", **UPRIGHT),
        ]
        legend(figure, marks, 4)
        return written(figure)


def _savings(axes: Axes, y: int, look: int, comparison: Comparison) -> None:
    headroom = comparison.headroom
    if headroom is None:
        axes.annotate(headroom_entry(comparison), (0, y), (4, 0), textcoords="offset points", va="center", fontsize=7)
        return
    best = {"marker": marker_of(look), "markersize": 5, "color": colour_of(look)}
    beyond = []
    for name, saved, style in (
        ("best found", headroom, best),
        ("evolving", comparison.saved(comparison.named(EVOLVING)), FLOATING),
        ("fixed", comparison.saved(comparison.named(BEST_FIXED)), UPRIGHT),
    ):
        if saved is None:
            continue
        share, half = 100 * saved.mean, 100 * (saved.half or 0.0) * (name == "best found")
        if share >= WORST:
            axes.errorbar([share], [y], xerr=[half] if half else None, linestyle="", elinewidth=1.6, capsize=2, **style)
        else:
            axes.plot([WORST], [y], marker="<", color=INK, markersize=4)
            beyond.append(f"{name} " + (f"{share:.0f} %" if math.isfinite(share) else f"-{INFINITE}"))
    if beyond:
        axes.annotate(", ".join(beyond), (1.01, y), xycoords=axes.get_yaxis_transform(), va="center", fontsize=7)


def policies_plot(found: Sequence[Comparison]) -> str:
    """A small chart for every policy: its score relative to the best found in every cell, a line a group."""
    groups = by_group([comparison for comparison in found if comparison.ratios_mean_something])
    policies = sorted(
        {of.policy for _, group in groups for c in group for of in c.runs if of.kind in (*HUMAN, "evolving")}
    )
    policies.sort(key=lambda policy: (policy != EVOLVING, policy))
    if not policies:
        return ""
    down = math.ceil(len(policies) / ACROSS)
    with canvas(7.2, 0.7 + down * (0.55 + 0.15 * len(groups))) as figure:
        grid = figure.subplots(down, ACROSS, sharex=True, sharey=True, squeeze=False)
        for position, axes in enumerate(grid.flat):
            if position >= len(policies):
                axes.set_visible(False)
                continue
            _policy(axes, policies[position], groups)
            # the last of each column has the ticks of the column
            axes.tick_params(axis="x", labelbottom=position + ACROSS >= len(policies))
        dot: Any = {"color": INK, "linestyle": "", "markersize": 4}
        marks = [
            Line2D([], [], marker="o", label="tuned, or only so", **dot),
            Line2D([], [], marker="o", markerfacecolor="white", label="default", **dot),
            Line2D([], [], marker=">", label=f"beyond {FARTHEST:g}; the farthest in figures", **dot),
        ]
        figure.supxlabel("score relative to the best found (1 is best)", fontsize=8.5, color=SOFT)
        legend(figure, marks, 4)
        return written(figure)


def _policy(axes: Axes, policy: str, groups: Sequence[tuple[str, list[Comparison]]]) -> None:
    axes.set_title(policy, fontsize=8.5, loc="left", color=INK)
    axes.axvline(1.0, color=SOFT, linewidth=0.8)
    for y, (_, group) in enumerate(groups):
        variants = sorted({of for comparison in group for of in comparison.runs if of.policy == policy})
        farthest = 0.0
        for of in variants:
            points = [point.mean for comparison in group if (point := comparison.relative(of))]
            farthest = max(farthest, *points, 0.0)
            last = of == variants[-1]
            lift = 0.0 if len(variants) == 1 else -0.18 if last else 0.18
            marked = {
                "<": [NEAREST for share in points if share < NEAREST],
                marker_of(y): [share for share in points if NEAREST <= share <= FARTHEST],
                ">": [BEYOND for share in points if share > FARTHEST],
            }
            for marker, shares in marked.items():
                if not shares:
                    # an empty line counts as one in the corner of the figure, and pushes everything about
                    continue
                style: Any = {"color": colour_of(y), "markerfacecolor": colour_of(y) if last else "white"}
                at = [y + lift] * len(shares)
                axes.plot(shares, at, marker, markersize=3.6, markeredgewidth=0.7, clip_on=False, **style)
        if farthest > FARTHEST:
            number = INFINITE if math.isinf(farthest) else f"{farthest:.{1 if farthest < 9.95 else 0}f}"
            axes.text(EDGE, y, number, ha="right", va="center", fontsize=6, color=SOFT)
    axes.set_xscale("log")
    axes.set_xlim(NEAREST, EDGE)
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}"))
    axes.tick_params(axis="x", labelsize=7)
    axes.set_yticks(range(len(groups)), [name for name, _ in groups], fontsize=7)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(True, axis="x")


def sweeps_plot(swept: Sequence[Setting]) -> str:
    """A chart for every driver: headroom against its value, a line for each cell and objective."""
    known = [setting for setting in swept if setting.comparison.headroom is not None]
    if not known:
        return ""
    drivers = [(driver, list(of)) for driver, of in groupby(known, key=lambda setting: setting.driver)]
    places = sorted({_name(setting.comparison) for setting in known})
    across = min(3, len(drivers))
    down = math.ceil(len(drivers) / across)
    with canvas(2.4 * across + (1.2 if across == 1 else 0.0), 0.6 + 1.75 * down) as figure:
        grid = figure.subplots(down, across, sharey=True, squeeze=False)
        for position, axes in enumerate(grid.flat):
            if position >= len(drivers):
                axes.set_visible(False)
                continue
            driver, of = drivers[position]
            axes.axhspan(0, 100 * WORTH_WINNING, color=RULE, alpha=0.45, linewidth=0)
            axes.set_title(driver, fontsize=8.5, loc="left", color=INK)
            _lines(axes, of, places)
            if position % across == 0:
                axes.set_ylabel("headroom")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0f} %"))
        own = Line2D([], [], color=INK, marker="o", markersize=5, linestyle="", label="filled: the cell's own value")
        legend(figure, [*(mark_of(look, name, line=True) for look, name in enumerate(places)), own], 3)
        return written(figure)


def _lines(axes: Axes, swept: Sequence[Setting], places: Sequence[str]) -> None:
    values = sorted({setting.value for setting in swept})
    above = next((value for value in values if value > 0), 1.0)
    scaled = values
    if values[-1] / above > 10:
        # down to the least above zero; below it as far again to zero
        axes.set_xscale("symlog", linthresh=above)
        scaled = [1.0 + math.log10(value / above) if value > 0 else 0.0 for value in values]
    # a tick at every value, unless its number would touch that of another
    room = (scaled[-1] - scaled[0]) / 8
    ticks = [0]
    for at in range(1, len(values) - 1):
        if scaled[at] - scaled[ticks[-1]] >= room and scaled[-1] - scaled[at] >= room:
            ticks.append(at)
    axes.xaxis.set_major_locator(FixedLocator([values[at] for at in ticks] + values[-1:]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for look, place in enumerate(places):
        points = [
            (setting.value, 100 * headroom.mean, setting.own)
            for setting in swept
            if _name(setting.comparison) == place and (headroom := setting.comparison.headroom) is not None
        ]
        style: Any = {"color": colour_of(look), "marker": marker_of(look), "markersize": 4.5}
        own = [point for point in points if point[2]]
        for shown, look_of in ((points, {"linewidth": 1.2, "markerfacecolor": "white"}), (own, {"linestyle": ""})):
            axes.plot([value for value, *_ in shown], [headroom for _, headroom, _ in shown], **style, **look_of)


def _objectives(group: Sequence[Comparison]) -> dict[str, int]:
    cells = [comparison.cell for comparison in group]
    return {cell: cells.count(cell) for cell in cells}


def _name(comparison: Comparison) -> str:
    return f"{comparison.cell}, {objective(comparison.objective)}"
