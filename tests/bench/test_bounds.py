"""Bounds in hindsight: they stand in order, they switch where that pays, and the same scenario gives the same ones."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from autopoiesis.bench.suite.bounds import Bounds, best_fixed, best_sequence, bounds_of, per_window_optimum
from autopoiesis.bench.suite.candidates import candidates
from autopoiesis.bench.suite.refine import moved, replaced
from autopoiesis.bench.suite.search import PathSearch
from autopoiesis.bench.suite.sequence import PlanSequence, Scheduled, Served, serve
from autopoiesis.bench.suite.switching import Switches, losses_of
from autopoiesis.bench.suite.values import Values, values_of
from autopoiesis.cluster import Cluster, Hardware, Pool, catalog
from autopoiesis.control.plans import Standing
from autopoiesis.control.prepare import Prepared, starting_capacity
from autopoiesis.cost import CostModel, StartTimes
from autopoiesis.errors import ScenarioError
from autopoiesis.plan import Capacity, Replica, ServingPlan, check_plan
from autopoiesis.simulate.run import Run
from autopoiesis.simulate.scenario import NOTHING_HIDDEN, Mode, Scenario
from autopoiesis.simulate.supply import SpotLoss
from autopoiesis.workload import SLO, Requests, merge, single_requests

MODEL = "llama-3.1-8b"
HARDWARE = Hardware(catalog.gpus(), catalog.models())
BOUGHT = Cluster(
    "bought",
    (Pool("a100", "a100", 2, minimum=2, maximum=8, price_per_hour=1.0, start_s_p50=15.0, start_s_p90=15.0),),
    HARDWARE.gpus,
)
A = Replica(MODEL, "a100")
A2 = replace(A, tensor_parallel=2)
TWO, FOUR, SIX, PAIR = ((A,) * 2, (A,) * 4, (A,) * 6, (A2,))
PLANS = tuple(ServingPlan(replicas) for replicas in (TWO, FOUR, SIX, PAIR))
WINDOW_S = 30.0
LOW_RPS, HIGH_RPS = 0.5, 8.0


def every(seconds: float, count: int) -> Requests:
    """Equal requests of 2000 and 400 tokens at equal distances, the first at 0."""
    arrival_s = np.arange(count, dtype=np.float64) * np.float64(seconds)
    return single_requests(arrival_s, np.full(count, 2000, np.int64), np.full(count, 400, np.int64))


def two_regimes(low_s: float = 600.0, high_s: float = 600.0) -> Requests:
    """Two A100 serve the first of them and four the second."""
    high = every(1 / HIGH_RPS, round(high_s * HIGH_RPS))
    late = replace(high, arrival_s=high.arrival_s + low_s)
    return merge([every(1 / LOW_RPS, round(low_s * LOW_RPS)), late])


def scenario_of(requests: Requests, start: StartTimes | None = None, **options: object) -> Scenario:
    """A scenario in which nothing is hidden and nothing is lost, unless `options` say so."""
    cost = CostModel(HARDWARE, start=start or StartTimes())
    settings: dict[str, object] = {"hidden": NOTHING_HIDDEN, "window_s": WINDOW_S, **options}
    return Scenario(BOUGHT, (MODEL,), requests, {MODEL: SLO()}, cost, **settings)  # type: ignore[arg-type]


def ready(scenario: Scenario, plan: ServingPlan = PLANS[1]) -> Prepared:
    return Prepared(scenario, plan, starting_capacity(scenario, plan), {MODEL: 1.0}, 1.0)


@cache
def regimes() -> tuple[Prepared, Values]:
    prepared = ready(scenario_of(two_regimes()))
    return prepared, values_of(prepared.scenario, PLANS).carrying()


# --- the bounds -----------------------------------------------------------------------------------------------------


@cache
def short_bounds(objective: str) -> tuple[Prepared, Bounds]:
    prepared = ready(scenario_of(two_regimes(150.0, 150.0), objective=objective))
    return prepared, bounds_of(prepared, [ServingPlan(SIX)], runs=6)


@pytest.mark.parametrize("objective", ["cost_per_good", "goodput", "delay"])
def test_a_sequence_is_no_worse_than_a_fixed_plan_and_that_no_worse_than_any(objective: str) -> None:
    prepared, bounds = short_bounds(objective)
    assert bounds.sequence.served.score <= bounds.fixed.served.score
    assert bounds.sequence.runs <= 6
    assert bounds.per_window.value <= bounds.fixed.fluid
    for plan in PLANS:
        assert bounds.fixed.served.score <= serve(prepared, PlanSequence.fixed(plan)).score


def test_bounds_are_a_function_of_the_scenario() -> None:
    prepared, bounds = short_bounds("cost_per_good")
    again = bounds_of(prepared, [ServingPlan(SIX)], runs=6)
    assert again.per_window == bounds.per_window
    assert again.sequence.served.sequence == bounds.sequence.served.sequence
    assert again.sequence.served.books == bounds.sequence.served.books
    assert again.fixed.served.books == bounds.fixed.served.books


def test_switching_is_found_where_it_pays() -> None:
    """Two GPUs for ten minutes and four for ten more are 3600 GPU-seconds; four all the time are 4800, a third more.
    Everything is good either way, so a good request costs three quarters as much, beside what the switch takes: 15 s
    for the node and 36 s for the replicas, so that four have to be asked for two windows before they are needed."""
    prepared, values = regimes()
    fixed, served = best_fixed(prepared, values)
    assert fixed.served.sequence.plans == (ServingPlan(FOUR),)
    found = best_sequence(prepared, values, served, runs=10)
    assert found.served.books.goodput > 0.99
    assert found.served.sequence.plans == (ServingPlan(TWO), ServingPlan(FOUR))
    assert 17 <= found.served.sequence.starts[1] <= 20
    assert found.served.score / fixed.served.score == pytest.approx(0.75, abs=0.03)
    assert found.fluid / fixed.fluid == pytest.approx(0.75, abs=0.03)


def test_nothing_is_switched_where_a_start_takes_longer_than_the_load() -> None:
    prepared = ready(scenario_of(two_regimes(), start=StartTimes(process_s=5000.0)))
    values = values_of(prepared.scenario, PLANS).carrying()
    path, _ = PathSearch(values, Switches(prepared.scenario, values.plans)).best()
    assert {values.plans[n] for n in path} == {ServingPlan(FOUR)}
    fixed, served = best_fixed(prepared, values)
    found = best_sequence(prepared, values, served, runs=6)
    assert found.served.sequence == fixed.served.sequence == PlanSequence.fixed(ServingPlan(FOUR))


def test_where_the_load_never_changes_one_plan_is_best_in_every_window() -> None:
    values = values_of(scenario_of(every(0.25, 1200)), PLANS)
    optimum = per_window_optimum(values)
    assert set(optimum.plans) == {ServingPlan(TWO)}
    assert optimum.value == pytest.approx(float(values.fixed().min()), rel=1e-3)


def test_paper_mode_has_no_bounds() -> None:
    with pytest.raises(ScenarioError, match="total_time"):
        values_of(scenario_of(every(1.0, 60), objective="total_time"), PLANS)


# --- the search in the fluid model ----------------------------------------------------------------------------------


def test_a_switch_loses_what_the_rollout_does_not_serve() -> None:
    """From two to four: 15 s for the node, in which two serve on and two are paid; then 30 to 45 s in which four are
    paid and two serve. Of windows of 30 s, the first loses all that four would have served more, the second a part."""
    prepared, values = regimes()
    switches = Switches(prepared.scenario, values.plans)
    switches.settle(0, 1)
    assert switches.wait_s[0, 1] == 15.0
    assert switches.kept[0, 1] == 1.0
    assert switches.windows()[0, 1] == 2
    losses = losses_of(values, switches, np.array([0]), np.array([1]))
    w = 25
    behind = values.good[:, 1] - values.good[:, 0]
    part = (15.0 + switches.move_s[0, 1] - WINDOW_S) / WINDOW_S
    assert 0 < part < 1
    assert losses.good[w, 0] == pytest.approx(-behind[w] - part * behind[w + 1], rel=1e-6)
    assert losses.dollars[w, 0] == pytest.approx(-2 * 1.0 * 15.0 / 3600)


def test_the_shortest_path_is_the_best_of_all_paths() -> None:
    """Six windows, three plans: every one of the 729 paths, judged by `of`."""
    prepared = ready(scenario_of(two_regimes(90.0, 90.0)))
    values = values_of(prepared.scenario, PLANS[:3])
    switches = Switches(prepared.scenario, values.plans)
    search = PathSearch(values, switches)
    path, worth = search.best()
    every_path = (np.array(digits) for digits in np.ndindex(*(3,) * len(values.count)))
    assert worth == pytest.approx(min(search.of(one) for one in every_path))
    assert worth == pytest.approx(search.of(path))


def test_a_reluctant_search_switches_less() -> None:
    prepared, values = regimes()
    switches = Switches(prepared.scenario, values.plans)
    counts = []
    for reluctance in (0.0, 0.5, 1000.0):
        path, _ = PathSearch(values, switches, reluctance=reluctance).best()
        counts.append(int(np.count_nonzero(np.diff(path))))
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 0 < counts[0]


def test_small_changes_drop_shift_and_replace() -> None:
    _, values = regimes()
    path = np.repeat([0, 1], [20, 20])
    near = {tuple(one.tolist()) for one in moved(path)}
    shifted = {(0,) * 19 + (1,) * 21, (0,) * 21 + (1,) * 19}
    assert near == {(0,) * 40, (1,) * 40} | shifted
    others = {tuple(one.tolist()) for one in replaced(path, values)}
    assert (0,) * 20 + (2,) * 20 in others
    assert (3,) * 20 + (1,) * 20 in others
    assert tuple(path.tolist()) not in others


# --- candidates -----------------------------------------------------------------------------------------------------


def test_candidates_stand_and_none_comes_twice() -> None:
    scenario = scenario_of(two_regimes())
    unsorted = ServingPlan((A2, A, A))
    found = candidates(scenario, [unsorted, ServingPlan((A, A, A2)), ServingPlan((A,) * 99)])
    assert found[0] == unsorted
    assert len({plan.sorted() for plan in found}) == len(found)
    for plan in found:
        check_plan(plan, Capacity.at_maximum(BOUGHT), scenario.envelope, scenario.models, scenario.shapes)
    assert {2, 4, 6, 8} <= {plan.gpus() for plan in found}
    assert {replica.batched_tokens for plan in found for replica in plan.replicas} >= {2048, 8192}


# --- carrying a sequence out ----------------------------------------------------------------------------------------


def test_a_sequence_names_a_plan_for_every_window() -> None:
    two, four = PLANS[:2]
    sequence = PlanSequence.of([two, two, four, two])
    assert sequence.starts == (0, 2, 3)
    assert sequence.by_window(5) == [two, two, four, two, two]
    for starts, plans in (((1,), (two,)), ((0, 0), (two, four)), ((0, 2), (two, two)), ((0,), ())):
        with pytest.raises(ValueError, match="sequence"):
            PlanSequence(starts, plans)


def test_a_fixed_plan_is_served_as_by_one_who_only_watches() -> None:
    prepared, _ = regimes()
    books = Run(prepared.scenario, Standing(), prepared.plan, prepared.capacity, Mode.OPERATOR).finish().books
    assert serve(prepared, PlanSequence.fixed(prepared.plan)).books == books


def test_plans_change_at_their_windows_and_uncharged() -> None:
    prepared, _ = regimes()
    scenario, sequence = prepared.scenario, PlanSequence((0, 5, 9), (PLANS[0], PLANS[2], PLANS[1]))
    run = Run(scenario, Scheduled(scenario, sequence), PLANS[0], starting_capacity(scenario, PLANS[0]), Mode.OPERATOR)
    outcome = run.finish()
    assert outcome.charged_s == 0.0
    assert outcome.failures == 0
    # four nodes come one by one, and each brings what fits on it: the plan stands a window after it was asked for
    assert [run.marks[w].plan.gpus() for w in (4, 7, 11, 39)] == [2, 6, 4, 4]
    assert run.marks[-1].plan.same_replicas(PLANS[1])
    assert outcome.books is not None
    assert outcome.books.completed == len(scenario.requests)


def test_what_windows_show_adds_up_to_the_books() -> None:
    prepared, _ = regimes()
    served: Served = serve(prepared, PlanSequence((0, 18), (PLANS[0], PLANS[1])))
    assert served.good.sum() == served.books.good
    assert served.delay_s.sum() == pytest.approx(served.books.delay_s)
    assert served.dollars.sum() == pytest.approx(served.books.cost_usd)


def test_after_a_loss_the_wanted_plan_comes_back() -> None:
    """A node goes at 100 s and the market recovers 200 s later; meanwhile the wanted plan does not fit."""
    loss = SpotLoss("a100", at_s=100.0, nodes=1, notice_s=0.0, recovery_s=200.0)
    hidden = replace(NOTHING_HIDDEN, losses=(loss,))
    scenario = scenario_of(every(0.5, 1200), hidden=hidden)
    plan = PLANS[1]
    run = Run(
        scenario,
        Scheduled(scenario, PlanSequence.fixed(plan)),
        plan,
        starting_capacity(scenario, plan),
        Mode.OPERATOR,
    )
    run.finish()
    gpus = [mark.plan.gpus() for mark in run.marks]
    assert gpus[4] == 2
    assert gpus[-1] == 4
    assert run.loop.counts["plans_rejected"] == 0
