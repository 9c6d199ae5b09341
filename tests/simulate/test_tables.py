"""A finished run as tables: they say what the books, the windows and the world say, under any policy."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from run_scenes import (
    ELASTIC,
    FIXED,
    MODEL,
    SPOT,
    A,
    H,
    InProcess,
    Ran,
    chat,
    every,
    plain,
    plan_of,
    restless,
    run_of,
    scenario_of,
    with_route,
)

from autopoiesis.cluster import Cluster, Pool
from autopoiesis.plan import Capacity, Replica
from autopoiesis.plan.capacity import PoolCapacity
from autopoiesis.policy.interface import Decision, Move, Observation
from autopoiesis.simulate import layout
from autopoiesis.simulate.lives import End
from autopoiesis.simulate.run import Run
from autopoiesis.simulate.scenario import Mode
from autopoiesis.simulate.supply import SpotLoss
from autopoiesis.simulate.tables import (
    ALL,
    Table,
    WindowTable,
    csv_header,
    csv_lines,
    replica_table,
    replica_window_table,
    request_table,
    window_table,
)
from autopoiesis.simulate.tables.columns import Count, Flag, Index, Measure, Seconds, Text
from autopoiesis.workload import SLO

TALLIES = ("arrivals", "completed", "good", "lost", "shed", "rejected", "backlog", "input_tokens", "output_tokens")
NOTHING_GUARANTEED = replace(SPOT, pools=(replace(SPOT.pools[0], minimum=0),))
MODES = st.sampled_from(list(Mode))
SHEDS = """
def route(request, replicas):
    best = min(replicas, key=lambda r: r.in_flight)
    return SHED if best.in_flight > 20.0 else best.index
