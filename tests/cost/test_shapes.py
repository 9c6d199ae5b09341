"""Feasible shapes: what fits, within a node, without a pipeline that only buys memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autopoiesis.cluster import Cluster, Hardware, catalog
from autopoiesis.cost import CostModel, feasible_shapes
from autopoiesis.cost.shapes import MINIMUM_KV_TOKENS

COST = CostModel(Hardware(catalog.gpus(), catalog.models()))
SMALL, LARGE, HUGE = "llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b"


def shapes(cluster: Cluster | str, *models: str) -> set[tuple[str, str, int, int]]:
    there = catalog.cluster(cluster) if isinstance(cluster, str) else cluster
    found = feasible_shapes(COST, there, models)
    assert list(found) == sorted(found)
    return {(s.model, s.gpu, s.tensor_parallel, s.pipeline_parallel) for s in found}


def test_a_small_model_fits_every_group_size_of_the_node() -> None:
    assert shapes("homogeneous-32", SMALL) == {(SMALL, "h100", tp, 1) for tp in (1, 2, 4, 8)}


def test_a_large_model_needs_a_group() -> None:
    assert shapes("homogeneous-32", LARGE) == {(LARGE, "h100", tp, 1) for tp in (4, 8)}


def test_a_model_that_fits_no_group_is_cut_into_stages() -> None:
    assert shapes("homogeneous-32", HUGE) == {(HUGE, "h100", 8, 2)}


@pytest.mark.parametrize("name", catalog.cluster_names())
def test_whatever_is_offered_has_a_useful_cache_and_fits_a_node(name: str) -> None:
    cluster = catalog.cluster(name)
    node = {pool.gpu: pool.gpus_per_node for pool in cluster.pools}
    for model, gpu, tp, pp in shapes(cluster, SMALL, LARGE):
        assert tp <= node[gpu]
        assert COST.steps(model, gpu, tp, pp, 2).kv_tokens >= MINIMUM_KV_TOKENS


def test_a_cluster_too_small_for_a_model_offers_nothing() -> None:
    assert shapes("demo-8", HUGE) == set()
    single = catalog.cluster("demo-8")
    single = replace(single, pools=(replace(single.pools[0], gpus_per_node=1, minimum=1, maximum=1),))
    assert shapes(single, LARGE) == set()
    assert shapes(single, SMALL) == {(SMALL, "h100", 1, 1)}
