"""Placement: which GPUs a plan's replicas sit on, as a deterministic function of the plan and of what runs.

A tensor-parallel group lives within one node; pipeline stages may sit on different nodes of one GPU kind. What runs
and is still wanted stays where it is, unless that would leave no room for the rest: kept replicas can fragment the
nodes, and then the fewest give way that have to.

Groups are placed largest first. Where tensor-parallel degrees divide one another (1, 2, 4, 8), each group takes the
same from what is left for smaller ones wherever it goes, so any choice of node packs as much as any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from autopoiesis.errors import PlanError
from autopoiesis.plan.capacity import Node
from autopoiesis.plan.serving_plan import Replica, ServingPlan

GPUs = tuple[tuple[str, int], ...]
"""Single GPUs as (node id, index within the node); a replica's are listed pipeline stage by stage."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A replica with an identity, on particular GPUs."""

    id: int
    replica: Replica
    gpus: GPUs


@dataclass(frozen=True, slots=True)
class Placement:
    """What becomes of the running replicas under a target plan, and where the new ones go."""

    kept: tuple[Placed, ...]
    to_start: tuple[Replica, ...]
    """Entries of the plan that nothing kept stands for, in plan order."""
    targets: tuple[GPUs, ...]
    """Where each of `to_start` goes: GPUs that are free, or that a replica of `to_stop` still holds."""
    to_stop: tuple[Placed, ...]


def groups_fit(groups: Iterable[int], room: Sequence[int]) -> bool:
    """Whether tensor-parallel groups, given largest first, fit into nodes with `room` free GPUs: first fit."""
    free = list(room)
    for size in groups:
        for position, count in enumerate(free):
            if count >= size:
                free[position] = count - size
                break
        else:
            return False
    return True


def packable(replicas: Iterable[Replica], nodes: Sequence[Node]) -> bool:
    """Whether the replicas can be placed on empty nodes: first fit, largest tensor-parallel group first."""
    groups: dict[str, list[int]] = {}
    for replica in replicas:
        groups.setdefault(replica.gpu, []).extend([replica.tensor_parallel] * replica.pipeline_parallel)
    return all(
        groups_fit(sorted(sizes, reverse=True), [node.gpus for node in nodes if node.gpu == gpu])
        for gpu, sizes in groups.items()
    )


def free_gpus(nodes: Sequence[Node], placed: Iterable[Placed]) -> dict[Node, list[int]]:
    """The indices that no placed replica holds, per node, in node order."""
    held = {gpu for replica in placed for gpu in replica.gpus}
    return {node: [index for index in range(node.gpus) if (node.id, index) not in held] for node in nodes}


def assign_gpus(
    replica: Replica, free: Mapping[Node, Sequence[int]], held: AbstractSet[tuple[str, int]] = frozenset()
) -> GPUs | None:
    """GPUs for one replica, or None if it does not fit.

    `free` lists each node's available indices in the order in which they shall be taken; of these, `held` are GPUs
    that somebody has yet to leave. One node for the whole replica is preferred, then few held GPUs, then the node
    with the fewest available ones, then node order.
    """
    nodes = [node for node in free if node.gpu == replica.gpu]
    taken = dict.fromkeys(nodes, 0)

    def take(size: int) -> GPUs | None:
        def cost(node: Node) -> tuple[int, int]:
            start = taken[node]
            wait = sum((node.id, index) in held for index in free[node][start : start + size]) if held else 0
            return wait, len(free[node]) - start

        node = min((node for node in nodes if len(free[node]) - taken[node] >= size), key=cost, default=None)
        if node is None:
            return None
        start = taken[node]
        taken[node] = start + size
        return tuple((node.id, index) for index in free[node][start : start + size])

    whole = take(replica.gpus)
    if whole is not None or replica.pipeline_parallel == 1:
        return whole
    stages = [take(replica.tensor_parallel) for _ in range(replica.pipeline_parallel)]
    return None if None in stages else tuple(gpu for stage in stages if stage for gpu in stage)


def place(plan: ServingPlan, nodes: Sequence[Node], running: Sequence[Placed]) -> Placement:
    """The placement of `plan` on `nodes`, given what runs; of equal replicas, those earlier in `running` are kept.

    Raises PlanError if the plan does not pack on the nodes even when everything running makes way.
    """
    size = {node.id: node.gpus for node in nodes}
    alive = [placed for placed in running if all(index < size.get(node, 0) for node, index in placed.gpus)]
    kept = _matching(plan, alive)
    attempt = _attempt(plan, nodes, running, kept)
    if attempt.unplaced_gpus:
        kept = _make_way(plan, nodes, running, alive, kept)
        attempt = _attempt(plan, nodes, running, kept)
    if attempt.unplaced_gpus:
        raise PlanError(
            f"the plan ({plan}) does not pack on {len(nodes)} nodes; leave out replicas or use smaller "
            "tensor-parallel groups"
        )
    ids = {placed.id for placed in kept}
    return Placement(
        kept=tuple(placed for placed in running if placed.id in ids),
        to_start=attempt.to_start,
        targets=tuple(target for target in attempt.targets if target is not None),
        to_stop=tuple(placed for placed in running if placed.id not in ids),
    )


