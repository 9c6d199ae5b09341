"""Whole runs: the same seed gives the same report, a killed run goes on, every row balances its books."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from control_configs import Silent, few_starters, small_run

import autopoiesis.control.run as control
from autopoiesis.control.account import Leg
from autopoiesis.control.config import Report
from autopoiesis.control.run import Comparison, run, run_key, simulate
from autopoiesis.errors import PolicyError
from autopoiesis.evolve.store import Store
from autopoiesis.loop.control import ControlLoop
from autopoiesis.loop.log import EventLog, replay
from autopoiesis.policy.library import library, starters
from autopoiesis.policy.source import PolicySource
from autopoiesis.simulate.run import Run
from autopoiesis.simulate.scenario import Mode


def without_clock(report: Report) -> bytes:
    return msgspec.json.encode(replace(report, wall_s=0.0))


@pytest.fixture(scope="module")
def paper_report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("run")
    return folder, run(small_run(folder, load=1.3, paper=True, budget=0.05), Silent())


def test_the_evolving_system_stands_beside_every_baseline(paper_report: tuple[Path, Report]) -> None:
    _, report = paper_report
    assert [row.name for row in report.rows] == ["evolving", *sorted(starters())]
    assert [row.kind for row in report.rows] == ["evolving"] + ["baseline"] * len(starters())


def test_books_balance_in_every_row(paper_report: tuple[Path, Report]) -> None:
    _, report = paper_report
    for row in report.rows:
        books = row.operator
        assert books.requests == books.completed + books.lost + books.shed + books.rejected
        assert 0 <= books.good <= books.completed
        assert books.goodput == pytest.approx(books.good / books.requests)
        assert books.cost_usd > 0
        assert books.ttft_s.p50 <= books.ttft_s.p90 <= books.ttft_s.p99


def test_paper_totals_are_the_sum_of_their_parts(paper_report: tuple[Path, Report]) -> None:
    _, report = paper_report
    for row in report.rows:
        assert row.paper is not None
        for times in (row.paper.overlapped, row.paper.additive):
            assert times.total_s == pytest.approx(times.scheduling_s + times.reconfiguration_s + times.serving_s)


def test_the_same_seed_gives_the_same_report(paper_report: tuple[Path, Report], tmp_path: Path) -> None:
    _, report = paper_report
    again = run(small_run(tmp_path, load=1.3, paper=True, budget=0.05), Silent())
    assert without_clock(again) == without_clock(report)


def test_another_seed_gives_another_world(paper_report: tuple[Path, Report], tmp_path: Path) -> None:
    _, report = paper_report
    other = run(small_run(tmp_path, load=1.3, seed=5), Silent())
    assert other.rows[0].operator != report.rows[0].operator


def test_a_finished_run_is_answered_from_the_store(paper_report: tuple[Path, Report]) -> None:
    folder, report = paper_report
    watch = Silent()
    again = run(small_run(folder, load=1.3, paper=True, budget=0.05), watch)
    assert without_clock(again) == without_clock(report)
    assert not watch.notices


def test_the_event_log_of_a_row_replays_to_the_same_commands(paper_report: tuple[Path, Report]) -> None:
    from autopoiesis.control.prepare import prepare, read

    folder, _ = paper_report
    config = small_run(folder, load=1.3, paper=True, budget=0.05)
    with Store(config.store) as store:
        ready = prepare(read(config.scenario, lambda text: None), store, lambda text: None)
        key = run_key(config, ready)
        scenario = ready.scenario
        for name in ("evolving", "milp-replan", "threshold"):
            kept = store.get_log(key, "operator", name)
            assert kept is not None
            log = EventLog.from_lines(kept.decode().splitlines())
            loop = ControlLoop(
                scenario.cluster,
                scenario.envelope,
                scenario.models,
                scenario.shapes,
                ready.plan,
                ready.capacity,
                scenario.planner_deadline_s,
            )
            assert len(log.records) > 5
            assert replay(log, loop) == []


@pytest.mark.parametrize(
    ("kills", "jobs"),
    [(8, 1), pytest.param(50, 1, marks=pytest.mark.slow), pytest.param(50, 2, marks=pytest.mark.slow)],
)
def test_a_run_killed_at_any_moment_goes_on_to_the_same_report(kills: int, jobs: int, tmp_path: Path) -> None:
    """`killed_runs` also looks into the store after every kill: it is sound, and has all that was finished before."""
    program = Path(__file__).with_name("killed_runs.py")
    command = [sys.executable, str(program), str(tmp_path), str(kills), str(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["kills"] == kills
    assert told["ended"]
    for resumed in told["ended"]:
        assert {**resumed, "wall_s": 0} == {**told["expected"], "wall_s": 0}


def test_a_run_leaves_its_windows_deployments_and_itself_in_the_store(paper_report: tuple[Path, Report]) -> None:
    folder, _ = paper_report
    with Store(folder / "store.db") as store:
        (finished,) = store.runs()
        assert finished.finished
        windows = {window.id: window for window in store.windows()}
        assert {score.window for score in store.scores()} == set(windows)
        assert all(0 <= window.start_s < window.end_s and window.requests for window in windows.values())
        began, *moved = store.deployments(finished.key, "operator", "milp-replan")
        assert (began.t, began.cause) == (0.0, "start")
        assert moved
        assert all(deployment.cause in ("apply", "repair") and deployment.plan["replicas"] for deployment in moved)


def test_a_run_larger_than_its_limit_forgets_others_and_gives_the_same_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "starters", few_starters)
    expected = run(small_run(tmp_path, load=1.3, count=100), Silent())
    with Store(tmp_path / "store.db") as store:
        (first,) = store.runs()
    run(replace(small_run(tmp_path, load=1.3, seed=1, count=100), store_limit_bytes=1), Silent())
    with Store(tmp_path / "store.db") as store:
        assert first.key not in [record.key for record in store.runs()]
        assert store.get_log(first.key, "operator", "evolving") is None
    again = run(replace(small_run(tmp_path, load=1.3, count=100), store_limit_bytes=1), Silent())
    assert without_clock(again) == without_clock(expected)


def test_simulate_serves_one_policy_and_says_how_fast(tmp_path: Path) -> None:
    config = small_run(tmp_path)
    report = simulate(config, library()["round-robin"], Silent())
    assert report.row.name == "round-robin"
    assert report.simulated_requests_per_s > 0
    assert report.peak_rss_mb > 10


ROUTES_NOWHERE = (
    "def route(request: Request, replicas: list[ReplicaView]) -> int:\n    return floor(99.0 + request.uniform1)\n"
)


@pytest.mark.parametrize(
    ("trigger", "planner", "route", "said"),
    [
        ("return 1 // 0 == 0", "return Decision(state.plan)", "", "ZeroDivisionError"),
        ("return state.window is not None", "return [][0]", "", "IndexError"),
        ("return state.window is not None", "return Decision(ServingPlan(()))", "", "plan refused"),
        ("return False", "return Decision(state.plan)", ROUTES_NOWHERE, "built-in balancer"),
    ],
)
def test_a_policy_that_only_fails_is_told_from_one_that_works(
    tmp_path: Path, trigger: str, planner: str, route: str, said: str
) -> None:
    text = (
        '"""Fails."""\nfrom autopoiesis.policy import Decision, ReplicaView, Request, ServingPlan\ninterface = 1\n'
        f"def should_reschedule(state):\n    {trigger}\ndef plan(state):\n    {planner}\n{route}"
    )
    watch = Silent()
    simulate(small_run(tmp_path), PolicySource("fails", text), watch)
    assert any(said in notice.text for _, _, notice in watch.notices)


def test_simulate_refuses_a_policy_that_the_checker_refuses(tmp_path: Path) -> None:
    bad = PolicySource(
        "bad", "import os\ninterface = 1\ndef should_reschedule(state): return False\ndef plan(state): ...\n"
    )
    with pytest.raises(PolicyError, match="bad"):
        simulate(small_run(tmp_path), bad, Silent())


def test_a_row_that_raises_leaves_the_finished_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a run: what is finished is not served again."""
    config = small_run(tmp_path)
    served: list[str] = []
    original = Comparison.serve

    def interrupting(self: Comparison, name: str, source: PolicySource, mode: Mode) -> tuple[Leg, Run]:
        first = name not in served
        served.append(name)
        if name == "round-robin" and first:
            raise KeyboardInterrupt
        return original(self, name, source, mode)

    monkeypatch.setattr(Comparison, "serve", interrupting)
    with pytest.raises(KeyboardInterrupt):
        run(config, Silent())
    before = len(served)
    run(config, Silent())
    assert set(served[before:]) == {"round-robin", "scale-to-load", "static", "threshold"}


def test_under_overload_evolution_finds_a_better_router(tmp_path: Path) -> None:
    """Where something is to be won, structural synthesis by itself finds some of it: on one GPU, which cannot run the
    phases apart, by turning requests away."""
    report = run(small_run(tmp_path, load=2.5, budget=0.1, count=500, gpus=1), Silent())
    rows = {row.name: row for row in report.rows}
    assert report.swaps
    assert rows["evolving"].operator.goodput > rows["static"].operator.goodput
