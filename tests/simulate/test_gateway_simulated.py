"""The gateway of the simulated world: placing, holding, shedding, and what is lost when nothing can be done."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_scenes import (
    FOREVER,
    LEAST_LOADED,
    MIXED,
    NEVER_PLACES,
    NO_PRIORITY,
    ONE_AT_A_TIME,
    PREFILL,
    RANDOM,
    SHEDS,
    SHORT_FIRST,
    SMALL,
    calls,
    check_books,
    results,
    routing,
    seconds,
    simulate,
    start,
)

from autopoiesis.plan import ClassShares, Replica, ServingPlan
from autopoiesis.simulate import layout
from autopoiesis.simulate.simulation import Routing, Simulation
from autopoiesis.workload import Status, class_labels

HOLDS_LONG = "def route(request, replicas):\n    return HOLD if request.prompt_tokens > 100.0 else 0\n"
SHEDS_LATE = "def route(request, replicas):\n    return SHED if request.waited_s > 2.0 else HOLD\n"
HOLDS_FIRST = "def route(request, replicas):\n    return HOLD if request.sequence < 1.0 else 0\n"
BAD_INDEX = "def route(request, replicas):\n    return len(replicas)\n"
CACHED = "def route(request, replicas):\n    return max(replicas, key=lambda r: r.cached_tokens).index\n"
LEAST_RUNNING = "def route(request, replicas):\n    return min(replicas, key=lambda r: r.running).index\n"
FRESHEST = "def route(request, replicas):\n    return min(replicas, key=lambda r: r.telemetry_age_s).index\n"
BY_SHARE = "def route(request, replicas):\n    return max(replicas, key=lambda r: r.share).index\n"
ONLY_FAST = "def route(request, replicas):\n    return max(replicas, key=lambda r: r.speed).index\n"
OTHER_WHEN_FREE = """
def route(request, replicas):
    if request.sequence < 1.0:
        return 1
    if request.sequence < 2.0:
        return 0
    return HOLD if replicas[0].in_flight > 0.0 else 1
