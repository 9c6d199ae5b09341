"""`autopoiesis log`."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopoiesis.cli import main
from autopoiesis.evolve.store import GateRecord, Store, SwapRecord
from autopoiesis.loop.log import EventLog
from autopoiesis.loop.messages import Apply, AskTrigger, PlanReady, StartPlan, Tick, TriggerAnswered
from autopoiesis.plan import Replica, ServingPlan
from autopoiesis.policy.interface import Decision

PLAN = ServingPlan((Replica("llama-3.1-8b", "l40s", 1),) * 2)
OLD, NEW = "aaaa" * 8, "bbbb" * 8


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs; in the newer one a candidate passes a gate and takes over."""
    monkeypatch.chdir(tmp_path)
    log = EventLog()
    log.append(60.0, Tick(), [AskTrigger(1)])
    log.append(60.25, TriggerAnswered(1, True), [StartPlan(1, 90.25)])
    log.append(61.5, PlanReady(1, Decision(PLAN)), [Apply(2, PLAN)])
    log.append(120.0, Tick(), [])
    log.append(120.0, TriggerAnswered(3, None), [])
    blob = "\n".join(log.lines()).encode()
    with Store("kept.db") as opened:
        for run in (OLD, NEW):
            opened.begin_run(run)
            opened.put_log(run, "operator", "static", blob)
        opened.put_log(NEW, "operator", "evolving", blob)
        opened.put_gate(GateRecord(NEW, "operator", 60.0, "1234", "replayed", False, {"train_ratio": 1.25}))
        opened.put_gate(GateRecord(NEW, "operator", 120.0, "5678", "active", True, {}))
        opened.put_swap(SwapRecord(NEW, "operator", 120.0, "5678", "1234", "openai", {"summary": "x\x1b[2J", "r": 0.9}))


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    assert main(["log", "--store", "kept.db", *argv]) == 0
    return capsys.readouterr().out.splitlines()


def failure(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["log", *argv]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


def test_a_row_is_told_in_order_with_gates_swaps_and_their_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys) == [
        f"run {NEW}, operator mode, evolving",
        "0:01:00.000  gate replayed: 1234 refused (train_ratio 1.25)",
        "0:01:00.000  Tick -> AskTrigger",
        "0:01:00.250  TriggerAnswered reschedule yes -> StartPlan deadline_s 90.25",
        "0:01:01.500  PlanReady plan 2× llama-3.1-8b on l40s tp1 -> Apply plan 2× llama-3.1-8b on l40s tp1",
        "0:02:00.000  gate active: 5678 passed",
        "0:02:00.000  swap: 5678 (openai) takes over from 1234 (r 0.9, summary x\ufffd[2J)",
        "0:02:00.000  Tick",
        "0:02:00.000  TriggerAnswered reschedule failed",
    ]


def test_another_run_and_row_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "--run", "aa", "--name", "static")
    assert lines[0] == f"run {OLD}, operator mode, static"
    assert not any("gate" in line for line in lines)


def test_a_row_that_is_being_served_shows_what_evolution_did_so_far(capsys: pytest.CaptureFixture[str]) -> None:
    with Store("kept.db") as store:
        store.put_gate(GateRecord(OLD, "operator", 60.0, "1234", "checked", True, {}))
    _, note, *lines = said(capsys, "--run", "aa")
    assert "the row has not ended" in note
    assert lines == ["0:01:00.000  gate checked: 1234 passed"]


def test_names_that_mean_nothing_or_two_things_are_answered_with_what_there_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    near = ("--store", "kept.db")
    assert "--name: unknown row 'statik'; did you mean static?" in failure(capsys, *near, "--name", "statik")
    assert "--mode: unknown mode 'paper'; there are: operator" in failure(capsys, *near, "--mode", "paper")
    assert "did you mean" in failure(capsys, *near, "--run", "aaab" * 8)
    with Store("kept.db") as store:
        store.begin_run("bbbc")
    assert "stands for" in failure(capsys, *near, "--run", "bbb")
    assert "no row has ended yet" in failure(capsys, *near)


def test_a_store_that_is_not_there_or_holds_no_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no such file" in failure(capsys, "--store", "absent.db")
    assert not (tmp_path / "absent.db").exists()
    Store("new.db").close()
    assert "holds no run; autopoiesis run --store new.db makes one" in failure(capsys, "--store", "new.db")
