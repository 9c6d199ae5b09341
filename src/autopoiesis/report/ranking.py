"""What policies are compared by, and who is the best of the fixed ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autopoiesis.control.config import Row
    from autopoiesis.simulate.outcome import Books

Worth = tuple[str, bool, "Callable[[Books], float | None]"]
"""An objective: what it is called, whether more is better, and its value."""


def delay_per_request_s(books: Books) -> float | None:
    """Mean over completed requests of the time beyond the unloaded time."""
    return books.delay_s / books.completed if books.completed else None


def delay_score(books: Books) -> float:
    """What policies are compared by under `delay`: the mean delay, and 600 s for each request not completed."""
    # A report may be drawn, and help printed, without the simulator; only this comparison needs it.
    from autopoiesis.simulate.outcome import score

    return score("delay", books, None)


WORTHS: dict[str, Worth] = {
    "cost_per_good": ("$/1k good", False, lambda books: books.cost_per_good_usd),
    "goodput": ("good", True, lambda books: books.goodput),
    "delay": ("delay (not completed: 600 s)", False, delay_score),
}


def best_baseline(rows: Sequence[Row], objective: str) -> Row | None:
    """The fixed policy with the best objective; the first of equals. None if no baseline has a value."""
    return best([row for row in rows if row.kind == "baseline"], objective)


def best(rows: Sequence[Row], objective: str) -> Row | None:
    """The row with the best objective; the first of equals. None if none has a value."""
    _, more, value = WORTHS[objective]
    valued = [(-worth if more else worth, row) for row in rows if (worth := value(row.operator)) is not None]
    return min(valued, key=lambda entry: entry[0])[1] if valued else None
