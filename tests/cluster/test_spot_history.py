"""Spot histories: what their files may hold, and what they look like from afar."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopoiesis.cluster import SpotHistory
from autopoiesis.cluster.history import read_spot_history
from autopoiesis.errors import ScenarioError, TraceError

STEPS = SpotHistory((0.0, 600.0, 1200.0, 2400.0, 3600.0), (4, 2, 1, 4, 4))
"""A loss of two, ten minutes later one of one, and after twenty minutes everything again."""


def written(folder: Path, text: str | bytes) -> str:
    path = folder / "history.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_a_file_is_a_step_function_from_its_first_row_on(tmp_path: Path) -> None:
    path = written(tmp_path, "zone,t_s,nodes\r\na,100,4\r\n\r\na,700.5,2\r\na,1300,2\r\n")
    assert read_spot_history(path, 30.0) == SpotHistory((0.0, 600.5, 1200.0), (4, 2, 2), 30.0)


def test_a_byte_order_mark_is_no_part_of_a_column(tmp_path: Path) -> None:
    assert read_spot_history(written(tmp_path, b"\xef\xbb\xbft_s,nodes\n0,4\n700,2\n")).peak == 4


def test_statistics_count_losses_nodes_and_the_way_back() -> None:
    seen = STEPS.statistics()
    assert seen.availability == pytest.approx((600 * 4 + 600 * 2 + 1200 * 1 + 1200 * 4) / 3600 / 4)
    assert (seen.losses_per_hour, seen.nodes_per_loss, seen.loss_gap_s_p50) == (2.0, 1.5, 600.0)
    assert seen.node_losses_per_node_hour == pytest.approx(3 / (2.6667), rel=1e-4)
    assert [seen.recovery_s_p50, seen.recovery_s_p90] == pytest.approx([1500.0, 1740.0])


def test_a_history_without_losses_has_no_gaps_and_no_recoveries() -> None:
    seen = SpotHistory((0.0, 100.0), (3, 3)).statistics()
    assert (seen.availability, seen.losses_per_hour, seen.nodes_per_loss) == (1.0, 0.0, None)
    assert (seen.loss_gap_s_p50, seen.recovery_s_p50, seen.recovery_s_p90) == (None, None, None)


def test_a_world_enters_anywhere_and_goes_round() -> None:
    begun = set()
    for seed in range(40):
        levels = list(islice(STEPS.levels(np.random.default_rng(seed)), 20))
        times = [at_s for at_s, _ in levels]
        assert times[0] == 0.0
        assert times == sorted(times)
        begun.add(levels[0][1])
        # one time round, a level comes again
        assert np.array(levels[5:9]) == pytest.approx(np.array(levels[1:5]) + np.array((3600.0, 0.0)))
    assert begun == {0.25, 0.5, 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; a header t_s,nodes"),
        ("t_s,nodes\n", "line 1: a history needs two rows"),
        ("t_s,nodes\n0,1\n", "line 2: a history needs two rows"),
        ("t,nodes\n0,1\n", "line 1: column 't_s': missing from the header"),
        ("t_s,nodes,nodes\n0,1,1\n", "line 1: column 'nodes': named 2 times"),
        ("t_s,nodes\n0,1\n60\n", "line 3: 1 fields under a header of 2"),
        ("t_s,nodes\n0,1\n60,x\n", "line 3: column 'nodes': 'x' is not a number from 0 to 1e"),
        ("t_s,nodes\n0,1\n60,-1\n", "line 3: column 'nodes': '-1' is not"),
        ("t_s,nodes\n0,1\n60,nan\n", "line 3: column 'nodes': 'nan' is not"),
        ("t_s,nodes\n0,1\n60,1.5\n", "line 3: column 'nodes': 1.5 is not whole"),
        ("t_s,nodes\n0,1\n1_000,1\n", "line 3: column 't_s': '1_000' is not"),
        ("t_s,nodes\n9,1\n8,1\n", "line 3: column 't_s': earlier than the row before; sort"),
        ("t_s,nodes\n0,1\n9,1\n", "line 3: column 't_s': the history spans 9 s; give at least 60 s"),
        ("t_s,nodes\n0,0\n99,5\n", "column 'nodes': 0 in every row"),
        ('t_s,nodes\n0,"1\n', "not a row of CSV"),
        (b"t_s,nodes\n0,1\n\xff,1\n", "line 3: not UTF-8"),
    ],
)
def test_a_wrong_file_is_answered_with_line_column_and_mend(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TraceError) as caught:
        read_spot_history(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"nowhere\.csv: no such file"):
        read_spot_history(str(tmp_path / "nowhere.csv"))
    with pytest.raises(TraceError, match="is no file"):
        read_spot_history(str(tmp_path))


cells = st.one_of(st.integers(-1, 20).map(str), st.floats().map(repr), st.text(max_size=4))
lines = st.lists(st.lists(cells, max_size=3).map(",".join), max_size=8).map("\n".join)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=60), lines.map(lambda text: b"t_s,nodes\n" + text.encode())))
def test_any_file_is_a_history_or_one_line_of_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = written(tmp_path_factory.getbasetemp(), data)
    said = ""
    try:
        statistics = read_spot_history(path).statistics()
    except TraceError as error:
        said = str(error)
    assert said.startswith(f"{path}: ") if said else 0 < statistics.availability <= 1
    assert "\n" not in said


@pytest.mark.parametrize(
    ("t_s", "nodes"),
    [((0.0,), (1,)), ((0.0, 60.0), (1,)), ((1.0, 90.0), (1, 1)), ((0.0, 90.0, 60.0), (1, 1, 1)), ((0.0, 9.0), (1, 1))],
)
def test_steps_that_make_no_history_are_refused(t_s: tuple[float, ...], nodes: tuple[int, ...]) -> None:
    with pytest.raises(ScenarioError, match="spot history"):
        SpotHistory(t_s, nodes)


RECORDED = os.environ.get("AUTOPOIESIS_SPOT_HISTORIES")
"""A folder with Bamboo's histories, which are not part of this repository."""


@pytest.mark.skipif(RECORDED is None, reason="AUTOPOIESIS_SPOT_HISTORIES names no folder")
@pytest.mark.parametrize(
    ("name", "availability", "losses_per_hour", "nodes_per_loss", "recovery_s"),
    [
        ("p2", 0.9691, 1.1951, 1.6226, (565.2, 1659.6)),
        ("g4dn_1c", 0.6792, 1.4287, 2.4286, (1078.0, 1940.8)),
        ("g4dn_1d", 0.2068, 1.3401, 3.0, (836.0, 6248.0)),
    ],
)
def test_recorded_histories_have_their_published_statistics(
    name: str, availability: float, losses_per_hour: float, nodes_per_loss: float, recovery_s: tuple[float, float]
) -> None:
    seen = read_spot_history(f"{RECORDED}/spot_aws_{name}.csv").statistics()
    assert seen.availability == pytest.approx(availability, abs=1e-4)
    assert seen.losses_per_hour == pytest.approx(losses_per_hour, abs=1e-4)
    assert seen.nodes_per_loss == pytest.approx(nodes_per_loss, abs=1e-4)
    assert (seen.recovery_s_p50, seen.recovery_s_p90) == pytest.approx(recovery_s, abs=0.1)
