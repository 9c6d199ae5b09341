"""What has arrived in a simulation, as a workload that can be served again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from kernel_scenes import MIXED, calls, simulate
from run_scenes import FIXED, scenario_of

from autopoiesis.simulate.views import seen_requests
from autopoiesis.workload import Requests


def with_blocks() -> Requests:
    """Three calls, of which the last lies first among the ids; its first two blocks are those of the first."""
    return replace(
        calls((0.0, 1100, 5), (1.0, 100, 5), (2.0, 1600, 5)),
        block_start=np.array([3, 0, 0]),
        block_count=np.array([2, 0, 3]),
        block_ids=np.array([40, 41, 9, 40, 41]),
    )


def test_requests_seen_have_the_prefix_blocks_of_the_workload() -> None:
    simulation = simulate(with_blocks(), MIXED)
    simulation.advance(60.0)
    seen = seen_requests(simulation, np.array([2, 0, 1]), 0.0)
    assert seen.block_count.tolist() == [2, 0, 3]
    assert seen.block_ids.tolist() == [40, 41, 40, 41, 9]


def test_requests_not_asked_for_leave_no_blocks_behind() -> None:
    simulation = simulate(with_blocks(), MIXED)
    simulation.advance(60.0)
    seen = seen_requests(simulation, np.array([0, 1]), 0.0)
    assert seen.block_ids.tolist() == [40, 41]


def test_a_scenario_with_other_blocks_is_another_scenario() -> None:
    requests = with_blocks()
    other = replace(requests, block_ids=np.array([40, 41, 9, 50, 51]))
    assert scenario_of(FIXED, requests).digest() == scenario_of(FIXED, with_blocks()).digest()
    assert scenario_of(FIXED, requests).digest() != scenario_of(FIXED, other).digest()
