"""The benchmark of compiling: every way is measured, and a loop that is held up is seen to be."""

from __future__ import annotations

import asyncio
import time

from autopoiesis.bench.compiling import figures, longest_stall_s


def test_every_way_of_compiling_is_measured() -> None:
    measured = figures(repeats=1)
    assert len({figure.name for figure in measured}) == len(measured)
    assert all(value > 0 for figure in measured for value in figure.values)


def test_a_loop_that_is_held_up_has_stalled_for_as_long() -> None:
    async def hold_up() -> None:
        time.sleep(0.05)

    assert asyncio.run(longest_stall_s(hold_up)) >= 0.05
