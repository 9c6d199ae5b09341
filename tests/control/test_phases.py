"""Fixed plans in which prefill and decode run apart: shapes and ratio by arithmetic, never at the cost of others."""

from __future__ import annotations

from pathlib import Path

from control_configs import SMALL, write_trace

from autopoiesis.control.config import ScenarioConfig, WorkloadFile
from autopoiesis.control.phases import divisions_of, first_of_each, is_apart
from autopoiesis.control.plans import by_headroom, load_window
from autopoiesis.control.prepare import read
from autopoiesis.plan import Replica, Role, ServingPlan

ONE = Replica("m", "h100")
P1, D1 = ONE.with_options(role=Role.PREFILL), ONE.with_options(role=Role.DECODE)
P2, D2 = Replica("m", "h100", 2, role=Role.PREFILL), Replica("m", "h100", 2, role=Role.DECODE)
FAR = Replica("m", "a100", role=Role.DECODE)


def test_the_ratio_is_the_one_that_leaves_neither_phase_behind() -> None:
    # 8 GPUs, 3 and 1 of the load a replica: two that prefill and six that decode serve 6; 1:7 serve 3 and 3:5 serve 5
    assert divisions_of({"h100": 8}, {P1: 3.0, D1: 1.0})[0] == (P1,) * 2 + (D1,) * 6


def test_each_phase_has_the_shape_that_suits_it() -> None:
    # a pair prefills 4 where two singles do 2.2, and decodes 2 where two singles do 2.4: two pairs and four singles
    # serve min(8, 4.8) = 4.8, one pair and six singles min(4, 7.2) = 4, four singles and four min(4.4, 4.8) = 4.4
    best = divisions_of({"h100": 8}, {P1: 1.1, P2: 4.0, D1: 1.2, D2: 2.0})[0]
    assert best == (P2,) * 2 + (D1,) * 4


def test_with_two_kinds_of_gpu_each_phase_may_have_one() -> None:
    # on the four H100 alone, 2:2 serve 4; with decode on the four A100, min(4 · 2, 4 · 1.5) = 6
    rates = {P1: 2.0, D1: 2.0, FAR: 1.5}
    assert divisions_of({"h100": 4, "a100": 4}, rates)[0] == (P1,) * 4 + (FAR,) * 4


def test_no_room_for_both_phases_is_no_division() -> None:
    assert divisions_of({"h100": 1}, {P1: 3.0, D1: 1.0}) == []


def test_plans_of_one_sort_do_not_crowd_out_the_other() -> None:
    apart = [ServingPlan((P1,) * n + (D1,)) for n in (1, 2, 3)]
    mixed = [ServingPlan((ONE,) * n) for n in (1, 2, 3)]
    assert first_of_each([*apart, *mixed], 2, 1) == [*mixed[:2], apart[0]]


def test_looking_at_plans_apart_changes_nothing_of_the_others(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace.csv", count=60)
    scenario = read(ScenarioConfig((WorkloadFile(SMALL, trace),), "demo-8"), lambda text: None).scenario
    window = load_window(scenario, scenario.requests, 0.0, scenario.duration_s)
    without, with_apart = (by_headroom(scenario, scenario.cost, window, apart) for apart in (False, True))
    assert with_apart[: len(without)] == without
    more = [plan for _, plan in with_apart[len(without) :]]
    assert more
    assert all(is_apart(plan) and plan.gpus() <= 8 for plan in more)
