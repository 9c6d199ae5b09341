"""The deployment over time: a row for every GPU, a bar for what every replica did on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from autopoiesis.control.account import Account, Course, ReplicaLife
from autopoiesis.control.config import SwapEntry
from autopoiesis.report.cast import Cast
from autopoiesis.report.figures import INK, MODELS, SOFT, plot, time_axis
from autopoiesis.report.html import Markup, joined, tag
from autopoiesis.report.numbers import counted, grouped
from autopoiesis.simulate.scenario import Mode

TALLEST, ROW, MARGIN, WIDTH = 3.2, 0.15, 0.45, 4.0
"""Inches: all rows together, one of them where there is room, what surrounds them, and the whole from left to right."""
PALE = 0.35
"""Strength of a bar's colour under a hatch."""
LOADING, DRAINING = "////", "\\\\\\\\"
EDGE = "#15181b"
"""Around bars and of hatches: dark in the dark too, for bars are not."""
GAP = 0.06
"""Between bars, in rows."""
SHADES = (1.0, 0.62, 0.36, 0.8, 0.48)
"""Strength of a model's colour, by its shape."""

RISING, FALLING = "M0 12L12 0M12 12L24 0M24 12L36 0", "M6 0L18 12M18 0L30 12M-6 0L6 12"
"""The hatches in a legend."""

Shape = tuple[str, str]
"""A model, and how it is laid over GPUs."""


@dataclass(frozen=True)
class Rows:
    """Where on the chart every GPU has its row."""

    of: dict[tuple[str, int], int]
    count: int
    edges: tuple[int, ...]
    """Rows at which another node begins."""
    kinds: dict[str, tuple[int, int]]
    """GPU kind → its first row and how many it has."""


@dataclass(frozen=True)
class Frame:
    """What charts that stand beside one another have in common."""

    shapes: dict[Shape, str]
    """Colours."""
    end_s: float
    rows: int


def timelines(account: Account, cast: Cast, names: Sequence[str], mode: Mode = Mode.OPERATOR) -> Markup:
    """A chart for each of these policies, on the same scales."""
    courses = {name: account.course(name, mode) for name in names}
    frame = Frame(
        all_shapes(account, mode),
        max((course.end_s[-1] for course in courses.values() if course.end_s), default=0.0),
        max((rows_of(course.replicas).count for course in courses.values()), default=0),
    )
    return joined(
        _timeline(
            f"plan-{mode.value}-{cast.names.index(name)}",
            cast.title(name),
            course,
            account.legs[name, mode].swaps,
            frame,
        )
        for name, course in courses.items()
    )


def all_shapes(account: Account, mode: Mode) -> dict[Shape, str]:
    """A colour for every shape that any policy used: the model's, the stronger the earlier it comes."""
    found = sorted(
        {_shape(life) for name, of in account.legs if of is mode for life in account.course(name, of).replicas}
    )
    colours = dict(zip((load.model for load in account.setting.scenario.workloads), cycle(MODELS), strict=False))
    count: dict[str, int] = {}
    shades = {}
    for shape in found:
        position = count.get(shape[0], 0)
        count[shape[0]] = position + 1
        shades[shape] = _mixed(colours.get(shape[0], SOFT), SHADES[position % len(SHADES)])
    return shades


def legend(account: Account, mode: Mode = Mode.OPERATOR) -> Markup:
    """What colours and hatches stand for."""
    entries = [(f"{model}, {how}", colour, "") for (model, how), colour in all_shapes(account, mode).items()]
    entries += [
        ("comes up", "", RISING),
        ("drains", "", FALLING),
    ]
    return tag(
        "ul",
        joined(
            tag(
                "li",
                tag(
                    "svg",
                    tag(
                        "rect",
                        width="30",
                        height="12",
                        fill=colour or "var(--paper)",
                        stroke="var(--ink)",
                        stroke_width=".6",
                    ),
                    tag("path", d=path, stroke="var(--ink)", stroke_width="1.2") if path else "",
                    viewBox="0 0 30 12",
                    aria_hidden="true",
                ),
                title,
            )
            for title, colour, path in entries
        ),
        class_="legend",
    )


def rows_of(lives: Iterable[ReplicaLife]) -> Rows:
    """Nodes of a kind one below the other; one that came after another had gone takes its place."""
    lives = list(lives)
    spans: dict[str, tuple[float, float]] = {}
    kinds: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for life in lives:
        for node, position in life.gpus:
            begin, end = spans.get(node, (life.launched_s, life.ended_s))
            spans[node] = (min(begin, life.launched_s), max(end, life.ended_s))
            kinds[node] = life.gpu
            sizes[node] = max(sizes.get(node, 0), position + 1)
    of: dict[tuple[str, int], int] = {}
    edges: list[int] = []
    shown: dict[str, tuple[int, int]] = {}
    count = 0
    for kind in sorted(set(kinds.values())):
        first = count
        size = max(sizes[node] for node in kinds if kinds[node] == kind)
        free: list[tuple[float, int]] = []
        for node in sorted((node for node in kinds if kinds[node] == kind), key=lambda node: (spans[node][0], node)):
            begin, end = spans[node]
            place = next((i for i, (until, _) in enumerate(free) if until <= begin), None)
            if place is None:
                free.append((end, count))
                edges.append(count)
                place, count = len(free) - 1, count + size
            row = free[place][1]
            free[place] = (end, row)
            of |= {(node, position): row + position for position in range(size)}
        shown[kind] = (first, count - first)
    return Rows(of, count, tuple(edges), shown)


