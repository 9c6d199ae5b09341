"""A suite carried out by worker processes: interrupted or not, by one or by several, it comes to the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from autopoiesis.bench.suite.cells import Cell, Load, Suite
from autopoiesis.bench.suite.jobs import jobs_of
from autopoiesis.bench.suite.results import Results, read
from autopoiesis.bench.suite.work import STORE, Order, carry_out_suite
from autopoiesis.errors import ScenarioError

CELL = Cell(
    "tiny",
    "scaling",
    "elastic-h100",
    (Load("llama-3.1-70b", "conversation", base_rps=0.2),),
    load=0.1,
    slice_hours=0.05,
    sweeps={"load": (0.1, 0.2), "planner_cost": (1.0,)},
    paper=True,
)
SUITE = Suite(
    "tiny",
    (CELL,),
    seeds=1,
    trials=2,
    finalists=1,
    training_share=0.5,
    bound_runs=2,
    sweep_bound_runs=1,
    policies=("static", "amortised", "scale-to-load"),
)


class Silent:
    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.shares: list[float] = []

    def progress(self, done: float, total: float, at_work: Sequence[str]) -> None:
        self.shares.append(done / total)

    def ended(self, job: str, seconds: float) -> None:
        self.jobs.append(job)


def told(results: Results) -> list[tuple[object, ...]]:
    """What was measured, without the seconds that it took."""
    rows = [(row.policy, row.kind, row.measured.score, row.measured.cost_usd, row.detail) for row in results.rows]
    swept = [(row.driver, row.value, row.policy, row.kind, row.measured.score) for row in results.sweeps]
    papers = [(row.policy, row.accounting, row.total_s, row.serving_s) for row in results.papers]
    return [*sorted(rows, key=str), *sorted(swept), *sorted(papers)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results, Silent]:
    out, watch = tmp_path_factory.mktemp("whole"), Silent()
    return out, carry_out_suite(Order(SUITE, out, None, 2, "autopoiesis bench"), watch), watch


def test_tuning_comes_before_what_needs_it() -> None:
    kinds = [job.kind for job in jobs_of(SUITE)]
    assert kinds == ["tune", "measure", "paper", "sweep", "sweep", "sweep"]


def test_every_policy_is_measured_as_it_ships_and_tuned_beside_the_evolving_system_and_the_bounds(
    whole: tuple[Path, Results, Silent],
) -> None:
    _, results, watch = whole
    assert {(row.policy, row.kind) for row in results.rows} == {
        ("static", "default"),
        ("amortised", "default"),
        ("amortised", "tuned"),
        ("scale-to-load", "default"),
        ("scale-to-load", "tuned"),
        ("evolving", "evolving"),
        ("best-fixed", "bound"),
        ("best-found", "bound"),
        ("per-window", "bound"),
    }
    assert {(row.driver, row.value, row.own) for row in results.sweeps} == {
        ("load", 0.1, True),
        ("load", 0.2, False),
        ("planner_cost", 1.0, True),
    }
    assert {row.accounting for row in results.papers} == {"overlapped", "additive"}
    assert {row.policy for row in results.papers} == {"static", "amortised", "evolving"}
    assert len(watch.jobs) == 6
    assert watch.shares == sorted(watch.shares)


def test_nothing_found_is_worse_than_what_anybody_did(whole: tuple[Path, Results, Silent]) -> None:
    score = {(row.policy, row.kind): row.measured.score for row in whole[1].rows}
    assert score["best-found", "bound"] == min(value for (name, _), value in score.items() if name != "per-window")


def test_the_results_are_in_the_folder(whole: tuple[Path, Results, Silent]) -> None:
    out, results, _ = whole
    kept = {(row.policy, row.kind): row.measured.score for row in read(out).rows}
    assert kept == pytest.approx({(row.policy, row.kind): row.measured.score for row in results.rows}, rel=1e-8)
    meta = read(out).meta
    assert {tuple(entry) for entry in meta.planned_rows} == {
        (row.group, row.cell, row.objective, row.seed, row.policy, row.kind) for row in results.rows
    }
    assert len(meta.planned_sweeps) == len(results.sweeps)
    assert len(meta.planned_papers) == len(results.papers)


def test_the_cells_own_value_of_a_driver_is_the_cell_itself(whole: tuple[Path, Results, Silent]) -> None:
    tuned = {row.policy: row.measured for row in whole[1].rows if row.kind in ("tuned", "bound")}
    for row in whole[1].sweeps:
        if row.own and row.kind == "tuned":
            assert row.measured == tuned[row.policy]


def test_what_is_there_is_not_measured_again(whole: tuple[Path, Results, Silent]) -> None:
    out, results, _ = whole
    again = carry_out_suite(Order(SUITE, out, None, 1, "autopoiesis bench"), Silent())
    # to the last second that it took
    assert again.rows == results.rows
    assert again.sweeps == results.sweeps
    assert again.papers == results.papers


KILLED = """
import sys
from pathlib import Path
from test_suite_work import SUITE, Silent
from autopoiesis.bench.suite.work import Order, carry_out_suite
if __name__ == "__main__":
    carry_out_suite(Order(SUITE, Path(sys.argv[1]), None, 1, "autopoiesis bench"), Silent())
"""


def test_killed_and_begun_again_it_comes_to_the_same(whole: tuple[Path, Results, Silent], tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    folder = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    for patience_s in (4.0, 5.0):
        with subprocess.Popen(
            [sys.executable, str(script), str(folder)], env=environment, start_new_session=True
        ) as process:
            until = time.monotonic() + 60.0
            while not (folder / STORE).exists() and time.monotonic() < until:
                time.sleep(0.05)
            time.sleep(patience_s)
            os.killpg(process.pid, signal.SIGKILL)
    resumed = carry_out_suite(Order(SUITE, folder, None, 2, "autopoiesis bench"), Silent())
    assert told(resumed) == told(whole[1])


def test_a_cell_that_cannot_be_served_is_named_once_the_others_are_measured(tmp_path: Path) -> None:
    large = Cell("large", "controls", "demo-8", (Load("llama-3.1-405b", "conversation", base_rps=0.2),))
    small = replace(CELL, name="small", sweeps={}, paper=False)
    crowded = replace(SUITE, cells=(large, small), policies=("static", "amortised"))
    with pytest.raises(ScenarioError, match="large tune: "):
        carry_out_suite(Order(crowded, tmp_path, None, 1, "autopoiesis bench"), Silent())
    assert {row.cell for row in read(tmp_path).rows} == {"small"}