@dataclass(frozen=True, slots=True)
class _Attempt:
    to_start: tuple[Replica, ...]
    targets: tuple[GPUs | None, ...]

    @property
    def unplaced_gpus(self) -> int:
        return sum(r.gpus for r, target in zip(self.to_start, self.targets, strict=True) if target is None)


def _matching(plan: ServingPlan, running: Iterable[Placed]) -> list[Placed]:
    wanted = Counter(plan.replicas)
    kept = []
    for placed in running:
        if wanted[placed.replica] > 0:
            wanted[placed.replica] -= 1
            kept.append(placed)
    return kept


def _attempt(plan: ServingPlan, nodes: Sequence[Node], running: Sequence[Placed], kept: Sequence[Placed]) -> _Attempt:
    """Places what `kept` leaves to start, on GPUs that are free now where possible."""
    covered = Counter(placed.replica for placed in kept)
    to_start = []
    for replica in plan.replicas:
        if covered[replica] > 0:
            covered[replica] -= 1
        else:
            to_start.append(replica)
    if not to_start:
        return _Attempt((), ())
    ids = {placed.id for placed in kept}
    leaving = [placed for placed in running if placed.id not in ids]
    # The last of `running` is the first to give up its GPUs, whole replicas at a time.
    turn = {gpu: -position for position, placed in enumerate(leaving) for gpu in placed.gpus}
    first = -len(leaving)
    free = free_gpus(nodes, kept)
    for node, indices in free.items():
        indices.sort(key=lambda index, node=node: turn.get((node.id, index), first))  # type: ignore[misc]
    order = sorted(range(len(to_start)), key=lambda i: -to_start[i].tensor_parallel)
    targets: list[GPUs | None] = [None] * len(to_start)
    left = {node: list(indices) for node, indices in free.items()}
    for i in order:
        targets[i] = assign_gpus(to_start[i], left, turn.keys())
        _take(left, targets[i] or ())
    attempt = _Attempt(tuple(to_start), tuple(targets))
    if attempt.unplaced_gpus:
        # Degrees that do not divide one another: the plain order of `packable` may fit where preferences do not.
        for i in order:
            targets[i] = _first_fit(to_start[i], free)
            _take(free, targets[i] or ())
        plain = _Attempt(tuple(to_start), tuple(targets))
        attempt = min(attempt, plain, key=lambda a: a.unplaced_gpus)
    return attempt


def _first_fit(replica: Replica, free: Mapping[Node, Sequence[int]]) -> GPUs | None:
    taken = dict.fromkeys(free, 0)
    gpus: list[tuple[str, int]] = []
    size = replica.tensor_parallel
    for _ in range(replica.pipeline_parallel):
        node = next((n for n in free if n.gpu == replica.gpu and len(free[n]) - taken[n] >= size), None)
        if node is None:
            return None
        gpus += [(node.id, index) for index in free[node][taken[node] : taken[node] + size]]
        taken[node] += size
    return tuple(gpus)


def _take(free: dict[Node, list[int]], gpus: GPUs) -> None:
    taken = set(gpus)
    if taken:
        for node, indices in free.items():
            indices[:] = [index for index in indices if (node.id, index) not in taken]


def _make_way(
    plan: ServingPlan, nodes: Sequence[Node], running: Sequence[Placed], alive: Sequence[Placed], kept: list[Placed]
) -> list[Placed]:
    """Fewer kept replicas, or others of the same kind, such that the rest of the plan fits.

    Greedy: each step is the exchange or, failing an improving one, the removal that leaves the fewest GPUs of the
    plan without a place (then the smallest, then the last). It ends with nothing kept at worst.
    """

    def unplaced(keep: Sequence[Placed]) -> int:
        return _attempt(plan, nodes, running, keep).unplaced_gpus

    removed: list[Placed] = []
    missing = unplaced(kept)
    while missing and kept:
        spare = [placed for placed in alive if placed not in kept and placed not in removed]
        exchanges = [
            (unplaced(rest), placed.replica.gpus, rest)
            for position, placed in enumerate(kept)
            for other in spare
            if other.replica == placed.replica
            for rest in ([*kept[:position], other, *kept[position + 1 :]],)
        ]
        best = min(exchanges, key=lambda e: e[:2], default=None)
        if best is None or best[0] >= missing:
            without = [kept[:position] + kept[position + 1 :] for position in range(len(kept))]
            count, _, back = min(
                (unplaced(rest), placed.replica.gpus, -position)
                for position, (placed, rest) in enumerate(zip(kept, without, strict=True))
            )
            removed.append(kept[-back])
            missing, kept = count, without[-back]
        else:
            missing, _, kept = best
    if not missing:
        for placed in removed:
            again = _matching(plan, [*kept, placed])
            if len(again) > len(kept) and not unplaced(again):
                kept = again
    return kept