"""


@cache
def any_run(seed: int, mode: Mode, exact: bool = False) -> Ran:
    """A restless policy on a spot market: replicas come, drain, are cut off and lost; some requests are shed."""
    policy = restless()
    module = '"""Test."""\nfrom autopoiesis.policy import HOLD, SHED\n\ninterface = 1\n\n'
    policy.routing = with_route(module + SHEDS)
    scenario = scenario_of(SPOT, chat(seed, seconds=150.0, rate_rps=6.0), window_s=20.0, seed=seed)
    if not exact:
        return run_of(scenario, policy, plan_of(A, A), mode)
    with pytest.MonkeyPatch.context() as patch:
        original = Run.__init__

        def exactly(self: Run, *arguments: Any, **options: Any) -> None:
            original(self, *arguments, **options)
            self.world.simulation.state.scalars[layout.EXACT] = 1

        patch.setattr(Run, "__init__", exactly)
        return run_of(scenario, policy, plan_of(A, A), mode)


def rows(table: WindowTable, model: str, request_class: str, name: str) -> NDArray[Any]:
    values: NDArray[Any] = getattr(table, name)[(table.model == model) & (table.request_class == request_class)]
    return values


def equal(one: Table, other: Table) -> bool:
    return all(
        np.array_equal(getattr(one, c.name), getattr(other, c.name), equal_nan=getattr(one, c.name).dtype.kind == "f")
        for c in fields(one)
    )


# --- requests -------------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 5))
def test_requests_add_up_to_the_books(seed: int) -> None:
    ran = any_run(seed, Mode.OPERATOR)
    table, books = request_table(ran.run), ran.outcome.books
    assert books is not None
    assert table.id.tolist() == list(range(books.requests))
    for status in ("completed", "lost", "shed", "rejected"):
        assert int((table.status == status).sum()) == getattr(books, status)
    assert int(table.met_slo.sum()) == books.good
    assert float(np.nansum(table.delay_s)) == pytest.approx(books.delay_s)
    assert float(np.nanmean(table.e2e_s)) == pytest.approx(books.e2e_s.mean)
    assert float(np.nanmean(table.tpot_s)) == pytest.approx(books.tpot_s.mean)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 5), mode=MODES)
def test_a_request_goes_through_its_times_in_order(seed: int, mode: Mode) -> None:
    table = request_table(any_run(seed, mode).run)
    first = np.where(np.isnan(table.first_token_s), table.end_s, table.first_token_s)
    assert np.all(table.arrival_s <= first)
    assert np.all(first <= table.end_s)
    done = table.status == "completed"
    assert np.array_equal(table.generated_tokens[done], np.maximum(table.output_tokens[done], 1))
    assert np.all(np.isnan(table.e2e_s) == ~done)
    assert np.all(~table.met_slo | done)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 5), mode=MODES)
def test_a_request_was_finished_by_a_replica_of_its_model_that_served_then(seed: int, mode: Mode) -> None:
    ran = any_run(seed, mode)
    table = request_table(ran.run)
    lives = ran.run.world.fleet.lives.of
    done = ran.requests["done"]
    for row in np.flatnonzero(table.status == "completed"):
        life = lives[int(table.replica[row])]
        assert life.slot == ran.requests["slot"][row]
        assert life.serving_from is not None
        assert life.ended is not None
        assert life.serving_from < done[row] <= life.ended
    assert np.all((table.replica >= 0) == (table.status == "completed"))


def test_parts_of_the_requests_are_the_requests() -> None:
    run = any_run(1, Mode.OPERATOR).run
    whole = request_table(run)
    parts = [request_table(run, slice(start, start + 70)) for start in range(0, len(whole), 70)]
    assert "".join(csv_text(part, head=False) for part in parts) == csv_text(whole, head=False)


@cache
def bereft_run() -> Ran:
    """The only replica is lost without notice, and never comes again."""
    gone = SpotLoss("a100", at_s=5.0, nodes=9, notice_s=0.0, recovery_s=1e6)
    scenario = plain(NOTHING_GUARANTEED, every(1.0, 8, output_tokens=2000), losses=(gone,))
    capacity = Capacity((PoolCapacity(NOTHING_GUARANTEED.pools[0], 2, (0,)),))
    return run_of(scenario, InProcess(), plan_of(A), capacity=capacity)


def test_a_request_that_no_replica_could_take_says_so() -> None:
    table = request_table(bereft_run().run)
    assert set(table.status.tolist()) == {"lost"}
    assert set(table.reason.tolist()) == {"unserved"}
    assert set(table.replica.tolist()) == {-1}


def test_a_request_that_outgrew_the_kv_cache_says_so_and_where() -> None:
    """One B200 has room for 45 000 tokens beside a 70B model."""
    model = "llama-3.1-70b"
    cluster = Cluster("one", (Pool("b200", "b200", 1, 1, 1, 5.0),), FIXED.gpus)
    scenario = plain(cluster, every(1.0, 1, input_tokens=40_000, output_tokens=20_000))
    scenario = replace(scenario, models=(model,), slos={model: SLO()})
    table = request_table(run_of(scenario, InProcess(), plan_of(Replica(model, "b200"))).run)
    assert (table.status.tolist(), table.reason.tolist(), table.replica.tolist()) == (["lost"], ["kv"], [0])
    assert 0 < table.generated_tokens[0] < 20_000
    assert not np.isnan(table.first_token_s[0])
    assert np.isnan(table.e2e_s[0])


def test_the_runs_that_the_laws_are_held_against_have_everything() -> None:
    runs = [any_run(seed, Mode.OPERATOR) for seed in range(6)]
    assert {status for ran in runs for status in request_table(ran.run).status.tolist()} >= {"completed", "shed"}
    assert any(ran.run.world.fleet.continued for ran in runs)
    assert any((request_table(ran.run).session >= 0).any() for ran in runs)
    assert any(ran.outcome.reschedules > 1 for ran in runs)


# --- windows --------------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 5))
def test_windows_add_up_to_the_books(seed: int) -> None:
    ran = any_run(seed, Mode.OPERATOR)
    table, books = window_table(ran.run), ran.outcome.books
    assert books is not None
    for name in ("completed", "good", "lost", "shed", "rejected"):
        assert int(rows(table, ALL, ALL, name).sum()) == getattr(books, name)
    assert int(rows(table, ALL, ALL, "arrivals").sum()) == books.requests
    assert float(rows(table, ALL, ALL, "cost_usd").sum()) == pytest.approx(books.cost_usd)
    assert float(rows(table, ALL, ALL, "gpu_hours").sum()) == pytest.approx(books.gpu_hours)
    assert int(rows(table, ALL, ALL, "reschedules").sum()) == ran.outcome.reschedules


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 5), mode=st.sampled_from([Mode.OVERLAPPED, Mode.ADDITIVE]))
def test_windows_of_paper_mode_add_up_to_its_times(seed: int, mode: Mode) -> None:
    ran = any_run(seed, mode)
    table, times = window_table(ran.run), ran.outcome.paper
    assert times is not None
    assert float((table.end_s - table.start_s)[table.model == ALL].sum()) == pytest.approx(times.total_s)
    assert float(rows(table, ALL, ALL, "scheduling_s").sum()) == pytest.approx(times.scheduling_s)
    assert float(rows(table, ALL, ALL, "reconfiguration_s").sum()) == pytest.approx(times.reconfiguration_s)
    assert not rows(table, ALL, ALL, "backlog").any()


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 5), mode=MODES)
def test_classes_add_up_to_their_model_and_models_to_all(seed: int, mode: Mode) -> None:
    table = window_table(any_run(seed, mode).run)
    total, of_model = (table.model == ALL), (table.model != ALL) & (table.request_class == ALL)
    of_class = table.request_class != ALL
    for name in TALLIES:
        values = getattr(table, name)
        sums = [np.bincount(table.window[part], weights=values[part]).tolist() for part in (total, of_model, of_class)]
        assert sums[0] == sums[1] == sums[2]
    assert np.all(np.isnan(table.cost_usd) == ~total)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 5), mode=MODES)
def test_windows_are_those_that_the_policy_was_shown(seed: int, mode: Mode) -> None:
    ran = any_run(seed, mode)
    table = window_table(ran.run)
    for window in ran.run.windows:
        for entry in window.classes:
            at = (table.window == window.index) & (table.request_class == entry.request_class)
            for name in ("arrivals", "completed", "good", "shed", "lost", "backlog"):
                assert getattr(table, name)[at].tolist() == [getattr(entry, name)]
            if entry.completed:
                assert table.ttft_p90_s[at].tolist() == [entry.ttft_p90_s]


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 5), mode=MODES, together=st.integers(1, 9))
def test_stretches_of_windows_are_these_windows_together(seed: int, mode: Mode, together: int) -> None:
    run = any_run(seed, mode).run
    single, table = window_table(run), window_table(run, together)
    parts, whole = single.model == ALL, table.model == ALL
    stretch = np.arange(len(run.marks)) // together
    for name in ("arrivals", "completed", "good", "lost", "shed", "rejected", "input_tokens", "output_tokens"):
        assert np.array_equal(np.bincount(stretch, getattr(single, name)[parts]), getattr(table, name)[whole])
    for name in ("gpu_hours", "cost_usd", "scheduling_s", "reconfiguration_s", "reschedules"):
        summed = np.bincount(stretch, getattr(single, name)[parts])
        assert summed == pytest.approx(getattr(table, name)[whole], abs=1e-9)
    last = np.flatnonzero(np.append(np.diff(stretch), 1))
    for name in ("end_s", "backlog", "policy", "plan"):
        assert getattr(single, name)[parts][last].tolist() == getattr(table, name)[whole].tolist()


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 5), mode=MODES)
def test_the_mean_queue_is_the_time_that_requests_waited_in_it(seed: int, mode: Mode) -> None:
    """Little's law, for every class."""
    ran = any_run(seed, mode)
    table, requests = window_table(ran.run), request_table(ran.run)
    waited_s = np.where(np.isnan(requests.first_token_s), requests.end_s, requests.first_token_s) - requests.arrival_s
    length_s = table.end_s - table.start_s
    for label in set(table.request_class.tolist()) - {ALL}:
        mine = table.request_class == label
        area = np.nansum(table.queue_mean[mine] * length_s[mine])
        assert area == pytest.approx(waited_s[requests.request_class == label].sum(), abs=1e-5)
        busy = mine & (length_s > 0)
        assert np.all(table.queue_mean[busy] <= table.queue_peak[busy] + 1e-9)


