"""The page about a run as a file: there whole, or not at all."""

from __future__ import annotations

from collections.abc import Callable

from autopoiesis.cli.output import write_whole
from autopoiesis.control.account import Account
from autopoiesis.report import page


def page_writer(path: str | None, flag: str = "--report") -> Callable[[Account], None] | None:
    """What to call with a run's account to write its page to `path`; None if nobody wants one.

    What it returns raises ScenarioError where the file cannot be written.
    """
    if path is None:
        return None

    def write(account: Account) -> None:
        write_whole(path, page(account), flag)

    return write
