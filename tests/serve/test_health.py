"""The states of a replica: every cell of the table in `health`, and what holds whatever happens."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopoiesis.serve.config import HealthConfig
from autopoiesis.serve.health import Failure, Health, State, may_eject

CONFIG = HealthConfig(failures=3, eject_s=5.0, eject_max_s=30.0, error_ratio=0.5, error_window=10)

Event = Callable[[Health, float], object]


def succeeded(health: Health, now: float) -> None:
    health.succeeded(now)


def failed(health: Health, now: float) -> None:
    health.failed(now, Failure.CONNECT)


def may_probe(health: Health, now: float) -> bool:
    return health.may_probe(now)


def probed(health: Health, now: float) -> None:
    health.probed(now, True)


def missed(health: Health, now: float) -> None:
    health.probed(now, False)


def reported(health: Health, now: float) -> None:
    health.reported(now)


def found_healthy(health: Health, now: float) -> None:
    health.adopt(now, True)


def found_unhealthy(health: Health, now: float) -> None:
    health.adopt(now, False)


def healthy(may_eject: Callable[[], bool] = lambda: True) -> Health:
    """Since time 0."""
    health = Health(CONFIG, may_eject=may_eject)
    health.probed(0.0, True)
    return health


def ejected() -> Health:
    """At time 0, until 5."""
    health = healthy()
    for _ in range(3):
        failed(health, 0.0)
    return health


def probing() -> Health:
    """Since time 5."""
    health = ejected()
    assert health.may_probe(5.0)
    return health


STATES: dict[State, Callable[[], Health]] = {
    State.UNKNOWN: lambda: Health(CONFIG),
    State.HEALTHY: healthy,
    State.EJECTED: ejected,
    State.PROBING: probing,
}
LATER = 6.0
"""When the ejection has ended."""


@pytest.mark.parametrize("state", STATES)
def test_only_a_healthy_replica_admits_requests(state: State) -> None:
    health = STATES[state]()
    assert health.state is state
    assert health.admits is (state is State.HEALTHY)


@pytest.mark.parametrize(
    ("state", "event", "after"),
    [
        (State.UNKNOWN, succeeded, State.UNKNOWN),
        (State.UNKNOWN, failed, State.UNKNOWN),
        (State.UNKNOWN, may_probe, State.UNKNOWN),
        (State.UNKNOWN, probed, State.HEALTHY),
        (State.UNKNOWN, missed, State.UNKNOWN),
        (State.HEALTHY, succeeded, State.HEALTHY),
        (State.HEALTHY, failed, State.HEALTHY),
        (State.HEALTHY, may_probe, State.HEALTHY),
        (State.HEALTHY, probed, State.HEALTHY),
        (State.HEALTHY, missed, State.HEALTHY),
        (State.EJECTED, succeeded, State.EJECTED),
        (State.EJECTED, failed, State.EJECTED),
        (State.EJECTED, may_probe, State.PROBING),
        (State.EJECTED, probed, State.EJECTED),
        (State.EJECTED, missed, State.EJECTED),
        (State.PROBING, succeeded, State.PROBING),
        (State.PROBING, failed, State.PROBING),
        (State.PROBING, may_probe, State.PROBING),
        (State.PROBING, probed, State.HEALTHY),
        (State.PROBING, missed, State.PROBING),
        (State.UNKNOWN, reported, State.UNKNOWN),
        (State.UNKNOWN, found_healthy, State.HEALTHY),
        (State.UNKNOWN, found_unhealthy, State.UNKNOWN),
        (State.HEALTHY, reported, State.EJECTED),
        (State.HEALTHY, found_healthy, State.HEALTHY),
        (State.HEALTHY, found_unhealthy, State.UNKNOWN),
        (State.EJECTED, reported, State.EJECTED),
        (State.EJECTED, found_healthy, State.HEALTHY),
        (State.EJECTED, found_unhealthy, State.UNKNOWN),
        (State.PROBING, reported, State.PROBING),
        (State.PROBING, found_healthy, State.HEALTHY),
        (State.PROBING, found_unhealthy, State.UNKNOWN),
    ],
)
def test_one_event_leads_from_state_to_state(state: State, event: Event, after: State) -> None:
    health = STATES[state]()
    event(health, LATER)
    assert health.state is after
    assert health.admits is (after is State.HEALTHY)


@pytest.mark.parametrize("state", [State.UNKNOWN, State.EJECTED, State.PROBING])
@pytest.mark.parametrize("event", [succeeded, failed])
def test_requests_change_nothing_of_a_replica_that_gets_none(state: State, event: Event) -> None:
    health, twin = STATES[state](), STATES[state]()
    for _ in range(20):
        event(health, LATER)
    for each in (health, twin):
        each.may_probe(LATER)
        each.probed(LATER, True)
    assert (health.state, health.ejected_until) == (twin.state, twin.ejected_until)
    failed(health, LATER)
    assert health.admits


@pytest.mark.parametrize("kind", Failure)
def test_failures_in_a_row_eject(kind: Failure) -> None:
    health = healthy()
    for left in (2, 1, 0):
        health.failed(1.0, kind)
        assert health.admits is (left > 0)


def test_a_success_ends_a_row_of_failures() -> None:
    health = healthy()
    for _ in range(4):
        failed(health, 1.0)
        missed(health, 1.0)
        succeeded(health, 1.0)
    failed(health, 1.0)
    missed(health, 1.0)
    assert health.admits


def test_failed_probes_in_a_row_eject() -> None:
    health = healthy()
    for _ in range(2):
        missed(health, 1.0)
    probed(health, 1.0)
    for _ in range(2):
        missed(health, 1.0)
    assert health.admits
    missed(health, 1.0)
    assert health.state is State.EJECTED


def test_probes_that_succeed_do_not_hide_requests_that_fail() -> None:
    health = healthy()
    for _ in range(3):
        failed(health, 1.0)
        probed(health, 1.0)
    assert health.state is State.EJECTED


def test_a_ratio_of_errors_ejects_once_the_window_is_full() -> None:
    health = healthy()
    for _ in range(4):
        failed(health, 1.0)
        succeeded(health, 1.0)
    succeeded(health, 1.0)
    assert health.admits
    failed(health, 1.0)
    assert health.state is State.EJECTED


def test_errors_that_have_left_the_window_do_not_count() -> None:
    health = healthy()
    for _ in range(2):
        failed(health, 1.0)
        failed(health, 1.0)
        for _ in range(8):
            succeeded(health, 1.0)
    assert health.admits


def test_a_replica_that_comes_back_starts_with_an_empty_record() -> None:
    health = probing()
    probed(health, LATER)
    for _ in range(2):
        failed(health, LATER)
    assert health.admits


def test_no_probe_is_allowed_before_the_ejection_has_ended() -> None:
    health = ejected()
    assert not health.may_probe(4.999)
    assert health.state is State.EJECTED
    assert health.may_probe(5.0)


def test_each_ejection_lasts_twice_as_long_as_the_one_before_up_to_the_maximum() -> None:
    health = ejected()
    lengths = []
    for _ in range(5):
        now = health.ejected_until
        assert health.may_probe(now)
        probed(health, now)
        for _ in range(3):
            failed(health, now)
        lengths.append(health.ejected_until - now)
    assert lengths == [10.0, 20.0, 30.0, 30.0, 30.0]
    assert health.ejections == 6


def test_a_replica_on_trial_may_be_probed_until_it_can_serve() -> None:
    health = probing()
    for now in range(6, 100):
        missed(health, now)
        assert health.may_probe(now)
    probed(health, 100)
    assert health.admits


@pytest.mark.parametrize(("healthy_s", "length"), [(9.9, 10.0), (10.0, 5.0), (1000.0, 5.0)])
def test_an_ejection_is_halved_by_a_healthy_while_of_its_own_length(healthy_s: float, length: float) -> None:
    health = probing()
    probed(health, 5.0)
    now = 5.0 + healthy_s
    for _ in range(3):
        failed(health, now)
    assert health.ejected_until == now + length


def test_a_replica_that_only_it_may_think_faulty_stays_while_it_must() -> None:
    health = healthy(may_eject=lambda: False)
    for _ in range(50):
        health.failed(1.0, Failure.SERVER_ERROR)
    assert health.admits


@pytest.mark.parametrize("dead", [failed, missed])
def test_a_dead_replica_is_ejected_whatever_becomes_of_the_others(dead: Event) -> None:
    health = healthy(may_eject=lambda: False)
    for _ in range(3):
        dead(health, 1.0)
    assert not health.admits


@pytest.mark.parametrize(("share", "allowed"), [(0.0, 0), (0.25, 1), (0.5, 2), (0.74, 2), (1.0, 4)])
def test_outliers_are_left_out_up_to_a_share_of_the_replicas(share: float, allowed: int) -> None:
    replicas: list[Health] = []
    for _ in range(4):
        replicas.append(healthy(may_eject=lambda: may_eject(replicas, share)))
    for health in replicas:
        for _ in range(3):
            health.failed(1.0, Failure.SERVER_ERROR)
    assert sum(not health.admits for health in replicas) == allowed


def test_dead_replicas_count_in_the_share_that_outliers_may_take() -> None:
    replicas = [ejected(), ejected(), healthy(), healthy()]
    assert not may_eject(replicas, 0.5)
    assert may_eject(replicas, 0.75)


def test_what_another_process_has_ejected_is_ejected_for_as_long_as_by_this_one() -> None:
    health = healthy()
    reported(health, 1.0)
    assert (health.ejected_until, health.ejections) == (1.0 + CONFIG.eject_s, 1)


def test_a_replica_that_another_process_found_healthy_starts_with_an_empty_record() -> None:
    health = healthy()
    for _ in range(2):
        failed(health, 1.0)
    found_unhealthy(health, 1.0)
    found_healthy(health, 1.0)
    for _ in range(2):
        failed(health, 1.0)
    assert health.admits


def test_whoever_wants_to_know_is_told_when_admission_has_changed() -> None:
    told: list[bool] = []
    health = Health(CONFIG)
    health.changed = lambda: told.append(health.admits)
    probed(health, 0.0)
    probed(health, 0.0)
    for _ in range(5):
        failed(health, 0.0)
    health.may_probe(5.0)
    missed(health, 5.0)
    health.may_probe(15.0)
    probed(health, 15.0)
    assert told == [True, False, True]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([succeeded, failed, may_probe, probed, missed, reported]),
        st.integers(0, 40),
    ),
    max_size=200,
)


@settings(deadline=None)
@given(EVENTS)
def test_requests_are_admitted_only_after_an_ejection_has_ended_and_a_probe_has_succeeded(
    events: list[tuple[Event, int]],
) -> None:
    health, now = Health(CONFIG), 0
    for event, wait_s in events:
        now += wait_s
        before, until = health.admits, health.ejected_until
        outcome = event(health, now)
        if event is may_probe:
            assert outcome is (now >= until)
        if health.admits and not before:
            assert event is probed
            assert now >= until
        if before and not health.admits:
            assert CONFIG.eject_s <= health.ejected_until - now <= CONFIG.eject_max_s
        assert health.admits is (health.state is State.HEALTHY)


@settings(deadline=None)
@given(EVENTS)
def test_the_same_events_lead_to_the_same_health(events: list[tuple[Event, int]]) -> None:
    histories = []
    for _ in range(2):
        health, now, history = Health(CONFIG), 0, []
        for event, wait_s in events:
            now += wait_s
            event(health, now)
            history.append((health.state, health.admits, health.ejected_until, health.ejections))
        histories.append(history)
    assert histories[0] == histories[1]
