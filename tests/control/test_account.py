"""What is kept to tell of a run: it agrees with the books, is of bounded size, and outlives the run in the store."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from control_configs import Silent, small_run

import autopoiesis.control.account as accounts
from autopoiesis.control.account import Account, course_of
from autopoiesis.control.config import RunConfig
from autopoiesis.control.run import run, simulate
from autopoiesis.policy.library import library
from autopoiesis.report import can_draw, page
from autopoiesis.simulate.run import Run
from autopoiesis.simulate.scenario import Mode


def told(config: RunConfig) -> tuple[Account, Silent]:
    """The account of a run, and what was seen of it meanwhile."""
    found: list[Account] = []
    watch = Silent()
    run(config, watch, found.append)
    return found[0], watch


def overload(folder: Path) -> RunConfig:
    """A run in which evolution finds something."""
    return small_run(folder, load=2.5, budget=0.1, count=500)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Account]:
    folder = tmp_path_factory.mktemp("account")
    return folder, told(overload(folder))[0]


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Account:
    return told(small_run(tmp_path_factory.mktemp("paper"), load=1.3, paper=True, budget=0.0))[0]


def test_every_row_of_every_mode_is_told(served: tuple[Path, Account], paper: Account) -> None:
    for account, modes in ((served[1], (Mode.OPERATOR,)), (paper, tuple(Mode))):
        assert account.modes == modes
        assert set(account.legs) == {(row.name, mode) for row in account.rows for mode in modes}


def test_the_courses_add_up_to_the_books(served: tuple[Path, Account]) -> None:
    _, account = served
    for row in account.rows:
        course, books = account.course(row.name), row.operator
        assert sum(course.arrivals) == books.requests
        assert [sum(getattr(course, name)) for name in ("completed", "good", "lost", "shed", "rejected")] == [
            books.completed,
            books.good,
            books.lost,
            books.shed,
            books.rejected,
        ]
        assert sum(cost or 0.0 for cost in course.cost_usd) == pytest.approx(books.cost_usd, abs=1e-4)
        assert sum(course.reschedules) == row.reschedules
        assert course.backlog[-1] == 0
        assert sum(sum(load.arrivals) for load in course.loads.values()) == books.requests


def test_the_time_of_paper_mode_is_told_in_full(paper: Account) -> None:
    for row in paper.rows:
        assert row.paper is not None
        course = paper.course(row.name, Mode.ADDITIVE)
        assert course.end_s[-1] == pytest.approx(row.paper.additive.total_s, abs=1e-4)
        assert sum(s or 0.0 for s in course.reconfiguration_s) == pytest.approx(
            row.paper.additive.reconfiguration_s, abs=1e-4
        )


def test_a_replica_holds_its_gpus_as_long_as_it_lives(paper: Account) -> None:
    for name, mode in paper.legs:
        course = paper.course(name, mode)
        assert course.replicas
        for life in course.replicas:
            assert len(set(life.gpus)) == life.tensor_parallel * life.pipeline_parallel
            assert (
                0 <= life.launched_s <= (life.serving_from_s or life.ended_s) <= life.ended_s <= course.end_s[-1] + 1e-6
            )


def test_whoever_took_over_is_told_with_its_ancestors(served: tuple[Path, Account]) -> None:
    _, account = served
    leg = account.legs["evolving", Mode.OPERATOR]
    assert leg.swaps
    assert leg.lineage is not None
    assert leg.lineage.first == library()["static"].identity
    for swap in leg.swaps:
        waiting = [swap.policy]
        while waiting:
            policy = leg.lineage.policies[waiting.pop()]
            assert policy.source
            waiting += policy.parents
        passed = {gate.gate for gate in leg.lineage.gates if gate.policy == swap.policy and gate.passed}
        assert {"replayed", "held out", "tried", "active"} <= passed
    assert leg.lineage.tally["active"] == (len(leg.swaps), 0)
    assert account.legs["static", Mode.OPERATOR].lineage is None


def test_a_run_from_the_store_is_told_the_same(served: tuple[Path, Account]) -> None:
    folder, account = served
    again, watch = told(overload(folder))
    assert not watch.notices
    assert again == account
    if can_draw():
        assert page(again) == page(account)


def test_a_run_served_again_is_told_the_same(served: tuple[Path, Account], tmp_path: Path) -> None:
    again, _ = told(overload(tmp_path))
    assert again.legs == served[1].legs


def test_a_policy_simulated_by_itself_is_told_only_if_somebody_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Account] = []
    config = small_run(tmp_path)
    simulate(config, library()["threshold"], Silent(), account=found.append)
    (account,) = found
    assert account.setting.evolution is None
    assert sum(account.course("threshold").arrivals) == account.rows[0].operator.requests
    lineage = account.legs["threshold", Mode.OPERATOR].lineage
    assert lineage is not None
    assert lineage.policies[lineage.first].source == library()["threshold"].text
    monkeypatch.setattr("autopoiesis.control.run.course_of", lambda run: pytest.fail("nobody listens"))
    simulate(config, library()["threshold"], Silent())


def test_however_long_the_run_its_course_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Run] = []
    simulate(small_run(tmp_path, count=300), library()["scale-to-load"], Silent(), lambda mode, run: runs.append(run))
    (served,) = runs
    whole = course_of(served)
    monkeypatch.setattr(accounts, "MOST_STRETCHES", 4)
    monkeypatch.setattr(accounts, "MOST_REPLICAS", 1)
    short = course_of(served)
    assert whole.together == 1
    assert len(whole.end_s) > len(short.end_s)
    assert 2 <= len(short.end_s) <= 4
    assert short.end_s[-1] == whole.end_s[-1]
    for name in ("arrivals", "good", "reschedules"):
        assert sum(getattr(short, name)) == sum(getattr(whole, name))
    assert len(short.replicas) + short.replicas_left_out == len(whole.replicas)
    assert len(msgspec.json.encode(short)) < len(msgspec.json.encode(whole))
