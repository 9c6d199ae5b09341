"""The suites that ship, and what their files may say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autopoiesis.bench.suite.cells import DRIVERS, GROUPS, SUITES, Cell, Load, cluster_of, suite
from autopoiesis.bench.suite.tuning import spaces
from autopoiesis.cluster import catalog
from autopoiesis.cluster.spot import SpotLosses
from autopoiesis.errors import ScenarioError
from autopoiesis.policy.library import library

CELL = Cell("one", "controls", "demo-8", (Load("llama-3.1-8b", "conversation"),))


@pytest.mark.parametrize("name", SUITES)
def test_every_cell_names_models_that_there_are_and_a_cluster_that_can_be_read(name: str) -> None:
    for cell in suite(name).cells:
        assert cluster_of(cell).pools
        for load in cell.loads:
            assert catalog.model(load.model)
        for driver, values in cell.sweeps.items():
            for value in values:
                assert cluster_of(cell.with_driver(driver, value)).pools


def test_the_headroom_suite_has_every_group_and_a_sweep_and_two_cells_in_paper_mode_for_each() -> None:
    cells = suite("headroom").cells
    assert [group for group in GROUPS if any(cell.group == group for cell in cells)] == list(GROUPS)
    for group in GROUPS:
        assert sum(cell.paper for cell in cells if cell.group == group) == 2
        assert sum(bool(cell.sweeps) for cell in cells if cell.group == group) == 1
    assert {driver for cell in cells for driver in cell.sweeps} == set(DRIVERS)


def test_every_policy_with_parameters_is_tuned() -> None:
    fixed = {"static", "round-robin", "least-loaded", "power-of-two"}
    assert set(spaces()) == set(library()) - fixed


def test_cells_are_chosen_by_name_or_group() -> None:
    headroom = suite("headroom")
    assert {cell.group for cell in headroom.only("sharing").cells} == {"sharing"}
    assert [cell.name for cell in headroom.only("two-drift-one").cells] == ["two-drift-one"]
    with pytest.raises(ScenarioError, match="matches no cell of suite 'headroom'; it has 8b-hom-conversation"):
        headroom.only("nothing")


def test_an_unknown_suite_is_named_with_those_there_are() -> None:
    with pytest.raises(ScenarioError, match="headroom"):
        suite("headrom")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"group": "control"}, "field 'group'.*controls"),
        ({"objective": "total_time"}, "field 'objective'"),
        ({"loads": ()}, "field 'loads' is empty"),
        ({"slice_starts_h": (23.5,)}, "within the day"),
        ({"sweeps": {"window": (1.0,)}}, "window_s"),
        ({"loads": (Load("llama-3.1-8b", "code", then="conversation"),)}, "every_s"),
    ],
)
def test_a_cell_that_cannot_be_is_refused_by_field(change: dict[str, object], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        replace(CELL, **change)  # type: ignore[arg-type]


def test_a_driver_changes_one_thing_of_the_cell_or_its_cluster() -> None:
    # the requests stay where they were under the cell's own window
    assert CELL.with_driver("window_s", 30.0) == replace(CELL, window_s=30.0, shift_s=60.0)
    assert CELL.with_driver("window_s", 60.0) == CELL.with_driver("load", CELL.load) == CELL
    drifting = replace(CELL, loads=(Load("llama-3.1-8b", "mix-shift", amplitude=0.5), CELL.loads[0]))
    assert [load.amplitude for load in drifting.with_driver("amplitude", 2.0).loads] == [1.0, None]
    slow = cluster_of(CELL.with_driver("weight_loading", 0.55)).pools[0].storage
    assert (slow.drive, slow.page_cache_bytes) == ("sata", 0.0)
    spot = replace(CELL, cluster="spot-contended")
    demand, *others = (pool.price_per_hour for pool in cluster_of(spot).pools)
    dearer = [pool.price_per_hour for pool in cluster_of(spot.with_driver("price", 2.0)).pools]
    assert dearer == [demand, *(2 * price for price in others)]
    market = cluster_of(spot.with_driver("churn", 0.43)).pools[1].spot
    assert isinstance(market, SpotLosses)
    # 24 GPUs in nodes of four: 6 nodes, each lost 0.43 times an hour, 2.4 at a time
    assert market.losses_per_hour == pytest.approx(6 * 0.43 / 2.4)
    assert [pool.spot.notice_s for pool in cluster_of(spot.with_driver("churn", 0.43)).pools if pool.spot] == [120, 30]


def test_a_cells_digest_follows_what_it_says_and_what_its_cluster_does() -> None:
    assert CELL.digest() == replace(CELL).digest()
    assert CELL.digest() != replace(CELL, load=0.8).digest()
    assert CELL.digest() != CELL.with_driver("weight_loading", 7.0).digest()
    # what else is asked of a cell changes no measurement
    assert CELL.digest() == replace(CELL, paper=True, sweeps={"load": (0.1,)}).digest()
