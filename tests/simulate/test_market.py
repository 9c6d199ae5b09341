"""What befalls a cluster's nodes: losses of three kinds, returns and failures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopoiesis.cluster import Cluster, Failures, Pool, SpotHistory, SpotLosses, SpotRegime
from autopoiesis.simulate.market import capacity_events
from autopoiesis.simulate.supply import CapacityEvent, NodeFailure, SpotLoss, SpotReturn

SPOT = SpotLosses(losses_per_hour=12.0, nodes_per_loss=2.0, notice_s=60.0, recovery_s=300.0)
POOL = Pool("p", "a100", 2, minimum=0, maximum=12, price_per_hour=3.0)
NODES = 6


def cluster_of(*pools: Pool) -> Cluster:
    return Cluster("c", pools)


def events_of(*pools: Pool, seed: int = 1, count: int = 400) -> list[CapacityEvent]:
    return list(islice(capacity_events(cluster_of(*pools), seed), count))


def losses_of(*pools: Pool, seed: int = 1, count: int = 400) -> list[SpotLoss]:
    return [event for event in events_of(*pools, seed=seed, count=count) if isinstance(event, SpotLoss)]


# --- losses at a rate ----------------------------------------------------------------------------------------------


def test_losses_come_at_the_rate_of_the_pool_and_in_order_of_their_notice() -> None:
    losses = losses_of(replace(POOL, spot=SPOT), count=2000)
    announced = [loss.announced_s for loss in losses]
    assert announced == sorted(announced)
    assert losses[-1].at_s == pytest.approx(2000 / 12 * 3600, rel=0.1)
    assert np.mean([loss.nodes for loss in losses]) == pytest.approx(2.0, rel=0.1)
    assert np.mean([loss.recovery_s for loss in losses]) == pytest.approx(300.0, rel=0.1)


def test_every_pool_and_every_seed_has_its_own_losses() -> None:
    two = replace(POOL, spot=SPOT), replace(POOL, name="q", spot=SPOT)
    losses = losses_of(*two, count=50)
    times = {name: [loss.at_s for loss in losses if loss.pool == name] for name in ("p", "q")}
    assert not set(times["p"]) & set(times["q"])
    assert losses_of(*two, count=1) == losses[:1]
    assert losses_of(*two, seed=2, count=1) != losses[:1]
    # the first pool loses the same whoever is beside it
    assert losses_of(two[0], count=1)[0] == next(loss for loss in losses if loss.pool == "p")


def test_a_cluster_in_which_nothing_can_happen_has_no_events() -> None:
    assert events_of(POOL) == []
    assert events_of(replace(POOL, spot=replace(SPOT, losses_per_hour=0.0))) == []


# --- markets that are followed -------------------------------------------------------------------------------------

FALL = SpotHistory((0.0, 1800.0, 3600.0), (12, 6, 6), notice_s=100.0)
"""Half an hour of everything, half an hour of half of it."""


def offered(events: list[CapacityEvent], until_s: float) -> Iterator[tuple[float, int]]:
    """How many nodes can be had, after every change."""
    nodes = set(range(NODES))
    for event in sorted(events, key=lambda event: event.at_s):
        if event.at_s > until_s:
            return
        if isinstance(event, SpotLoss):
            assert event.which is not None
            assert event.which <= nodes
            nodes -= event.which
        elif isinstance(event, SpotReturn):
            assert not event.which & nodes
            nodes |= event.which
        yield event.at_s, len(nodes)


def test_a_pool_follows_its_history_in_proportion_to_its_own_maximum() -> None:
    counts = [count for _, count in offered(events_of(replace(POOL, spot=FALL)), 1e5)]
    assert set(counts) == {3, 6}
    changes = [at_s for (at_s, count), (_, before) in _pairs(offered(events_of(replace(POOL, spot=FALL)), 1e5))]
    assert np.diff(changes[1:]) == pytest.approx(1800.0)


def _pairs(steps: Iterator[tuple[float, int]]) -> list[tuple[tuple[float, int], tuple[float, int]]]:
    kept = list(steps)
    return [(b, a) for a, b in pairwise(kept) if a[1] != b[1]]


def test_whoever_holds_half_of_a_pool_holds_half_of_what_is_withdrawn() -> None:
    firsts = [losses_of(replace(POOL, spot=FALL), seed=seed, count=3)[0].which or frozenset() for seed in range(200)]
    assert {len(which) for which in firsts} == {3}
    assert np.mean([len(which & {0, 1, 2}) for which in firsts]) == pytest.approx(1.5, abs=0.2)


def test_a_loss_is_announced_ahead_by_the_notice() -> None:
    for loss in losses_of(replace(POOL, spot=FALL)):
        assert loss.at_s - loss.announced_s == pytest.approx(100.0)


def test_what_is_missing_at_the_beginning_is_announced_then_and_lost_a_notice_later() -> None:
    nearly_nothing = SpotHistory((0.0, 1e7, 1e7 + 1), (1, 12, 12), notice_s=100.0)
    first = losses_of(replace(POOL, spot=nearly_nothing), count=1)[0]
    assert (first.announced_s, first.at_s, first.nodes) == (0.0, 100.0, 5)


def test_a_node_that_would_come_back_for_less_than_its_notice_does_not_come_back() -> None:
    flicker = SpotHistory((0.0, 1000.0, 1050.0, 2000.0), (0, 12, 0, 0), notice_s=100.0)
    events = events_of(replace(POOL, spot=flicker), count=60)
    returns = sum(len(event.which) for event in events if isinstance(event, SpotReturn))
    assert returns == 0


def test_a_history_that_never_changes_takes_nothing() -> None:
    flat = SpotHistory((0.0, 600.0), (7, 7))
    events = events_of(replace(POOL, spot=flat), count=50)
    assert all(isinstance(event, SpotReturn) and not event.which for event in events)
    assert events[-1].at_s > 49 * 600.0 - 600.0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(1.0, 5000.0), st.integers(0, 20)), min_size=2, max_size=12), st.integers(0, 99))
def test_events_come_in_order_and_give_only_what_was_taken(rows: list[tuple[float, int]], seed: int) -> None:
    times = (0.0, *np.cumsum([60.0 + gap for gap, _ in rows]).tolist())
    nodes = (*(count for _, count in rows), 1)
    if not any(nodes[:-1]):
        nodes = (1, *nodes[1:])
    events = events_of(replace(POOL, spot=SpotHistory(times, nodes, 120.0)), seed=seed, count=80)
    announced = [event.announced_s for event in events]
    assert announced == sorted(announced)
    up = set(range(NODES))
    for event in events:
        assert isinstance(event, SpotLoss | SpotReturn)
        assert event.which is not None
        # in order of announcement, too: what is offered then lasts longer than a notice
        assert event.which <= up if isinstance(event, SpotLoss) else not event.which & up
        up = up - event.which if isinstance(event, SpotLoss) else up | event.which


def test_a_made_up_market_differs_by_seed_and_is_repeated_by_it() -> None:
    pool = replace(POOL, spot=SpotRegime("contended"))
    assert events_of(pool, seed=3) == events_of(pool, seed=3)
    assert events_of(pool, seed=3) != events_of(pool, seed=4)


# --- failures ------------------------------------------------------------------------------------------------------


def test_nodes_break_as_often_as_their_gpus_do() -> None:
    failures = events_of(replace(POOL, failures=Failures(gpu_mtbf_h=100.0, repair_s=600.0)), count=3000)
    broken = [event for event in failures if isinstance(event, NodeFailure)]
    assert len(broken) == 3000
    assert broken[-1].at_s / 3600 == pytest.approx(3000 * 100.0 / 12, rel=0.1)
    assert np.mean([event.repair_s for event in broken]) == pytest.approx(600.0, rel=0.1)
    assert np.bincount([event.node for event in broken]) == pytest.approx([500] * NODES, rel=0.2)
    assert all(event.announced_s == event.at_s for event in broken)


def test_failures_and_losses_of_a_pool_do_not_disturb_each_other() -> None:
    alone = losses_of(replace(POOL, spot=SPOT), count=20)
    both = replace(POOL, spot=SPOT, failures=Failures(gpu_mtbf_h=1.0, repair_s=0.0))
    assert losses_of(both, count=60)[:5] == alone[:5]
