"""How the pictures of the comparison look: colours, markers, legends, and how they become SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autopoiesis.report.figures import MODELS, SETTINGS

MARKERS = ("o", "s", "^", "v", "D", "P", "X", "h")
STYLE: Any = {**SETTINGS, "svg.fonttype": "path"}
_NUMBER = re.compile(r"(\d+\.\d{2})\d+")
_GEOMETRY = re.compile(r'\s(?:d|x|y)="[^"]*"')


def colour_of(look: int) -> str:
    """Of what comes in place `look`, round and round."""
    return MODELS[look % len(MODELS)]


def marker_of(look: int) -> str:
    """The same; one further in each round of the colours, so that no two are alike."""
    return MARKERS[(look + look // len(MODELS)) % len(MARKERS)]


def mark_of(look: int, name: str, line: bool = False) -> Line2D:
    """An entry of a legend."""
    mark = Line2D([], [], color=colour_of(look), marker=marker_of(look), markersize=5, label=name)
    if not line:
        mark.set_linestyle("")
    return mark


def legend(figure: Figure, marks: Sequence[Line2D], columns: int) -> None:
    """Above the picture."""
    figure.legend(
        handles=list(marks),
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        fontsize=8,
        handletextpad=0.4,
        columnspacing=1.4,
        borderpad=0.2,
    )


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches, in the style of these pictures while it is drawn."""
    defaults: Any = dict(matplotlib.rcParamsDefault)
    with matplotlib.rc_context({**defaults, **STYLE}):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_facecolor("white")
        yield figure


def written(figure: Figure) -> str:
    """As SVG; of equal figures the same bytes."""
    drawn = io.StringIO()
    # neither a date nor a program in it: equal plots are equal bytes
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(drawn, format="svg", metadata=nothing)
    # a hundredth of a point is finer than any screen
    svg = _GEOMETRY.sub(lambda found: _NUMBER.sub(r"\1", found[0]), drawn.getvalue())
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"
