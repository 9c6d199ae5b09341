"""What is written: JSON bytes, whole files, and text without surprises."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from cli_reports import report, row, simulate_report
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.cli.output import (
    check_writable,
    dumps,
    emit,
    printable,
    report_json,
    say,
    simulate_json,
    write_whole,
)
from autopoiesis.errors import ScenarioError

SPREAD = ["mean", "p50", "p90", "p99"]
TIMES = ["total_s", "scheduling_s", "reconfiguration_s", "serving_s"]
OPERATOR = [
    *("requests", "completed", "lost", "shed", "rejected", "good", "goodput", "cost_usd", "cost_per_good_usd"),
    *("delay_s", "gpu_hours", "ttft_s", "tpot_s", "e2e_s"),
]
ROW = ["name", "kind", "operator", "paper", "reschedules"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def nine_digits(value: object) -> object:
    match value:
        case float():
            return float(f"{value:.9g}")
        case list():
            return [nine_digits(item) for item in value]
        case dict():
            return {key: nine_digits(item) for key, item in value.items()}
    return value


def test_the_json_of_a_run_has_its_keys_in_order() -> None:
    read = json.loads(dumps(report_json(report())))
    assert list(read) == ["rows", "swaps", "seed", "wall_s"]
    first = read["rows"][0]
    assert list(first) == ROW
    assert list(first["operator"]) == OPERATOR
    assert all(list(first["operator"][name]) == SPREAD for name in ("ttft_s", "tpot_s", "e2e_s"))
    assert list(first["paper"]) == ["overlapped", "additive"]
    assert all(list(times) == TIMES for times in first["paper"].values())
    assert list(read["swaps"][0]) == ["t", "mode", "policy", "parent", "provider", "evidence"]
    assert read["seed"] == 7


def test_the_json_of_a_simulation_is_one_row_and_how_fast_it_was() -> None:
    read = json.loads(dumps(simulate_json(simulate_report())))
    assert list(read) == [*ROW, "wall_s", "simulated_requests_per_s", "peak_rss_mb"]
    assert read["name"] == "static"
    assert read["paper"] is None


def test_no_good_request_is_a_cost_of_null() -> None:
    text = dumps({"cost_per_good_usd": row("static", "baseline", good=0).operator.cost_per_good_usd})
    assert text == '{\n  "cost_per_good_usd": null\n}\n'


def test_floats_have_nine_significant_digits_and_stay_floats() -> None:
    values = [1.0, 0.1, 1 / 3, 123456789.123, 1e-7, 2e20, -0.0, float("inf"), float("nan"), np.float32(0.5)]
    expected = ["1.0", "0.1", "0.333333333", "123456789.0", "1e-07", "2e+20", "0.0", "null", "null", "0.5"]
    assert [dumps(value).strip() for value in values] == expected
    assert dumps(np.int64(3)) == "3\n"
    assert dumps(True) == "true\n"


@given(json_values)
def test_what_is_written_reads_back_the_same_to_nine_digits(value: object) -> None:
    assert json.loads(dumps(value)) == nine_digits(value)


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    target.write_text("old")
    write_whole(str(target), "new")
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["out.json"]


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    target.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(str(target), "\udc80")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.json"]


def test_a_link_is_written_through_and_a_device_is_not_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "out.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    write_whole(str(link), "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    write_whole("/dev/null", "new")
    assert Path("/dev/null").is_char_device()


def test_a_place_that_cannot_be_written_is_found_before_anything_runs(tmp_path: Path) -> None:
    check_writable(str(tmp_path / "out.json"), "--json")
    with pytest.raises(ScenarioError, match=r"--json .*: is a folder"):
        check_writable(str(tmp_path), "--json")
    with pytest.raises(ScenarioError, match=r"--json .*: folder .* does not exist; create it"):
        check_writable(str(tmp_path / "absent" / "out.json"), "--json")
    assert os.listdir(tmp_path) == []


def test_messages_are_one_line_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    say("refused:\n  line 1: \x1b[31mno\n\n  line 2\n")
    assert capsys.readouterr().err == "refused:; line 1: \ufffd[31mno; line 2\n"
    assert printable("a\tb\x07c") == "a b\ufffdc"


def test_stdout_gets_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    emit("ρ = 1\n\n")
    assert capsys.readouterr().out == "ρ = 1\n\n"