def test_the_queue_of_three_requests_by_hand() -> None:
    """One sequence at a time, so the first token of each waits for the end of the one before it."""
    one = Replica(MODEL, "h100", max_sequences=1)
    run = run_of(plain(FIXED, every(0.0, 3), window_s=60.0), InProcess(), plan_of(one)).run
    requests, table = request_table(run), window_table(run)
    assert rows(table, ALL, ALL, "queue_peak").tolist() == [3]
    assert rows(table, ALL, ALL, "end_s").tolist() == [requests.end_s.max()]
    mean = requests.first_token_s.sum() / requests.end_s.max()
    assert rows(table, ALL, ALL, "queue_mean").tolist() == pytest.approx([mean])


def test_a_window_says_what_was_held_and_what_moved() -> None:
    def twice(observation: Observation) -> Decision:
        return Decision(plan_of(A, A, A, A), {"a100": 4})

    policy = InProcess(lambda observation: len(observation.plan.replicas) == 2, twice, plan_s=1.0)
    ran = run_of(plain(ELASTIC, every(1.0, 200), window_s=20.0), policy, plan_of(A, A))
    table = window_table(ran.run)
    assert rows(table, ALL, ALL, "gpus")[0] == 2
    assert rows(table, ALL, ALL, "gpus")[-1] == 4
    assert rows(table, ALL, ALL, "reschedules").sum() == 1
    assert rows(table, ALL, ALL, "reconfiguration_s").sum() > 0
    assert rows(table, ALL, ALL, "plan")[0].startswith("2×")
    assert rows(table, ALL, ALL, "plan")[-1].startswith("4×")
    assert set(rows(table, ALL, ALL, "policy").tolist()) == {policy.source.identity}


