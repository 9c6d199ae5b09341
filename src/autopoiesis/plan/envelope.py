"""The operator's envelope: bounds that no policy can cross, enforced whenever a plan is validated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from autopoiesis.cluster import Cluster
from autopoiesis.errors import ScenarioError
from autopoiesis.plan.serving_plan import Replica


@dataclass(frozen=True, slots=True)
class Envelope:
    """Every bound is optional but the first. Money is US dollars, counts are GPUs or replicas as named."""

    minimum_replicas: int = 1
    """Replicas that each model keeps serving, whatever the policy wants."""
    minimum_replicas_of: dict[str, int] = field(default_factory=dict)
    """The same for single models, by name."""
    maximum_gpus: int | None = None
    maximum_cost_per_hour: float | None = None
    moves_per_hour: int | None = None
    """Replica starts that policies may cause within any hour; repairs do not count."""
    class_floor: dict[str, int] = field(default_factory=dict)
    """Request class → least number of replicas that a plan must share it among."""

    def minimum_for(self, model: str) -> int:
        return self.minimum_replicas_of.get(model, self.minimum_replicas)

    def minimum_field(self, model: str) -> str:
        """The field that says how many replicas the model keeps."""
        return "minimum_replicas_of" if model in self.minimum_replicas_of else "minimum_replicas"


def check_envelope(envelope: Envelope, cluster: Cluster, models: Sequence[str], shapes: Iterable[Replica]) -> None:
    """Raises ScenarioError, naming the field, if no plan meets the envelope even with every pool at its maximum.

    `shapes` are the replica shapes that fit in memory. What is refused is impossible: with one GPU kind that is all
    that is impossible; with several, minima that only just fail to pack together can pass.
    """
    kinds = {pool.gpu for pool in cluster.pools}
    smallest: dict[str, dict[str, Replica]] = {}
    for shape in sorted(shapes, key=lambda shape: (shape.gpus, shape.tensor_parallel)):
        if shape.gpu in kinds:
            smallest.setdefault(shape.model, {}).setdefault(shape.gpu, shape)
    needed = {model: envelope.minimum_for(model) for model in models if model in smallest}
    needed = {model: count for model, count in needed.items() if count > 0}
    _check_room(envelope, cluster, needed, smallest)
    fewest = ", ".join(f"{model} {count}" for model, count in needed.items())
    if envelope.maximum_gpus is not None:
        gpus = sum(count * min(shape.gpus for shape in smallest[model].values()) for model, count in needed.items())
        if gpus > envelope.maximum_gpus:
            raise ScenarioError(
                f"envelope: maximum_gpus is {envelope.maximum_gpus} and the fewest replicas ({fewest}) need {gpus} "
                "GPUs; raise it or lower minimum_replicas"
            )
    if envelope.maximum_cost_per_hour is not None:
        prices: dict[str, float] = {}
        for pool in cluster.pools:
            prices[pool.gpu] = min(pool.price_per_hour, prices.get(pool.gpu, pool.price_per_hour))
        cost = sum(
            count * min(shape.gpus * prices[gpu] for gpu, shape in smallest[model].items())
            for model, count in needed.items()
        )
        # A bound that is met exactly must not fail for rounding.
        if cost > envelope.maximum_cost_per_hour * (1 + 1e-9):
            raise ScenarioError(
                f"envelope: maximum_cost_per_hour is {envelope.maximum_cost_per_hour:g} dollars and the fewest "
                f"replicas ({fewest}) cost at least {cost:g}; raise it or lower minimum_replicas"
            )


def _check_room(
    envelope: Envelope, cluster: Cluster, needed: Mapping[str, int], smallest: Mapping[str, Mapping[str, Replica]]
) -> None:
    for model, count in needed.items():
        most = sum(_room(cluster, gpu, shape.tensor_parallel) // shape.gpus for gpu, shape in smallest[model].items())
        if count > most:
            raise ScenarioError(
                f"envelope: {envelope.minimum_field(model)} asks for {count} replicas of {model!r} and cluster "
                f"{cluster.name!r} at its maximum holds {most}; lower it or choose a larger cluster"
            )
    kinds = sorted({pool.gpu for pool in cluster.pools})
    sizes = sorted({shape.tensor_parallel for of in smallest.values() for shape in of.values()})
    for chosen in (chosen for n in range(1, len(kinds) + 1) for chosen in combinations(kinds, n)):
        confined = [model for model in needed if set(smallest[model]) <= set(chosen)]
        for size in sizes:
            # Groups at least this large fit only into whole blocks of this size; the smaller ones do not matter.
            large = [m for m in confined if min(shape.tensor_parallel for shape in smallest[m].values()) >= size]
            gpus = sum(needed[m] * min(shape.gpus for shape in smallest[m].values()) for m in large)
            if gpus > (room := sum(_room(cluster, gpu, size) for gpu in chosen)):
                fields = " and ".join(sorted({envelope.minimum_field(model) for model in large}))
                fewest = ", ".join(f"{model} {needed[model]}" for model in large)
                groups = f" in groups of {size} or more" if size > 1 else ""
                raise ScenarioError(
                    f"envelope: {fields} ({fewest}) needs {gpus} GPUs{groups} and cluster "
                    f"{cluster.name!r} at its maximum has room for {room}; lower it or choose a larger cluster"
                )


def _room(cluster: Cluster, gpu: str, size: int) -> int:
    """GPUs of a kind in whole blocks of `size` within single nodes."""
    return sum(
        pool.maximum // pool.gpus_per_node * (pool.gpus_per_node // size * size)
        for pool in cluster.pools
        if pool.gpu == gpu
    )
