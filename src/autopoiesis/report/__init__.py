"""A finished run as one HTML page that needs no network: for a phone, for paper, for whoever was not there.

`page` writes it from an `Account`. Plots are drawn by matplotlib, an extra that only `page` imports.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

from autopoiesis.errors import AutopoiesisError

if TYPE_CHECKING:
    from autopoiesis.control.account import Account

__all__ = ["can_draw", "check_drawing", "page"]

INSTALL = "pip install 'autopoiesis[report]'"


def can_draw() -> bool:
    """Whether the library that draws plots is installed."""
    return find_spec("matplotlib") is not None


def check_drawing(flag: str) -> None:
    """Before anything runs: AutopoiesisError if plots cannot be drawn."""
    if not can_draw():
        raise AutopoiesisError(f"{flag}: plots are drawn by matplotlib, which is not installed; {INSTALL}")


def page(account: Account) -> str:
    """The whole page. Equal accounts give equal text."""
    # that a cache of fonts cannot be kept is nothing that a reader can mend
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from autopoiesis.report.document import written

    return written(account)