"""
LABELS = class_labels((SMALL,))


def shared(simulation: Simulation, *fractions: float) -> None:
    """Give every class these fractions on the first slots."""
    plan = ServingPlan((MIXED,) * len(fractions), tuple(ClassShares(label, fractions) for label in LABELS))
    simulation.set_shares(plan, {i: i for i in range(len(fractions))})


def placed(simulation: Simulation) -> list[int]:
    slots: list[int] = simulation.state.requests["slot"].tolist()
    return slots


# --- the built-in balancer ------------------------------------------------------------------------------------------


def test_without_shares_requests_are_divided_by_speed() -> None:
    simulation = simulate(calls(*[(0.0, 10, 500)] * 30), MIXED, Replica(SMALL, "a100"))
    simulation.advance(0.0)
    fast, slow = simulation.state.replicas["speed"][:2]
    assert fast == 1.0
    assert 0.3 < slow < 0.8
    assert placed(simulation).count(1) == pytest.approx(30 * slow / (1 + slow), abs=1)


def test_with_shares_requests_are_divided_by_them() -> None:
    simulation = simulate(calls(*[(0.0, 10, 500)] * 40), MIXED, MIXED, MIXED)
    shared(simulation, 0.75, 0.25, 0.0)
    simulation.advance(0.0)
    assert [placed(simulation).count(slot) for slot in range(3)] == [30, 10, 0]


def test_where_nobody_has_a_share_speed_divides() -> None:
    simulation = simulate(calls(*[(1.0, 10, 500)] * 10), MIXED, MIXED, MIXED)
    shared(simulation, 1.0, 0.0, 0.0)
    simulation.stop(0)
    simulation.advance(1.0)
    assert [placed(simulation).count(slot) for slot in range(3)] == [0, 5, 5]


def test_a_successor_in_a_slot_does_not_inherit_shares() -> None:
    simulation = simulate(calls(*[(1.0, 10, 500)] * 10), MIXED, MIXED)
    shared(simulation, 0.9, 0.1)
    simulation.stop(0)
    assert start(simulation, MIXED) == 0
    simulation.advance(1.0)
    assert set(placed(simulation)) == {1}


def test_shares_reach_beyond_the_slots_that_there_were() -> None:
    simulation = simulate(calls(*[(1.0, 10, 500)] * 10), MIXED, slots=1)
    shared(simulation, 1.0)
    assert start(simulation, MIXED) == 1
    simulation.advance(1.0)
    assert set(placed(simulation)) == {0}


# --- the other built-in routers -------------------------------------------------------------------------------------


def test_round_robin_takes_turns_for_each_model_and_phase() -> None:
    simulation = simulate(calls(*[(0.1 * i, 10, 500) for i in range(7)]), MIXED, MIXED, MIXED, router="round-robin")
    simulation.advance(0.35)
    simulation.drain(1)
    simulation.advance(0.6)
    assert placed(simulation) == [0, 1, 2, 0, 2, 0, 2]


def test_least_outstanding_heeds_neither_speed_nor_share() -> None:
    simulation = simulate(
        calls(*[(0.0, 10, 500)] * 6), Replica(SMALL, "a100"), MIXED, MIXED, router="least-outstanding"
    )
    shared(simulation, 0.0, 1.0, 0.0)
    simulation.advance(0.0)
    assert placed(simulation) == [0, 1, 2, 0, 1, 2]


def test_of_two_drawn_at_random_the_less_busy_is_taken() -> None:
    simulation = simulate(calls(*[(0.0, 10, 500)] * 400), *[MIXED] * 8, router="power-of-two")
    simulation.advance(0.0)
    counts = np.bincount(placed(simulation), minlength=8)
    at_random = np.bincount(np.random.default_rng(0).integers(0, 8, 400), minlength=8)
    assert counts.max() - counts.min() < (at_random.max() - at_random.min()) / 2
    assert simulate(calls((0.0, 10, 5)), MIXED, router="power-of-two").advance(FOREVER) == layout.REACHED


def test_the_weighted_score_sees_prefixes_load_and_memory() -> None:
    requests = calls((0.0, 1100, 5), *[(5.0 + i, 1100, 500) for i in range(3)], blocks=[(1, 2)] * 4)
    simulation = simulate(requests, MIXED, MIXED, MIXED, router="weighted")
    simulation.state.telemetry[:3, 2] = [0.9, 0.1, 0.5]
    # nothing is cached or busy: memory decides; then the prefix does, whatever else
    simulation.advance(5.5)
    assert placed(simulation)[:2] == [1, 1]
    simulation.advance(6.5)
    assert placed(simulation)[2] == 1
    # a busy replica without memory is not worth the prefix
    simulation.state.telemetry[1, 2] = 1.0
    simulation.state.telemetry[2, 2] = 0.0
    simulation.advance(7.5)
    assert placed(simulation)[3] == 2


def test_the_weighted_score_does_not_herd_between_two_samples() -> None:
    simulation = simulate(calls(*[(0.001 * i, 100, 500) for i in range(60)]), MIXED, MIXED, MIXED, router="weighted")
    simulation.advance(0.1)
    assert [placed(simulation).count(slot) for slot in range(3)] == [20, 20, 20]


def test_shares_are_dealt_out_evenly_and_without_them_the_balance_holds() -> None:
    simulation = simulate(calls(*[(0.1 * i, 10, 500) for i in range(8)]), MIXED, MIXED, MIXED, router="shares")
    shared(simulation, 0.5, 0.25, 0.25)
    simulation.advance(1.0)
    assert placed(simulation) == [0, 1, 2, 0, 0, 1, 2, 0]
    simulation = simulate(calls(*[(0.0, 10, 500)] * 3), MIXED, MIXED, MIXED, router="shares")
    simulation.advance(0.0)
    assert sorted(placed(simulation)) == [0, 1, 2]


# --- what `route` sees ----------------------------------------------------------------------------------------------


def test_route_follows_the_cached_prefix() -> None:
    requests = calls((0.0, 500, 5), (5.0, 600, 5), previous=[-1, 0], prefix=[0, 500])
    simulation = simulate(requests, MIXED, MIXED, MIXED)
    shared(simulation, 0.0, 0.0, 1.0)
    simulation.advance(4.0)
    simulation.set_routing(routing(CACHED))
    simulation.advance(FOREVER)
    assert placed(simulation) == [2, 2]


def test_what_was_sent_long_ago_is_believed_to_be_cached_no_more() -> None:
    # in between, more tokens are sent there than its cache holds
    lengths = [1030, 1200, 1200, 1030, 1030]
    requests = calls(*[(i, n, 2) for i, n in enumerate(lengths)], blocks=[(1, 2), (), (), (1, 2), (1, 2)])
    simulation = simulate(requests, MIXED, MIXED, kv=2000)
    simulation.drain(0)
    simulation.advance(2.5)
    simulation.undrain(0)
    simulation.set_routing(routing(CACHED))
    simulation.advance(FOREVER)
    assert placed(simulation) == [1, 1, 1, 0, 0]


def test_the_deepest_block_says_who_has_those_before_it() -> None:
    # the system prompt was last sent elsewhere, the conversation was not
    requests = calls((0.0, 1030, 2), (3.0, 520, 2), (6.0, 1030, 2), blocks=[(1, 2), (1,), (1, 2)])
    simulation = simulate(requests, MIXED, MIXED)
    simulation.drain(0)
    simulation.advance(2.0)
    simulation.undrain(0)
    simulation.drain(1)
    simulation.advance(5.0)
    simulation.undrain(1)
    simulation.set_routing(routing(CACHED))
    simulation.advance(FOREVER)
    assert placed(simulation) == [1, 0, 1]


def test_route_sees_telemetry_as_of_its_sample_and_its_age() -> None:
    simulation = simulate(calls(*[(float(i), 10, 5) for i in range(1, 4)]), MIXED, MIXED, text=LEAST_RUNNING)
    simulation.state.telemetry[0, 0] = 5.0
    simulation.advance(1.5)
    simulation.set_routing(routing(FRESHEST))
    simulation.advance(2.5)
    simulation.state.telemetry[1, 3] = 2.5
    simulation.advance(FOREVER)
    assert placed(simulation) == [1, 0, 1]


def test_route_sees_shares_and_speed() -> None:
    simulation = simulate(calls((0.0, 10, 5), (1.0, 10, 5)), Replica(SMALL, "a100"), MIXED, text=BY_SHARE)
    shared(simulation, 0.6, 0.4)
    simulation.advance(0.5)
    simulation.set_routing(routing(ONLY_FAST))
    simulation.advance(FOREVER)
    assert placed(simulation) == [0, 1]


def test_random_draws_are_fresh_for_every_call() -> None:
    simulation = simulate(calls(*[(0.0, 10, 1)] * 400), *[MIXED] * 4, text=RANDOM)
    simulation.advance(FOREVER)
    counts = [placed(simulation).count(slot) for slot in range(4)]
    assert min(counts) > 70


def test_a_bad_index_is_a_fault_and_the_balancer_places() -> None:
    simulation = simulate(calls(*[(0.0, 10, 5)] * 6), MIXED, MIXED, text=BAD_INDEX)
    simulation.advance(FOREVER)
    assert simulation.route_faults == 6
    assert sorted(placed(simulation)) == [0, 0, 0, 1, 1, 1]


def test_a_priority_that_is_no_number_is_a_fault() -> None:
    simulation = simulate(calls(*[(0.0, 10, 5)] * 6), MIXED, text=NO_PRIORITY)
    simulation.advance(FOREVER)
    assert simulation.route_faults == 6
    assert simulation.unfinished == 0


# --- holding --------------------------------------------------------------------------------------------------------


def test_a_held_request_is_offered_at_the_instant_another_ends() -> None:
    simulation = simulate(calls((0.0, 100, 50), (0.01, 100, 5)), MIXED, text=ONE_AT_A_TIME)
    alone = simulate(calls((0.0, 100, 5)), MIXED)
    simulation.advance(FOREVER)
    alone.advance(FOREVER)
    requests = simulation.state.requests
    assert requests["first"][1] - requests["done"][0] == alone.state.requests["first"][0]


def test_a_held_request_is_offered_every_100_ms_though_nothing_changes() -> None:
    late = "def route(request, replicas):\n    return 0 if request.waited_s > 0.95 else HOLD\n"
    simulation = simulate(calls((0.0, 100, 5)), MIXED, text=late)
    alone = simulate(calls((0.0, 100, 5)), MIXED)
    simulation.advance(FOREVER)
    alone.advance(FOREVER)
    assert simulation.state.requests["first"][0] == alone.state.requests["first"][0] + layout.SECOND


def test_a_new_policy_is_offered_what_is_held_at_once() -> None:
    simulation = simulate(calls((0.0, 100, 50)), MIXED, text=NEVER_PLACES)
    simulation.advance(0.05)
    simulation.set_routing(Routing())
    simulation.advance(0.05)
    assert placed(simulation) == [0]


def test_a_new_replica_is_offered_what_is_held_at_once() -> None:
    simulation = simulate(calls((0.0, 100, 50)), text=LEAST_LOADED)
    simulation.advance(5.0)
    start(simulation, MIXED)
    simulation.advance(5.0)
    assert placed(simulation) == [0]
    simulation.advance(FOREVER)
    assert simulation.state.requests["status"][0] == Status.COMPLETED


def test_patience_ends_after_60_s() -> None:
    simulation = simulate(calls((1.0, 100, 5), (3.0, 100, 5)), MIXED, text=NEVER_PLACES)
    simulation.advance(FOREVER)
    assert simulation.state.requests["status"].tolist() == [Status.COMPLETED] * 2
    assert seconds(simulation, "first") == pytest.approx([60.0, 60.0], abs=0.1)


def test_patience_counts_from_when_the_request_was_held_last() -> None:
    # placed after 60 s; the replica dies, and it is held anew
    simulation = simulate(calls((0.0, 100, 5000)), MIXED, MIXED, text=NEVER_PLACES)
    simulation.advance(61.0)
    simulation.stop(placed(simulation)[0])
    simulation.advance(120.9)
    assert placed(simulation) == [-1]
    simulation.advance(121.1)
    assert placed(simulation) != [-1]


def test_a_newcomer_waits_behind_a_held_request_and_is_offered_for_itself_as_it_waits() -> None:
    simulation = simulate(calls((0.0, 500, 5), (1.0, 10, 5)), MIXED, text=HOLDS_LONG)
    simulation.advance(1.09)
    assert placed(simulation) == [-1, -1]
    simulation.advance(1.1)
    assert placed(simulation) == [-1, 0]
    simulation.advance(60.0)
    assert placed(simulation) == [0, 0]


def test_a_request_that_is_late_is_shed_from_the_middle_of_the_queue() -> None:
    text = SHEDS_LATE + SHORT_FIRST
    simulation = simulate(calls((0.0, 500, 5), (1.9, 10, 5), (1.95, 20, 5)), MIXED, text=text)
    simulation.advance(2.0)
    assert simulation.state.requests["status"].tolist() == [Status.PENDING] * 3
    simulation.advance(3.5)
    assert simulation.state.requests["status"].tolist() == [Status.SHED, Status.PENDING, Status.PENDING]
    simulation.advance(FOREVER)
    assert simulation.state.requests["status"].tolist() == [Status.SHED] * 3
    waited = (simulation.state.requests["done"] - simulation.state.requests["arrival"]) / layout.SECOND
    assert np.all(waited < 4.2)


def test_a_larger_priority_goes_past_the_held() -> None:
    simulation = simulate(calls((0.0, 500, 5), (1.0, 10, 5)), MIXED, text=HOLDS_LONG + SHORT_FIRST)
    simulation.advance(1.0)
    assert placed(simulation) == [-1, 0]


def test_an_older_request_that_was_evicted_goes_past_the_held() -> None:
    simulation = simulate(calls((0.0, 50, 5000), (1.0, 500, 5)), MIXED, MIXED, text=HOLDS_LONG)
    simulation.advance(2.0)
    assert placed(simulation) == [0, -1]
    simulation.stop(0)
    simulation.advance(2.0)
    assert placed(simulation) == [1, -1]


def test_held_requests_are_offered_by_priority_and_then_by_age() -> None:
    requests = calls((0.0, 50, 50), (0.01, 300, 5), (0.02, 80, 5), (0.03, 300, 5), (0.04, 80, 5))
    simulation = simulate(requests, MIXED, text=ONE_AT_A_TIME + SHORT_FIRST)
    simulation.advance(FOREVER)
    done = simulation.state.requests["done"]
    assert sorted(range(5), key=lambda row: int(done[row])) == [0, 2, 4, 1, 3]


def test_who_comes_after_the_last_held_has_gone_is_placed_at_once() -> None:
    simulation = simulate(calls((0.0, 10, 5), (60.5, 10, 5)), MIXED, text=HOLDS_FIRST)
    simulation.advance(60.5)
    assert placed(simulation) == [0, 0]


def test_a_newcomer_at_the_instant_of_an_end_starts_with_the_same_step_in_either_mode() -> None:
    # both replicas step in time; when the first is done, the held request goes to the second
    requests = calls((0.0, 100, 30), (0.0, 100, 5), (0.001, 100, 5))
    outcomes = []
    for exact in (False, True):
        simulation = simulate(requests, MIXED, MIXED, text=OTHER_WHEN_FREE, exact=exact)
        simulation.advance(FOREVER)
        assert placed(simulation)[2] == 1
        outcomes.append(results(simulation))
    assert np.array_equal(outcomes[0], outcomes[1])


# --- shedding and losing --------------------------------------------------------------------------------------------


def test_a_shed_request_ends_at_once_and_its_session_goes_on() -> None:
    requests = calls(*[(0.0, 10, 2000)] * 4, (0.1, 10, 5), previous=[-1, -1, -1, -1, 3], think=[0, 0, 0, 0, 30.0])
    simulation = simulate(requests, MIXED, text=SHEDS)
    simulation.advance(FOREVER)
    assert simulation.state.requests["status"].tolist() == [1, 1, 1, Status.SHED, 1]
    assert seconds(simulation, "done")[3] == pytest.approx(0.3, abs=0.01)
    assert simulation.state.requests["first"][3] == -1


def test_a_request_that_fits_nowhere_blocks_nobody_and_is_lost() -> None:
    simulation = simulate(calls((0.0, 5000, 5), (1.0, 10, 5)), MIXED, kv=1000, text=ONE_AT_A_TIME)
    simulation.advance(1.0)
    check_books(simulation)
    assert placed(simulation) == [-1, 0]
    simulation.advance(FOREVER)
    assert simulation.state.requests["status"].tolist() == [Status.LOST, Status.COMPLETED]
    assert seconds(simulation, "done")[0] == 600.0


def test_a_request_that_fitted_nowhere_goes_to_a_larger_replica_when_that_comes() -> None:
    simulation = simulate(calls((0.0, 5000, 5), (1.0, 10, 5)), MIXED, kv=1000, text=NEVER_PLACES)
    simulation.advance(20.0)
    simulation.set_routing(Routing())
    simulation.advance(20.0)
    assert placed(simulation) == [-1, 0]
    start(simulation, MIXED)
    simulation.advance(20.0)
    assert placed(simulation) == [1, 0]
    check_books(simulation)


def test_a_request_waits_600_s_for_a_replica() -> None:
    simulation = simulate(calls((0.0, 10, 5), (10.0, 10, 5)))
    simulation.advance(605.0)
    start(simulation, MIXED)
    simulation.advance(FOREVER)
    assert simulation.state.requests["status"].tolist() == [Status.LOST, Status.COMPLETED]
    assert seconds(simulation, "done") == pytest.approx([600.0, 595.0], abs=0.2)


def test_prefilled_requests_wait_for_a_decode_replica() -> None:
    simulation = simulate(calls((0.0, 100, 5)), PREFILL)
    simulation.advance(FOREVER)
    assert simulation.state.requests["status"].tolist() == [Status.LOST]
    assert simulation.state.requests["first"][0] > 0
