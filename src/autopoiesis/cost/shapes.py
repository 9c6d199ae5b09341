"""Which replica shapes fit: tensor parallel within a node, pipeline parallel over nodes, KV that is worth it."""

from __future__ import annotations

from dataclasses import dataclass

from autopoiesis.cluster import Cluster
from autopoiesis.cost.model import CostModel

TENSOR_PARALLEL = (1, 2, 4, 8)
PIPELINE_PARALLEL = (1, 2)
MINIMUM_KV_TOKENS = 16_384
"""Below this a replica can hold no long prompt and hardly a batch, and is not worth its weights."""


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """A model on GPUs of one kind."""

    model: str
    gpu: str
    tensor_parallel: int
    pipeline_parallel: int


def feasible_shapes(cost: CostModel, cluster: Cluster, models: tuple[str, ...]) -> tuple[Shape, ...]:
    """Every shape whose weights and a useful KV cache fit, in canonical order.

    A pipeline is offered only where no tensor-parallel group within a node holds the model: otherwise it buys
    memory that the group's replicas side by side have as well, at the price of bubbles.
    """
    shapes = []
    per_kind: dict[str, tuple[int, int]] = {}
    for pool in cluster.pools:
        node, total = per_kind.get(pool.gpu, (0, 0))
        per_kind[pool.gpu] = (max(node, pool.gpus_per_node), total + pool.maximum)
    for model in models:
        heads = cost.hardware.models[model].heads
        for gpu, (node, total) in sorted(per_kind.items()):
            groups = [tp for tp in TENSOR_PARALLEL if tp <= node and heads % tp == 0]
            for stages in PIPELINE_PARALLEL:
                fitting = [
                    Shape(model, gpu, tp, stages)
                    for tp in groups
                    if tp * stages <= total and cost.steps(model, gpu, tp, stages, 2).kv_tokens >= MINIMUM_KV_TOKENS
                ]
                shapes.extend(fitting)
                if fitting:
                    break
    return tuple(sorted(shapes))
