"""Who stands out on the page: the evolving system, the best fixed policy, and the others behind them."""

from __future__ import annotations

from dataclasses import dataclass

from autopoiesis.control.account import Account
from autopoiesis.report.figures import BEST, EVOLVING, OTHER
from autopoiesis.report.html import Markup, joined, tag
from autopoiesis.report.ranking import best_baseline


@dataclass(frozen=True)
class Line:
    """How a policy is drawn."""

    colour: str
    width: float
    dashes: str
    over: int
    """Lines of larger numbers lie over others."""


@dataclass(frozen=True)
class Cast:
    """The rows of an account by their part."""

    leads: tuple[str, ...]
    """The evolving system and the best fixed policy, or the only row."""
    others: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.leads, *self.others)

    @property
    def first(self) -> str:
        return self.leads[0]

    def line(self, name: str) -> Line:
        """Colours differ, and so do widths and dashes: a page may be printed in grey."""
        if name == self.first:
            return Line(EVOLVING, 2.0, "-", 4)
        return Line(BEST, 1.5, (0, (5, 1.6)), 3) if name in self.leads else Line(OTHER, 0.8, "-", 2)  # type: ignore[arg-type]

    def title(self, name: str) -> str:
        """The name, and what part it has."""
        return f"{name} (best fixed policy)" if name in self.leads[1:] else name

    def legend(self) -> Markup:
        """What the lines of the charts below stand for."""
        entries = [(self.title(name), self.line(name)) for name in self.leads]
        if self.others:
            entries.append((f"the other {len(self.others)} fixed policies", self.line(self.others[0])))
        variable = {EVOLVING: "evolving", BEST: "best", OTHER: "other"}
        return tag(
            "ul",
            joined(
                tag(
                    "li",
                    tag(
                        "svg",
                        tag(
                            "line",
                            x1="0",
                            x2="30",
                            y1="6",
                            y2="6",
                            stroke=f"var(--{variable[line.colour]})",
                            stroke_width=f"{2 * line.width:g}",
                            stroke_dasharray="9 3" if line.colour == BEST else "none",
                        ),
                        viewBox="0 0 30 12",
                        aria_hidden="true",
                    ),
                    name,
                )
                for name, line in entries
            ),
            class_="legend",
        )


def cast_of(account: Account) -> Cast:
    """The parts in an account's rows: by the objective of operator mode."""
    names = [row.name for row in account.rows]
    evolving = [row.name for row in account.rows if row.kind == "evolving"]
    leads = evolving or names[:1]
    best = best_baseline(account.rows, account.setting.scenario.objective) if evolving else None
    if best is not None:
        leads = [*leads, best.name]
    return Cast(tuple(leads), tuple(name for name in names if name not in leads))