def test_a_run_of_nothing_has_no_window() -> None:
    run = run_of(plain(FIXED, every(1.0, 0)), InProcess(), plan_of(H)).run
    assert len(window_table(run)) == len(request_table(run)) == len(replica_window_table(run)) == 0
    assert replica_table(run).end.tolist() == [End.RUN.value]


# --- replicas -------------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 5), mode=MODES)
def test_replicas_add_up_to_the_requests(seed: int, mode: Mode) -> None:
    ran = any_run(seed, mode)
    table, requests = replica_table(ran.run), request_table(ran.run)
    assert int(table.completed.sum()) == int((requests.status == "completed").sum())
    assert int(table.good.sum()) == int(requests.met_slo.sum())
    assert int(table.generated_tokens.sum()) == int(requests.generated_tokens.sum())
    assert int(table.continued.sum()) == ran.run.world.fleet.continued
    assert np.all(np.isnan(table.utilisation) | ((table.utilisation >= 0) & (table.utilisation <= 1 + 1e-9)))
    assert np.all(np.isnan(table.kv_use_peak) | (table.kv_use_mean <= table.kv_use_peak + 1e-12))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 5), mode=MODES)
def test_the_windows_of_a_replica_add_up_to_it(seed: int, mode: Mode) -> None:
    run = any_run(seed, mode).run
    table, parts = replica_table(run), replica_window_table(run)
    length = int(table.replica.max()) + 1
    for name in ("completed", "prompt_tokens", "generated_tokens", "preemptions", "busy_s"):
        sums = np.bincount(parts.replica, weights=getattr(parts, name), minlength=length)[table.replica]
        assert sums.tolist() == pytest.approx(getattr(table, name).tolist())
    served_s = np.bincount(parts.replica, weights=parts.served_s, minlength=length)[table.replica]
    lived_s = np.nan_to_num(table.ended_s - table.serving_from_s)
    assert served_s.tolist() == pytest.approx(lived_s.tolist())
    for name in ("prompt_tokens", "generated_tokens", "preemptions", "busy_s", "completed"):
        assert np.all(getattr(parts, name) >= 0)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 3), mode=MODES)
def test_how_many_steps_the_kernel_takes_at_once_makes_no_difference(seed: int, mode: Mode) -> None:
    collapsed, exact = any_run(seed, mode).run, any_run(seed, mode, exact=True).run
    for table in (request_table, window_table, replica_table, replica_window_table):
        assert equal(table(collapsed), table(exact)), table


