"""How a plot is drawn and put on the page: as SVG whose text is text and whose colours are those of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from autopoiesis.report.html import Markup, tag, text

WIDTH, NARROW = 3.7, 2.9
"""Inches of an ordinary figure, and of a small one. Text of 8.5 points is some 11 pixels on a phone."""
INK, SOFT, RULE, PAPER = "#101214", "#50585f", "#cfd4da", "#fdfefe"
EVOLVING, BEST, OTHER = "#0072b3", "#d55e01", "#9aa3ae"
THEME = {INK: "ink", SOFT: "soft", RULE: "rule", PAPER: "paper", EVOLVING: "evolving", BEST: "best", OTHER: "other"}
"""Colours of a plot that stand for variables of the page's style, so that a plot follows it into the dark."""
MODELS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a600", "#7a5195")
"""Okabe and Ito's colours, which the colour-blind tell apart; https://jfly.uni-koeln.de/color/."""
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "autopoiesis",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.7,
    "path.simplify": False,
}
_NUMBER = re.compile(r"(\d+\.\d{2})\d+")
_GEOMETRY = re.compile(r'\s(?:d|x|y|points|transform)="[^"]*"')


class Plot:
    """One pair of axes on the way to the page."""

    def __init__(self, name: str, axes: Axes, figure: Figure) -> None:
        self.name = name
        """Unique on the page."""
        self.axes = axes
        self._figure = figure

    def figure(self, title: str, caption: str, described: str) -> Markup:
        """The figure with its title; `described` says in words what is to be seen, for who cannot see it."""
        drawn = io.StringIO()
        # neither a date nor a program in it: equal plots are equal bytes
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        self._figure.savefig(drawn, format="svg", metadata=nothing)
        label = f"{self.name}-t"
        words = tag("title", title, id=label) + tag("desc", described, id=f"{self.name}-d")
        svg = _inline(drawn.getvalue(), self.name, label, Markup(words))
        return tag("figure", tag("figcaption", tag("b", title), tag("span", caption)), svg, id=self.name)


@contextmanager
def plot(name: str, height: float = 1.75, width: float = WIDTH) -> Iterator[Plot]:
    """A plot of so many inches."""
    defaults: Any = dict(matplotlib.rcParamsDefault)
    with matplotlib.rc_context({**defaults, **SETTINGS}):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0.0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0.0)
        yield Plot(name, axes, figure)


def time_axis(axes: Axes, end_s: float) -> None:
    """Time from the beginning of the run, in the unit that suits its length."""
    unit, size = ("s", 1.0) if end_s <= 180 else ("min", 60.0) if end_s <= 3 * 3600 else ("h", 3600.0)
    axes.set_xlim(0, max(end_s, 1e-9))
    # ticks fall on whole units
    axes.set_xticks(
        [
            size * tick
            for tick in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(0, end_s / size)
            if 0 <= tick * size <= end_s
        ]
    )
    last = max(axes.get_xticks(), default=0.0)

    def spelt(value: float, _: object) -> str:
        return f"{value / size:g} {unit}" if value == last else f"{value / size:g}"

    axes.xaxis.set_major_formatter(FuncFormatter(spelt))


def thousands(value: float, _: object = None) -> str:
    """`500`, `12k`, `1.5M`: what fits beside an axis."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:g}"


def _inline(svg: str, name: str, label: str, words: Markup) -> Markup:
    """The SVG as part of a page: without prolog, its ids its own, its colours those of the page."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->\s*|<style.*?</style>", "", body, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]*)"', body)
    assert box is not None
    opening = f'<svg viewBox="{box[1]}" role="img" aria-labelledby="{text(label)}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    body = body[body.index(">") + 1 :]
    wanted = set(re.findall(r'(?:url\(|href=")#([^)"]+)', body))
    body = re.sub(r'\sid="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in wanted else "", body)
    body = body.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    body = opening + words + body
    for colour, variable in THEME.items():
        body = body.replace(colour, f"var(--{variable})")
    # a hundredth of a point is finer than any screen
    body = _GEOMETRY.sub(lambda found: _NUMBER.sub(r"\1", found[0]), body)
    return Markup(re.sub(r"\s+", " ", body).replace("> <", "><").strip())
