"""What a run of the suite keeps, and how it is written."""

import json
import math
import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suite_samples import SHIFT, measured, meta, rows, sample

from autopoiesis.bench.suite.results import FILE, Results, RowResult, read, write
from autopoiesis.errors import AutopoiesisError


def one(score: float = 1.0, **changed: object) -> Results:
    row = RowResult("shift", "shared", "cost_per_good", 1, "static", "default", measured(score, **changed), {})
    return sample(rows=[row], sweeps=[], papers=[])


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    planned = {
        "planned_rows": [("shared", "shift", "cost_per_good", 1, "static", "default")],
        "planned_sweeps": [("shared", "shift", "cost_per_good", "load", 0.7, 1, "static", "default")],
        "planned_papers": [("shared", "shift", 1, "static", "default", "additive")],
    }
    results = sample(meta=meta(**planned))
    write(tmp_path / "made", results)
    found = read(tmp_path / "made")
    assert found.meta == results.meta
    assert sorted(map(repr, found.rows)) == sorted(map(repr, results.rows))
    assert sorted(map(repr, found.sweeps)) == sorted(map(repr, results.sweeps))
    assert len(found.papers) == len(results.papers)


@settings(max_examples=20)
@given(chance=st.randoms(use_true_random=False))
def test_the_order_in_which_rows_were_measured_leaves_no_trace(
    chance: random.Random, tmp_path_factory: pytest.TempPathFactory
) -> None:
    results, folder = sample(), tmp_path_factory.mktemp("results")
    shuffled = [chance.sample(of, len(of)) for of in (results.rows, results.sweeps, results.papers)]
    written = [write(folder, of).read_bytes() for of in (results, Results(results.meta, *shuffled))]  # type: ignore[arg-type]
    assert written[0] == written[1]


def test_floats_have_nine_significant_digits_and_zero_no_sign(tmp_path: Path) -> None:
    text = write(tmp_path, one(2 / 3, delay_s=-0.0)).read_text()
    assert '"score":0.666666667' in text
    assert '"delay_s":0.0' in text


def test_rounding_reaches_into_details(tmp_path: Path) -> None:
    row = msgspec.structs.replace(rows(SHIFT)[0], detail={"tuned": {"MARGIN": 1 / 3}, "b": [2 / 3], "a": None})
    text = write(tmp_path, sample(rows=[row])).read_text()
    assert '"detail":{"a":null,"b":[0.666666667],"tuned":{"MARGIN":0.333333333}}' in text


def test_an_infinite_score_is_null_and_infinite_again(tmp_path: Path) -> None:
    path = write(tmp_path, one(math.inf, cost_per_good_usd=None))
    (row,) = json.loads(path.read_text())["rows"]
    assert row["measured"]["score"] is None
    (back,) = read(tmp_path).rows
    assert back.measured.score == math.inf
    assert back.measured.cost_per_good_usd is None


@pytest.mark.parametrize("changed", [{"score": math.nan}, {"charged_s": math.inf}])
def test_what_is_no_number_is_not_written(tmp_path: Path, changed: dict[str, float]) -> None:
    field = next(iter(changed))
    with pytest.raises(AutopoiesisError, match=field):
        write(tmp_path, one(**changed))
    assert not list(tmp_path.iterdir())


def test_a_row_measured_twice_is_refused(tmp_path: Path) -> None:
    results = sample()
    with pytest.raises(AutopoiesisError, match=r"two rows of .*'shift'"):
        write(tmp_path, msgspec.structs.replace(results, rows=[*results.rows, results.rows[0]]))


def test_a_folder_without_results_says_how_they_are_made(tmp_path: Path) -> None:
    with pytest.raises(AutopoiesisError, match="autopoiesis bench --out"):
        read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"meta": {}}', '{"meta": 1, "rows": [], "sweeps": [], "papers": []}'])
def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(AutopoiesisError, match=FILE):
        read(tmp_path)
