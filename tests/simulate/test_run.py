"""A run joins loop, policy and world: it ends, charges what it should, and can be replayed."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from run_scenes import (
    ELASTIC,
    FIXED,
    SPOT,
    A,
    H,
    InProcess,
    Ran,
    always,
    chat,
    every,
    fresh_loop,
    plain,
    plan_of,
    restless,
    run_of,
    scenario_of,
    stay,
    with_route,
)

from autopoiesis.cluster import Cluster
from autopoiesis.loop.log import EventLog, replay
from autopoiesis.loop.messages import (
    AskTrigger,
    CapacityChanged,
    CapacityNotice,
    PlanFailed,
    PlanReady,
    PolicySwapped,
    StartPlan,
    Tick,
    TransitionDone,
    TriggerAnswered,
)
from autopoiesis.plan import Envelope, ServingPlan
from autopoiesis.policy.host_template import HostTemplate
from autopoiesis.policy.interface import Decision, Observation
from autopoiesis.policy.library import library
from autopoiesis.policy.source import PolicySource
from autopoiesis.simulate.hosted import ESTIMATOR, HostedPolicy
from autopoiesis.simulate.run import Notice
from autopoiesis.simulate.scenario import Mode
from autopoiesis.simulate.supply import SpotLoss
from autopoiesis.workload import Requests

CLUSTERS = {"fixed": (FIXED, plan_of(H, H, H)), "elastic": (ELASTIC, plan_of(A, A)), "spot": (SPOT, plan_of(A, A))}
PAPER = [Mode.OVERLAPPED, Mode.ADDITIVE]


def assert_sound(ran: Ran) -> None:
    """What holds after every run."""
    requests = ran.requests
    assert (requests["done"] >= 0).all()
    assert ran.run.progress == 1.0
    books, paper = ran.outcome.books, ran.outcome.paper
    if books is not None:
        assert books.requests == len(requests) == books.completed + books.lost + books.shed + books.rejected
        assert books.good <= books.completed
        assert books.delay_s >= 0
        assert books.cost_usd > 0
    else:
        assert paper is not None
        parts = paper.scheduling_s, paper.reconfiguration_s, paper.serving_s
        assert min(parts) >= 0
        assert sum(parts) == pytest.approx(paper.total_s, abs=1e-6)
        assert paper.total_s == pytest.approx(ran.outcome.ended_s, abs=1e-6)
    times_s = [record.now_s for record in ran.log.records]
    assert times_s == sorted(times_s)


# seeds have no smaller examples
@settings(max_examples=80, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(
    st.sampled_from(sorted(CLUSTERS)),
    st.sampled_from(list(Mode)),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.5, 8.0, 40.0]),
    st.sampled_from([10.0, 30.0, 60.0]),
    st.sampled_from([1.0, 15.0]),
)
def test_every_run_ends_and_its_books_balance(
    name: str, mode: Mode, seed: int, wildness: float, plan_s: float, window_s: float, rate_rps: float
) -> None:
    cluster, plan = CLUSTERS[name]
    scenario = scenario_of(cluster, chat(seed, 150.0, rate_rps), window_s=window_s)
    scenario = replace(scenario, hidden=replace(scenario.hidden, seed=seed))
    ran = run_of(scenario, restless(wildness, plan_s), plan, mode)
    assert_sound(ran)
    assert not replay(ran.log, fresh_loop(scenario, plan))


@pytest.mark.parametrize("mode", list(Mode))
def test_a_load_of_nothing_ends_at_once(mode: Mode) -> None:
    nothing = every(1.0, 0)
    ran = run_of(plain(FIXED, nothing), restless(), plan_of(H), mode)
    assert ran.outcome.ended_s == 0
    assert ran.log.records == []


# --- charges and failures ------------------------------------------------------------------------------------------


def test_an_answer_reaches_the_loop_when_its_charge_has_passed() -> None:
    policy = InProcess(always, stay, trigger_s=0.5, plan_s=4.0)
    ran = run_of(plain(FIXED, every(1.0, 70)), policy, plan_of(H))
    at_s = {type(record.event).__name__: record.now_s for record in ran.log.records}
    assert at_s["TriggerAnswered"] == pytest.approx(60.5)
    assert at_s["PlanReady"] == pytest.approx(64.5)
    assert ran.outcome.charged_s == pytest.approx(4.5)


def fail(observation: Observation) -> Decision:
    raise ValueError("no idea")


def test_a_policy_that_raises_is_counted_and_the_run_goes_on() -> None:
    ran = run_of(plain(FIXED, every(1.0, 200)), InProcess(always, fail, plan_s=2.0), plan_of(H))
    assert_sound(ran)
    assert len(ran.events(PlanFailed)) == 3
    assert ran.outcome.failures == 3
    assert ran.outcome.charged_s == pytest.approx(3 * 2.001)
    assert ran.run.loop.plan == plan_of(H)


def test_a_call_that_dies_with_its_counters_is_charged_the_deadline() -> None:
    ran = run_of(plain(FIXED, every(1.0, 100)), InProcess(always, fail, plan_s=0.0), plan_of(H))
    (failed,) = (record for record in ran.log.records if isinstance(record.event, PlanFailed))
    assert failed.now_s == pytest.approx(60.001 + 30.0)
    assert ran.outcome.charged_s == pytest.approx(30.001)


def test_a_planner_past_its_deadline_has_failed_at_the_deadline() -> None:
    ran = run_of(plain(FIXED, every(1.0, 200)), InProcess(always, stay, plan_s=45.0), plan_of(H))
    assert ran.events(PlanReady) == []
    assert {event.reason for event in ran.events(PlanFailed)} == {"deadline"}
    assert ran.outcome.failures == 3
    assert ran.outcome.charged_s == pytest.approx(3 * 30.001)


def test_a_trigger_past_the_deadline_has_failed_too() -> None:
    ran = run_of(plain(FIXED, every(1.0, 100)), InProcess(always, stay, trigger_s=31.0), plan_of(H))
    assert [event.reschedule for event in ran.events(TriggerAnswered)] == [None]
    assert ran.outcome.failures == 1


def test_ticks_while_the_planner_runs_are_ignored() -> None:
    scenario = plain(FIXED, every(1.0, 100), window_s=10.0)
    ran = run_of(scenario, InProcess(always, stay, plan_s=25.0), plan_of(H))
    assert ran.run.loop.counts["ignored_ticks"] == 6
    assert len(ran.commands(StartPlan)) == 3


HUNG = '''"""Hangs in its planner."""
from autopoiesis.policy import Decision, ServingState
interface = 1
def should_reschedule(state: ServingState) -> bool:
    return True
def plan(state: ServingState) -> Decision:
    while True:
        pass
def adopt(memory: dict) -> dict:
    raise ValueError("nothing to keep")
'''


@pytest.fixture(scope="module")
def template() -> HostTemplate:
    return HostTemplate(ESTIMATOR)


def test_a_hung_policy_in_its_host_costs_the_deadline_and_no_request(template: HostTemplate) -> None:
    policy = HostedPolicy(template, PolicySource("hung", HUNG), 0.3)
    try:
        ran = run_of(plain(FIXED, every(1.0, 100)), policy, plan_of(H))  # type: ignore[arg-type]
        assert "no answer" in (policy.last_failure or "")
        assert policy.adopt({"a": 1}) == {}
    finally:
        policy.close()
    assert ran.outcome.books is not None
    assert ran.outcome.books.completed == 100
    assert ran.outcome.failures == 1
    assert ran.outcome.charged_s == pytest.approx(30.0, abs=0.1)


@pytest.mark.parametrize("mode", list(Mode))
def test_policies_of_the_library_run_to_the_end_and_replay(template: HostTemplate, mode: Mode) -> None:
    scenario = scenario_of(SPOT, chat(4, 300.0, 6.0), window_s=30.0)
    for name in ("static", "greedy-replan", "scale-to-load", "amortised"):
        policy = HostedPolicy(template, library()[name], 30.0)
        try:
            ran = run_of(scenario, policy, plan_of(A, A), mode)  # type: ignore[arg-type]
        finally:
            policy.close()
        assert ran.outcome.failures == 0, policy.last_failure
        assert_sound(ran)
        assert not replay(EventLog.from_lines(ran.log.lines()), fresh_loop(scenario, plan_of(A, A)))


# --- swaps ---------------------------------------------------------------------------------------------------------

SHED_ALL = '''"""Refuses everybody."""
from autopoiesis.policy import SHED, ReplicaView, Request
def route(request: Request, replicas: list[ReplicaView]) -> int:
    return SHED
'''


def test_a_swap_drops_the_old_plan_and_changes_routing() -> None:
    old = InProcess(always, lambda observation: Decision(plan_of(H, H)), plan_s=20.0)
    new = InProcess(routing=with_route(SHED_ALL), adopted={"kept": 1}, source=PolicySource("new", SHED_ALL))
    scenario = plain(FIXED, every(1.0, 100), window_s=10.0)
    ran = run_of(scenario, old, plan_of(H), swaps={2: new})
    (swapped,) = ran.events(PolicySwapped)
    assert swapped.policy == new.source.identity
    assert ran.run.loop.memory == {"kept": 1}
    assert ran.events(PlanReady) == []
    assert ran.run.loop.plan == plan_of(H)
    assert ran.run.policy is new
    arrival_s = ran.requests["arrival"] / 1e12
    shed = ran.requests["status"] == 3
    assert (shed == (arrival_s > 20.0)).all()
    # the planner began at 10.001 and was dropped at 20
    assert ran.outcome.charged_s == pytest.approx(0.001 + 9.999 + 8 * 0.001, abs=2e-3)
    assert not replay(ran.log, fresh_loop(scenario, plan_of(H)))


def test_the_failures_of_every_policy_that_was_at_work_count_once() -> None:
    one, two = InProcess(always, fail), InProcess(always, fail)
    ran = run_of(plain(FIXED, every(1.0, 100), window_s=10.0), one, plan_of(H), swaps={3: two, 5: one, 7: two})
    assert one.failures + two.failures == ran.outcome.failures == len(ran.commands(AskTrigger))


def test_a_route_that_names_no_replica_is_counted_and_the_request_served() -> None:
    text = '''"""Names the seventh of one."""
from autopoiesis.policy import ReplicaView, Request
def route(request: Request, replicas: list[ReplicaView]) -> int:
    k = 7
    return k
'''
    ran = run_of(plain(FIXED, every(1.0, 30)), InProcess(routing=with_route(text)), plan_of(H))
    assert ran.outcome.failures == 30
    assert ran.outcome.books is not None
    assert ran.outcome.books.completed == 30


# --- what is told --------------------------------------------------------------------------------------------------


def test_whoever_watches_is_told_of_moves_and_refusals() -> None:
    notices: list[Notice] = []
    wanted = iter([plan_of(H, H), plan_of(H, H, H, H, H, H), plan_of(H, H)])
    policy = InProcess(always, lambda observation: Decision(next(wanted)))
    ran = run_of(plain(FIXED, every(1.0, 200)), policy, plan_of(H), notify=notices.append)
    assert [notice.kind for notice in notices] == ["reschedule", "transition", "refusal"]
    assert ran.outcome.reschedules == 1
    assert notices[0].at_s == pytest.approx(61.001)


def test_a_change_of_shares_alone_is_no_reschedule() -> None:
    ran = run_of(plain(FIXED, every(1.0, 130)), InProcess(always, stay), plan_of(H, H))
    assert ran.outcome.reschedules == 0


# --- paper mode ----------------------------------------------------------------------------------------------------


def batches(count: int, size: int, width: float = 60.0) -> Requests:
    return every(width / size, count * size)


def test_batches_come_one_after_the_other_and_makespans_add_up() -> None:
    ran = run_of(plain(FIXED, batches(4, 30)), InProcess(), plan_of(H), Mode.OVERLAPPED)
    requests = ran.requests
    released, done = requests["arrival"].reshape(4, 30), requests["done"].reshape(4, 30)
    assert (released == released[:, :1]).all()
    assert released[0, 0] == 0
    assert released[1:, 0].tolist() == done.max(axis=1)[:-1].tolist()
    assert ran.outcome.paper is not None
    assert ran.outcome.paper.total_s == pytest.approx(done.max() / 1e12)
    assert ran.outcome.paper.serving_s == pytest.approx(ran.outcome.paper.total_s, abs=0.01)


def mover(observation: Observation) -> Decision:
    """There and back again, so that every point moves."""
    return Decision(plan_of(H) if len(observation.plan.replicas) > 1 else plan_of(H, H))


def test_additive_accounting_serves_nothing_while_it_plans_or_moves() -> None:
    scenario = plain(FIXED, batches(5, 40))
    ran = run_of(scenario, InProcess(always, mover, plan_s=3.0), plan_of(H), Mode.ADDITIVE)
    requests = ran.requests
    busy = 0.0
    began: dict[int, float] = {}
    for record in ran.log.records:
        if isinstance(record.event, Tick):
            tick_s = record.now_s
        if isinstance(record.event, TransitionDone):
            began[len(began)] = record.now_s
            inside = (requests["first"] > tick_s * 1e12) & (requests["first"] < record.now_s * 1e12)
            assert not inside.any()
            assert not ((requests["done"] > tick_s * 1e12) & (requests["done"] < record.now_s * 1e12)).any()
            busy += record.now_s - tick_s
    paper = ran.outcome.paper
    assert paper is not None
    assert len(began) == 4
    assert paper.scheduling_s == pytest.approx(4 * 3.001)
    assert paper.scheduling_s + paper.reconfiguration_s == pytest.approx(busy)
    makespans = (requests["done"].reshape(5, 40).max(axis=1) - requests["arrival"].reshape(5, 40).min(axis=1)) / 1e12
    assert paper.serving_s == pytest.approx(makespans.sum())


def test_overlapped_accounting_serves_while_it_plans_and_moves() -> None:
    scenario = plain(FIXED, batches(5, 400, 60.0))
    policy = InProcess(always, mover, plan_s=0.5)
    overlapped = run_of(scenario, policy, plan_of(H), Mode.OVERLAPPED)
    additive = run_of(scenario, InProcess(always, mover, plan_s=0.5), plan_of(H), Mode.ADDITIVE)
    assert overlapped.outcome.paper is not None
    assert additive.outcome.paper is not None
    assert overlapped.outcome.paper.total_s < additive.outcome.paper.total_s
    (first, *_) = (record.now_s for record in overlapped.log.records if isinstance(record.event, Tick))
    during = (overlapped.requests["first"] > first * 1e12) & (overlapped.requests["first"] < (first + 0.5) * 1e12)
    assert during.any()


def test_a_planner_that_outlives_its_batch_goes_on_into_the_next() -> None:
    scenario = plain(FIXED, batches(12, 10))
    ran = run_of(scenario, InProcess(always, mover, plan_s=4.0), plan_of(H), Mode.OVERLAPPED)
    assert ran.run.loop.counts["ignored_ticks"] > 0
    started = next(record.now_s for record in ran.log.records if any(isinstance(c, StartPlan) for c in record.commands))
    ready = next(record.now_s for record in ran.log.records if isinstance(record.event, PlanReady))
    assert ready - started == pytest.approx(4.0)
    ticks = [record.now_s for record in ran.log.records if isinstance(record.event, Tick)]
    assert any(started < tick < ready for tick in ticks)


def test_the_batch_at_hand_is_shown_with_prompts_and_with_outputs_of_before() -> None:
    seen: list[Observation] = []

    def look(observation: Observation) -> bool:
        seen.append(observation)
        return False

    requests = batches(3, 20)
    requests = replace(requests, output_tokens=np.repeat([50, 70, 90], 20))
    run_of(plain(FIXED, requests), InProcess(look), plan_of(H), Mode.OVERLAPPED)
    windows = [observation.window for observation in seen]
    assert [window.index for window in windows if window] == [1, 2]
    assert [window.classes[0].output_mean for window in windows if window] == [50, 70]
    assert [window.classes[0].arrivals for window in windows if window] == [20, 20]
    assert [window.classes[0].completed for window in windows if window] == [0, 0]
    assert [len(observation.recent) for observation in seen] == [1, 2]
    assert seen[1].recent[-1].classes[0].output_mean == 70


def test_an_empty_batch_takes_no_time_and_nothing_is_decided_for_it() -> None:
    seen: list[Observation] = []

    def look(observation: Observation) -> bool:
        seen.append(observation)
        return False

    requests = every(1.0, 30)
    requests = replace(requests, arrival_s=np.where(requests.arrival_s < 10, requests.arrival_s, 150.0))
    ran = run_of(plain(FIXED, requests), InProcess(look), plan_of(H), Mode.OVERLAPPED)
    (observation,) = seen
    assert observation.window is not None
    assert observation.window.index == 2
    assert observation.window.classes[0].output_mean == 100
    assert [len(window.classes) for window in observation.recent] == [1, 0]
    assert_sound(ran)


LOSS = SpotLoss("a100", at_s=100.0, nodes=1, notice_s=40.0, recovery_s=60.0)
WITH_SPARE = Cluster("spare", (replace(ELASTIC.pools[0], start_s_p50=0.0, start_s_p90=0.0),), ELASTIC.gpus)


def capacity_story(mode: Mode, loss: SpotLoss, window_s: float = 30.0) -> list[tuple[str, int, int]]:
    """(event, GPUs, index of the window under way) of each change of capacity."""
    scenario = plain(WITH_SPARE, batches(8, 60, 30.0), losses=(loss,), window_s=window_s)
    capacity = fresh_loop(scenario, plan_of(A)).capacity.with_pool("a100", 4)
    ran = run_of(scenario, InProcess(), plan_of(A, A, A), mode, capacity)
    assert_sound(ran)
    story, index = [], 0
    points = iter([*sorted(ran.points.items()), (99, math.inf)])
    upcoming = next(points)
    for record in ran.log.records:
        while record.now_s >= upcoming[1]:
            index, upcoming = upcoming[0], next(points)
        if isinstance(record.event, CapacityNotice | CapacityChanged):
            story.append((type(record.event).__name__, record.event.gpus, index))
    return story


@pytest.mark.parametrize("mode", PAPER)
def test_capacity_events_are_pinned_to_window_indices(mode: Mode) -> None:
    # announced at 60 s (window 2), lost at 100 s (window 3), offered again at 160 s (window 5)
    assert capacity_story(mode, LOSS) == [
        ("CapacityNotice", 2, 2),
        ("CapacityChanged", 2, 3),
        ("CapacityChanged", 4, 5),
    ]


@pytest.mark.parametrize("mode", PAPER)
def test_a_loss_in_the_window_of_its_notice_comes_without_notice(mode: Mode) -> None:
    assert capacity_story(mode, replace(LOSS, notice_s=5.0)) == [
        ("CapacityChanged", 2, 3),
        ("CapacityChanged", 4, 5),
    ]


@pytest.mark.parametrize("mode", PAPER)
def test_the_point_of_a_window_knows_what_was_lost_when_it_began(mode: Mode) -> None:
    seen: dict[int, Observation] = {}

    def look(observation: Observation) -> bool:
        if observation.window is not None:
            seen[observation.window.index] = observation
        return False

    scenario = plain(WITH_SPARE, batches(8, 60, 30.0), losses=(LOSS,), window_s=30.0)
    capacity = fresh_loop(scenario, plan_of(A)).capacity.with_pool("a100", 4)
    run_of(scenario, InProcess(look), plan_of(A, A, A), mode, capacity)
    assert [seen[index].pools[0].available for index in range(1, 8)] == [4, 4, 2, 2, 2, 4, 4]
    assert len(seen[2].announced) == 1
    assert len(seen[3].plan.replicas) == 2


def test_in_additive_mode_a_grant_waits_for_the_next_window() -> None:
    quick = Cluster("quick", (replace(ELASTIC.pools[0], start_s_p50=2.0, start_s_p90=2.0),), ELASTIC.gpus)
    scenario = plain(quick, batches(6, 400, 60.0))
    policy = InProcess(always, lambda observation: Decision(plan_of(A, A, A, A), {"a100": 4}), plan_s=0.1)
    ran = run_of(scenario, policy, plan_of(A, A), Mode.ADDITIVE)
    requests = ran.requests
    ends = {int(at) for at in requests["done"].reshape(6, 400).max(axis=1)}
    (grant,) = (record.now_s for record in ran.log.records if isinstance(record.event, CapacityChanged))
    assert any(abs(grant - end / 1e12) < 1e-3 for end in ends)
    assert_sound(ran)


# --- envelopes and hopeless cases ----------------------------------------------------------------------------------


def test_a_model_without_a_replica_loses_its_requests_and_the_run_ends() -> None:
    bare = Cluster("bare", (replace(SPOT.pools[0], minimum=0),), SPOT.gpus)
    scenario = plain(bare, every(1.0, 60), losses=(SpotLoss("a100", 20.0, 4, 0.0, 1e9),))
    capacity = fresh_loop(plain(ELASTIC, every(1.0, 1)), plan_of(A)).capacity
    capacity = type(capacity)(tuple(replace(entry, pool=bare.pools[0], gpus=2) for entry in capacity.pools))
    ran = run_of(scenario, InProcess(), plan_of(A), capacity=capacity)
    assert_sound(ran)
    assert ran.outcome.books is not None
    assert ran.outcome.books.lost == 41  # one of them was half answered
    assert ran.outcome.ended_s < 1000


@pytest.mark.parametrize("mode", list(Mode))
def test_random_policies_stay_within_the_envelope(mode: Mode) -> None:
    envelope = Envelope(maximum_gpus=4, minimum_replicas=2)
    ran = run_of(
        scenario_of(SPOT, chat(5, 300.0, 4.0), window_s=20.0, envelope=envelope), restless(), plan_of(A, A), mode
    )
    assert_sound(ran)
    plans: list[ServingPlan] = [
        event.decision.plan for event in ran.events(PlanReady) if event.decision.plan == ran.run.loop.plan
    ]
    assert all(len(plan.replicas) >= 2 and plan.gpus() <= 4 for plan in plans)


def test_the_log_is_lines_of_json() -> None:
    ran = run_of(scenario_of(SPOT, chat(1, 100.0, 2.0), window_s=20.0), restless(), plan_of(A, A))
    assert all(set(json.loads(line)) == {"now_s", "event", "commands"} for line in ran.log.lines())
