"""The supply of nodes: grants, losses, and the money between grant and release."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopoiesis.cluster import Cluster, Pool
from autopoiesis.plan import Capacity
from autopoiesis.plan.capacity import PoolCapacity
from autopoiesis.simulate.supply import PoolSupply, SpotLoss, Supply

POOL = Pool("p", "a100", 2, minimum=2, maximum=12, price_per_hour=3.0, start_s_p50=20.0, start_s_p90=60.0)


def pool_of(nodes: int = 1, pool: Pool = POOL, seed: int = 0) -> PoolSupply:
    return PoolSupply(pool, tuple(range(nodes)), np.random.default_rng(seed))


def loss(nodes: int, at_s: float = 100.0) -> SpotLoss:
    return SpotLoss("p", at_s, nodes, 60.0, 300.0)


def test_what_is_asked_for_comes_node_by_node() -> None:
    supply = pool_of()
    grants = supply.ask(6, 100.0)
    assert [node for _, node in grants] == [1, 2]
    assert all(at_s > 100.0 for at_s, _ in grants)
    assert supply.gpus == 2
    assert supply.grant(grants[0])
    assert supply.gpus == 4
    assert not supply.grant(grants[0])


def test_more_than_the_maximum_and_less_than_the_minimum_cannot_be_wanted() -> None:
    supply = pool_of()
    assert len(supply.ask(100, 0.0)) == 5
    supply.ask(0, 0.0)
    assert (supply.wanted, supply.coming) == (1, {})


def test_an_order_withdrawn_and_placed_again_is_another_order() -> None:
    supply = pool_of()
    (first,) = supply.ask(4, 0.0)
    supply.ask(2, 1.0)
    (second,) = supply.ask(4, 2.0)
    assert not supply.grant(first)
    assert supply.grant(second)


def test_half_of_the_start_delays_lie_below_the_median_and_a_tenth_above_the_ninth_decile() -> None:
    large = replace(POOL, maximum=8000)
    delays = np.array([at_s for at_s, _ in pool_of(pool=large).ask(8000, 0.0)])
    assert np.mean(delays < 20.0) == pytest.approx(0.5, abs=0.03)
    assert np.mean(delays > 60.0) == pytest.approx(0.1, abs=0.02)


def test_a_pool_without_delay_grants_at_once() -> None:
    supply = pool_of(pool=replace(POOL, start_s_p50=0.0, start_s_p90=0.0))
    assert supply.ask(4, 5.0) == [(5.0, 1)]


def test_only_idle_nodes_are_given_back_and_those_about_to_be_lost_first() -> None:
    supply = pool_of(4)
    supply.ask(4, 0.0)
    assert supply.surplus({"p/3"}) == [2, 1]
    supply.condemned.add(0)
    assert supply.surplus({"p/3"}) == [0, 2]
    assert supply.surplus({f"p/{node}" for node in range(4)}) == []


def test_money_runs_from_grant_to_release() -> None:
    supply = pool_of(1)
    (grant,) = supply.ask(4, 0.0)
    at_s = grant[0]
    supply.grant(grant)
    supply.release(1, at_s + 3600.0)
    cost_usd, gpu_hours = supply.books(7200.0)
    assert gpu_hours == pytest.approx(2 * 1.0 + 2 * 2.0)
    assert cost_usd == pytest.approx(3.0 * gpu_hours)


def test_a_loss_takes_the_youngest_nodes_but_never_the_minimum() -> None:
    supply = pool_of(1)
    for grant in sorted(supply.ask(8, 0.0)):
        supply.grant(grant)
    youngest = max(supply.up, key=lambda node: supply.up[node])
    assert [node for _, node in supply.condemn(loss(1))] == [youngest]
    assert len(supply.condemn(loss(99))) == 2
    assert supply.condemn(loss(1)) == ()
    assert 0 not in supply.condemned


def test_a_node_that_was_given_back_and_granted_again_is_not_the_one_announced() -> None:
    supply = pool_of(2)
    victims = supply.condemn(loss(1))
    supply.release(1, 10.0)
    supply.wanted = 2
    (grant,) = supply.order(10.0)
    supply.grant(grant)
    assert supply.lose(victims, 100.0) == ()
    assert supply.gpus == 4


def test_after_a_loss_nothing_is_offered_until_the_provider_recovers() -> None:
    supply = pool_of(3)
    supply.ask(8, 0.0)
    assert supply.lose(supply.condemn(loss(1)), 100.0) == (2,)
    assert supply.coming == {}
    assert supply.ask(12, 110.0) == []
    assert [node for _, node in supply.recover(400.0)] == [2, 3, 4, 5]
    supply.condemn(loss(1))


def test_two_losses_need_two_recoveries() -> None:
    supply = pool_of(4)
    first, second = supply.condemn(loss(1)), supply.condemn(loss(1))
    supply.lose(first, 100.0)
    supply.lose(second, 110.0)
    assert supply.recover(200.0) == []
    assert len(supply.recover(300.0)) == 2


# --- nodes that a market names, and nodes that break ---------------------------------------------------------------


def withdrawal(*nodes: int) -> SpotLoss:
    return SpotLoss("p", 100.0, len(nodes), 60.0, 0.0, frozenset(nodes))


def test_a_withdrawal_takes_the_nodes_that_it_names_if_they_are_there() -> None:
    supply = pool_of(4)
    victims = supply.condemn(withdrawal(1, 5))
    assert [node for _, node in victims] == [1]
    assert supply.lose(victims, 100.0, shortage=False) == (1,)
    assert set(supply.up) == {0, 2, 3}


def test_what_is_withdrawn_is_not_granted_until_it_is_offered_again() -> None:
    supply = pool_of(3)
    supply.lose(supply.condemn(withdrawal(1, 4, 5)), 100.0, shortage=False)
    # five are wanted; of six, three are withdrawn
    assert [node for _, node in supply.ask(10, 110.0)] == [3]
    assert [node for _, node in supply.offer({1, 5}, 120.0)] == [1, 5]
    assert supply.offer({4}, 130.0) == []


def test_orders_of_nodes_that_are_withdrawn_never_arrive() -> None:
    supply = pool_of(1)
    (grant,) = supply.ask(4, 0.0)
    supply.condemn(withdrawal(1))
    assert not supply.grant(grant)
    assert [node for _, node in supply.order(10.0)] == [2]


def test_a_withdrawal_leaves_the_minimum() -> None:
    supply = pool_of(2)
    assert [node for _, node in supply.condemn(withdrawal(0, 1, 2, 3, 4, 5))] == [1]


def test_a_broken_node_is_replaced_where_there_is_another_and_returns_after_its_repair() -> None:
    supply = pool_of(5, replace(POOL, maximum=10))
    supply.wanted = 5
    assert supply.fail(2, 50.0)
    assert not supply.fail(2, 51.0)
    assert supply.order(50.0) == []
    assert [node for _, node in supply.repair(2, 500.0)] == [2]
    roomy = pool_of(5)
    roomy.fail(2, 50.0)
    assert [node for _, node in roomy.order(50.0)] == [5]


def test_the_minimum_can_break_and_is_paid_for_all_the_same() -> None:
    supply = pool_of(1)
    assert supply.fail(0, 1800.0)
    assert supply.gpus == 0
    assert supply.books(3600.0)[1] == pytest.approx(2.0)
    supply.repair(0, 3600.0)
    assert supply.books(3600.0)[1] == pytest.approx(2.0)


def test_a_rented_node_that_breaks_is_paid_for_no_longer() -> None:
    supply = pool_of(2)
    supply.fail(1, 1800.0)
    assert supply.books(3600.0)[1] == pytest.approx(2.0 + 1.0)
    supply.repair(1, 3600.0)
    assert supply.books(3600.0)[1] == pytest.approx(2.0 + 1.0)


def test_a_named_distribution_gives_the_delays_that_were_measured() -> None:
    measured = replace(POOL, maximum=40_000, start_s_p50=0.0, start_s_p90=134.0, start_delay="alibaba-2025")
    delays = np.array([at_s for at_s, _ in pool_of(pool=measured).ask(40_000, 0.0)])
    assert np.quantile(delays, 0.48) == 0.0
    assert np.quantile(delays, [0.75, 0.9, 0.95]) == pytest.approx([44, 134, 853], rel=0.12)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 14)), max_size=40), st.integers(0, 5))
def test_nodes_never_exceed_the_maximum_nor_the_books_the_clock(steps: list[tuple[int, int]], seed: int) -> None:
    supply = pool_of(seed=seed)
    now_s, grants, losses = 0.0, list[tuple[float, int]](), 0
    for kind, number in steps:
        now_s += 7.0
        if kind == 0:
            grants += supply.ask(number, now_s)
        elif kind == 1:
            due = sorted(grant for grant in grants if grant[0] <= now_s)
            grants = [grant for grant in grants if grant not in due]
            for grant in due:
                supply.grant(grant)
        elif kind == 2:
            losses += bool(supply.lose(supply.condemn(loss(number, now_s)), now_s))
        elif kind == 3 and losses:
            losses -= 1
            grants += supply.recover(now_s)
        elif kind == 4:
            named = withdrawal(*(node for node in range(6) if number >> node & 1))
            grants += supply.offer(supply.withheld - (named.which or set()), now_s)
            supply.lose(supply.condemn(named), now_s, shortage=False)
        elif kind == 5:
            broken = number % 6
            grants += supply.repair(broken, now_s) if broken in supply.broken else []
            if number > 6 and len(supply.up) > 1:
                supply.fail(broken, now_s)
        for node in supply.surplus(set()):
            supply.release(node, now_s)
        assert 1 <= len(supply.up) <= 6
        assert len(supply.up) + len(supply.coming) <= max(supply.wanted, len(supply.up))
        cost_usd, gpu_hours = supply.books(now_s)
        assert cost_usd == pytest.approx(3.0 * gpu_hours)
        assert 2 * now_s / 3600 <= gpu_hours + 1e-9
        assert gpu_hours <= 12 * now_s / 3600 + 1e-9


# --- all pools -------------------------------------------------------------------------------------------------------


def cluster_of(*pools: Pool) -> Cluster:
    return Cluster("c", pools)


def test_the_delays_of_a_pool_depend_on_the_seed_and_on_its_place() -> None:
    capacity = Capacity.at_minimum(cluster_of(POOL, replace(POOL, name="q")))
    first = [Supply(capacity, seed).pools[name].ask(4, 0.0)[0][0] for seed in (0, 1, 2) for name in ("p", "q")]
    assert len(set(first)) == 6


def test_capacity_names_the_nodes_that_are_up_and_those_that_last() -> None:
    supply = Supply(Capacity((PoolCapacity(POOL, 6, (0, 2, 5)),)), 0)
    supply.pools["p"].condemn(loss(1))
    assert [node.id for node in supply.capacity().nodes()] == ["p/0", "p/2", "p/5"]
    assert [node.id for node in supply.capacity(lasting=True).nodes()] == ["p/0", "p/2"]