def test_every_way_of_ending_is_told_apart() -> None:
    runs = [bereft_run(), *(any_run(seed, Mode.OPERATOR) for seed in range(6))]
    ends = {end for ran in runs for end in replica_table(ran.run).end.tolist()}
    assert ends == {end.value for end in End}
    lost = replica_table(bereft_run().run)
    assert lost.end.tolist() == [End.LOST.value]
    assert lost.ended_s.tolist() == [5.0]
    assert lost.nodes.tolist() == ["a100/0"]


def test_the_life_of_a_replica_that_is_replaced() -> None:
    def exchange(observation: Observation) -> Decision:
        return Decision(plan_of(H), move=Move(drain_cap_s=1.0, capacity_kept=1.0))

    policy = InProcess(lambda observation: len(observation.plan.replicas) == 2, exchange, plan_s=2.0)
    scenario = plain(FIXED, every(0.5, 100, output_tokens=800), window_s=10.0)
    table = replica_table(run_of(scenario, policy, plan_of(H, H)).run)
    assert table.replica.tolist() == [0, 1]
    stopped = int(np.flatnonzero(table.end != End.RUN.value)[0])
    assert table.end[stopped] == End.CUT_OFF.value
    assert table.continued[stopped] > 0
    assert table.serving_from_s[stopped] == 0.0
    assert table.ended_s[stopped] == pytest.approx(table.draining_from_s[stopped] + 1.0)
    assert np.isnan(table.draining_from_s[1 - stopped])


# --- CSV ------------------------------------------------------------------------------------------------------------


def csv_text(table: Table, *before: str, head: bool = True) -> str:
    return (csv_header(type(table), *before) if head else "") + "".join(csv_lines(table, *before))


def test_the_csv_of_a_run_reads_back_as_its_columns() -> None:
    run = any_run(2, Mode.OPERATOR).run
    for table in (request_table(run), window_table(run), replica_table(run), replica_window_table(run)):
        read = list(csv.DictReader(io.StringIO(csv_text(table), newline="")))
        assert len(read) == len(table)
        for column in fields(table):
            values = getattr(table, column.name)
            cells = [row[column.name] for row in read]
            if values.dtype.kind == "U":
                assert cells == values.tolist()
            else:
                known = [float(cell) if cell else np.nan for cell in cells]
                blank = -1.0 if column.name in ("replica", "session") else np.nan
                expected = np.where(values == blank, np.nan, values.astype(np.float64))
                assert known == pytest.approx(expected.tolist(), rel=1e-8, abs=1e-9, nan_ok=True)


@dataclass(frozen=True)
class Sample(Table):
    name: Text
    at_s: Seconds
    share: Measure
    number: Count
    good: Flag
    of: Index


def test_the_spelling_of_cells() -> None:
    sample = Sample(
        name=np.array(["plain", 'a "b", c', ""]),
        at_s=np.array([86_400.000000001, -0.0, np.nan]),
        share=np.array([1 / 3, 2e-7, np.nan]),
        number=np.array([0, 12, -3]),
        good=np.array([True, False, True]),
        of=np.array([0, -1, 7]),
    )
    assert csv_text(sample, "mode").splitlines()[0] == "mode,name,at_s,share,number,good,of"
    assert "".join(csv_lines(sample, "x")).splitlines() == [
        "x,plain,86400.000000001,0.333333333,0,1,0",
        'x,"a ""b"", c",0.000000000,2e-07,12,0,',
        "x,,,,-3,1,7",
    ]


def test_columns_of_a_table_are_equally_long() -> None:
    one = np.zeros(1)
    with pytest.raises(ValueError, match="equally long"):
        Sample(np.array(["a"]), one, one, np.zeros(2, dtype=np.int64), one > 0, np.zeros(1, dtype=np.int64))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), min_size=1, max_size=5))
def test_any_text_reads_back(texts: list[str]) -> None:
    n = len(texts)
    sample = Sample(
        np.array(texts), np.zeros(n), np.zeros(n), np.zeros(n, np.int64), np.zeros(n) > 0, np.zeros(n, np.int64)
    )
    read = list(csv.reader(io.StringIO(csv_text(sample, head=False), newline="")))
    assert [row[0] for row in read] == texts
