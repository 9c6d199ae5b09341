from __future__ import annotations

import pytest

from autopoiesis.cluster import Cluster, Pool
from autopoiesis.errors import ScenarioError
from autopoiesis.plan import Capacity, PoolCapacity

H100 = Pool("h100", "h100", gpus_per_node=8, minimum=8, maximum=32, price_per_hour=4.0)
SPOT = Pool("spot", "a100", gpus_per_node=4, minimum=0, maximum=16, price_per_hour=1.0)
CLUSTER = Cluster("test", (H100, SPOT))


def test_at_minimum_and_at_maximum_every_pool_has_its_bound() -> None:
    assert [pool.gpus for pool in Capacity.at_minimum(CLUSTER).pools] == [8, 0]
    assert [pool.gpus for pool in Capacity.at_maximum(CLUSTER).pools] == [32, 16]


def test_nodes_are_named_by_pool_and_index() -> None:
    capacity = Capacity.at_minimum(CLUSTER).with_pool("spot", 8)
    assert [(node.id, node.gpu, node.gpus) for node in capacity.nodes()] == [
        ("h100/0", "h100", 8),
        ("spot/0", "a100", 4),
        ("spot/1", "a100", 4),
    ]


def test_gpus_are_counted_by_kind_over_pools() -> None:
    two = Cluster("two", (SPOT, Pool("od", "a100", 4, 4, 4, 2.0)))
    assert Capacity.at_maximum(two).gpus_of("a100") == 20
    assert Capacity.at_maximum(two).gpus_of("h100") == 0


def test_a_spot_loss_takes_particular_nodes() -> None:
    capacity = Capacity.at_maximum(CLUSTER).with_pool("spot", 8, nodes=(1, 3))
    assert [node.id for node in capacity.nodes() if node.pool == "spot"] == ["spot/1", "spot/3"]


def test_nodes_that_stay_keep_their_names_when_a_pool_grows_or_shrinks() -> None:
    capacity = Capacity((PoolCapacity(SPOT, 8, (1, 3)),))
    assert capacity.with_pool("spot", 12).pools[0].nodes == (0, 1, 3)
    assert capacity.with_pool("spot", 16).pools[0].nodes == (0, 1, 2, 3)
    assert capacity.with_pool("spot", 4).pools[0].nodes == (1,)
    assert capacity.with_pool("spot", 0).pools[0].nodes == ()


@pytest.mark.parametrize(("gpus", "nodes"), [(6, None), (36, None), (-4, None), (8, (0, 0)), (8, (0,)), (4, (-1,))])
def test_a_capacity_that_the_pool_cannot_have_is_refused(gpus: int, nodes: tuple[int, ...] | None) -> None:
    with pytest.raises(ScenarioError, match="pool 'spot'"):
        PoolCapacity(SPOT, gpus, nodes)


def test_an_unknown_pool_is_named_with_its_near_matches() -> None:
    with pytest.raises(ScenarioError, match="did you mean spot"):
        Capacity.at_minimum(CLUSTER).with_pool("sport", 4)
