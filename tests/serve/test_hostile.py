"""Thousands of clients, good and hostile, before engines that are good or worse: nothing breaks, leaks or mixes up."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hostile.besieged import besieged


def test_two_thousand_clients_of_all_kinds_get_replies_that_are_theirs_and_in_form(tmp_path: Path) -> None:
    outcome = besieged(tmp_path, 2_000, seed=1)
    sys.stdout.write("\n".join(["", *outcome.lines(), ""]))
    assert outcome.violations == []


@pytest.mark.slow
def test_twenty_four_thousand_leave_the_gateway_as_large_as_it_was(tmp_path: Path) -> None:
    outcome = besieged(tmp_path, 24_000, seed=2)
    sys.stdout.write("\n".join(["", *outcome.lines(), ""]))
    assert outcome.violations == []
    assert outcome.growth < 0.05