def _timeline(name: str, title: str, course: Course, swaps: Sequence[SwapEntry], frame: Frame) -> Markup:
    rows = rows_of(course.replicas)
    with plot(name, height=min(TALLEST, ROW * max(frame.rows, 3)) + MARGIN, width=WIDTH) as drawn:
        axes = drawn.axes
        for (colour, hatch), corners in _bars(course, rows, frame.shapes).items():
            # one path for all bars of a kind: a run of a thousand replicas still is a small page
            bars = Path.make_compound_path(*(Path(box, closed=True) for box in corners))
            face = _mixed(colour, PALE) if hatch else colour
            axes.add_patch(PathPatch(bars, hatch=hatch, facecolor=face, edgecolor=EDGE, linewidth=0.4))
        for swap in swaps:
            axes.axvline(swap.t, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), zorder=5)
            axes.plot(swap.t, -0.1, marker="v", linestyle="", color=INK, markersize=4.5, clip_on=False, zorder=6)
        time_axis(axes, frame.end_s)
        _name_rows(axes, rows, frame)
        said = _said(course, swaps)
        return drawn.figure(title, said, f"{said}. At the end: {_at_end(course)}.")


def _name_rows(axes: Axes, rows: Rows, frame: Frame) -> None:
    axes.set_ylim(max(frame.rows, 1), 0)
    axes.set_yticks([edge for edge in rows.edges if edge], minor=True)
    axes.set_yticks(
        [first + size / 2 for first, size in rows.kinds.values()],
        [f"{size}× {kind}" for kind, (_, size) in rows.kinds.items()],
        rotation=90,
        va="center",
    )
    axes.tick_params(axis="y", which="both", length=0)
    axes.grid(False)
    axes.grid(True, axis="y", which="minor", color=SOFT, linewidth=0.6)


def _said(course: Course, swaps: Sequence[SwapEntry]) -> str:
    replicas = len(course.replicas) + course.replicas_left_out
    said = f"{counted(replicas, 'replica')} in all, {counted(sum(course.reschedules), 'reschedule')}"
    if swaps:
        said += f", {counted(len(swaps), 'takeover')} (▼)"
    if course.replicas_left_out:
        said += f"; the first {grouped(len(course.replicas))} replicas are drawn"
    return said


def _bars(
    course: Course, rows: Rows, shapes: dict[Shape, str]
) -> dict[tuple[str, str], list[list[tuple[float, float]]]]:
    """The corners of every bar, by colour and hatch."""
    found: dict[tuple[str, str], list[list[tuple[float, float]]]] = {}
    for life in course.replicas:
        serving = life.serving_from_s if life.serving_from_s is not None else life.ended_s
        draining = max(life.draining_from_s if life.draining_from_s is not None else life.ended_s, serving)
        for low, high in _runs(sorted({rows.of[node, gpu] for node, gpu in life.gpus})):
            top, bottom = low + GAP, high + 1 - GAP
            for begin, end, hatch in (
                (life.launched_s, serving, LOADING),
                (serving, draining, ""),
                (draining, life.ended_s, DRAINING),
            ):
                if end > begin:
                    box = [(begin, top), (end, top), (end, bottom), (begin, bottom), (begin, top)]
                    found.setdefault((shapes[_shape(life)], hatch), []).append(box)
    return found


def _runs(rows: list[int]) -> Iterable[tuple[int, int]]:
    """Neighbouring rows together: first and last of each stretch."""
    begin = last = rows[0]
    for row in rows[1:]:
        if row != last + 1:
            yield begin, last
            begin = row
        last = row
    yield begin, last


def _at_end(course: Course) -> str:
    count: dict[str, int] = {}
    for life in course.replicas:
        if life.end == "end of run":
            key = f"{life.model} on {_shape(life)[1]}"
            count[key] = count.get(key, 0) + 1
    return ", ".join(f"{times}× {what}" for what, times in sorted(count.items())) or "no replica"


def _shape(life: ReplicaLife) -> Shape:
    how = f"{life.gpu} tp{life.tensor_parallel}" + (
        f" pp{life.pipeline_parallel}" if life.pipeline_parallel > 1 else ""
    )
    return life.model, how if life.role == "mixed" else f"{how} {life.role}"


def _mixed(colour: str, strength: float) -> str:
    """The colour, paler."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(strength * part + (1 - strength) * 255):02x}" for part in parts)
