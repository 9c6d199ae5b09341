"""Hold each pool of replicas at a target utilisation: more or fewer of the shape it has.

The rule of the Kubernetes horizontal pod autoscaler (its documentation, "Algorithm details"), asked once per window:

    desired replicas = ⌈current replicas · utilisation ÷ target⌉

and nothing within a tolerance; of all that was recommended within the stabilisation time the largest counts, so that
a pool grows at once and shrinks late. Utilisation is load, the queue at hand to be worked off within the windows looked
at included, ÷ what the replicas serve within SLO. The default limit on growth, doubling every 15 s, does not bind over
a window. Further shapes are taken only when more of a pool's own cannot be had. Where capacity is fixed there is
nothing to scale, and it changes nothing.
"""

import math
from collections import Counter

from autopoiesis.policy import Decision, Replica, Role, ServingPlan, ServingState, tools

interface = 1

# Windows over which load is averaged; the last one counts alone where it is higher.
WINDOWS = 1
# Utilisation to hold.
TARGET = 0.75
# Relative distance from the target within which nothing changes.
TOLERANCE = 0.1
# Seconds over which the largest recommendation counts.
STABILISATION_S = 300.0

Pool = tuple[str, Role]


def elastic(state: ServingState) -> bool:
    return any(pool.minimum < pool.maximum for pool in state.pools)


def pools_of(state: ServingState, present: list[Replica]) -> list[Pool]:
    """Replicas of one model and role are scaled together; a model without any would be served in both phases."""
    missing = {(model, Role.MIXED) for model in state.models} - {(replica.model, Role.MIXED) for replica in present}
    split = {(replica.model, replica.role) for replica in present}
    return sorted(split | {pool for pool in missing if pool[0] not in {model for model, _ in split}})


def utilisation(load: ServingState, present: list[Replica]) -> dict[Pool, float]:
    """By pool with load: load ÷ what its replicas serve of it; infinite if that is nothing."""
    loaded = {request_class.rsplit("/", 1)[0] for request_class in tools.demand(load)}
    served = dict.fromkeys((pool for pool in pools_of(load, present) if pool[0] in loaded), 0.0)
    for replica, count in Counter(present).items():
        if replica.model in loaded:
            served[replica.model, replica.role] += count * tools.rate(load, replica)
    return {pool: 1 / multiple if multiple > 0 else math.inf for pool, multiple in served.items()}


def near_target(use: float) -> bool:
    return abs(use / TARGET - 1) <= TOLERANCE


def should_reschedule(state: ServingState) -> bool:
    if state.window is None or not elastic(state):
        return False
    load = tools.expected(state, windows=WINDOWS)
    return any(not near_target(use) for use in utilisation(load, list(tools.target(state).replicas)).values())


def rates(load: ServingState, pools: list[Pool], present: list[Replica]) -> dict[Pool, dict[Replica, float]]:
    """By pool: the multiple of its model's load that one of each shape serves, and the shapes in order of choice.

    The shape with most GPUs in the pool comes first, then its others, then all that it might have, best per GPU first.
    """
    rate_of = {}
    for model, role in pools:
        count = Counter(replica for replica in present if (replica.model, replica.role) == (model, role))
        own = sorted(count, key=lambda replica: (-count[replica] * replica.gpus, replica))
        shapes = dict.fromkeys([*own, *(shape.with_options(role=role) for shape in tools.shapes(load, model))])
        rate = {shape: tools.rate(load, shape) for shape in shapes}
        best = sorted((shape for shape in shapes if shape not in count), key=lambda shape: -rate[shape] / shape.gpus)
        rate_of[model, role] = {shape: rate[shape] for shape in (*own, *best)}
    return rate_of


def sized(own: list[Replica], rate: dict[Replica, float], need: float, least: int) -> list[Replica]:
    """The pool's best replicas as far as they are needed, and more of its first shape where they are too few."""
    main = next(iter(rate))
    kept: list[Replica] = []
    have = 0.0
    for replica in sorted(own, key=lambda replica: (-rate[replica] / replica.gpus, replica)):
        if have < need - 1e-9 or len(kept) < least:
            kept.append(replica)
            have += rate[replica]
    more = math.ceil((need - have) / rate[main] - 1e-9) if have < need and rate[main] > 0 else 0
    return kept + [main] * max(more, least - len(kept))


def stabilised(
    state: ServingState, counts: list[int], present: list[int]
) -> tuple[list[int], list[tuple[float, list[int]]]]:
    """The largest count that was recommended for each pool within the stabilisation time, and the recommendations.

    The trigger says no while all pools are near their target: what they had then was what was recommended.
    """
    known = [(at_s, past) for at_s, past in state.memory.get("recommended", []) if len(past) == len(counts)]
    if not known or known[-1][0] < state.now_s - 1.5 * state.window_s:
        known.append((state.now_s - state.window_s, present))
    known = [(at_s, past) for at_s, past in known if at_s > state.now_s - STABILISATION_S] + [(state.now_s, counts)]
    return [max(column) for column in zip(*(past for _, past in known), strict=True)], known


def scarce(load: ServingState, rate_of: dict[Pool, dict[Replica, float]], limit: dict[str, int]) -> list[Replica]:
    """As much as there is: the pool with the least room gets one more, until all reach the target or nothing fits."""
    replicas = [next(iter(rate_of[pool])) for pool in rate_of for _ in range(tools.minimum_replicas(load, pool[0]))]
    have = dict.fromkeys(rate_of, 0.0)
    for replica in replicas:
        have[replica.model, replica.role] += rate_of[replica.model, replica.role][replica]
    while True:
        for pool in sorted((pool for pool in have if have[pool] < 1 / TARGET), key=lambda pool: (have[pool], pool)):
            options = (shape for shape, rate in rate_of[pool].items() if rate > 0)
            added = next((shape for shape in options if tools.fits(load, [*replicas, shape], limit)), None)
            if added is not None:
                replicas.append(added)
                have[pool] += rate_of[pool][added]
                break
        else:
            return replicas


def plan(state: ServingState) -> Decision:
    if not elastic(state):
        return Decision(plan=tools.target(state))
    load = tools.expected(state, windows=WINDOWS)
    present = list(tools.target(state).replicas)
    pools = pools_of(state, present)
    rate_of = rates(load, pools, present)
    use = utilisation(load, present)
    own = [[replica for replica in present if (replica.model, replica.role) == pool] for pool in pools]
    counts = []
    for pool, mine in zip(pools, own, strict=True):
        least = tools.minimum_replicas(load, pool[0])
        if pool not in use:
            counts.append(least)
        elif near_target(use[pool]) or next(iter(rate_of[pool].values())) <= 0:
            counts.append(max(least, len(mine)))
        else:
            counts.append(len(sized(mine, rate_of[pool], 1 / TARGET, least)))
    held, recommended = stabilised(state, counts, [len(mine) for mine in own])
    replicas = []
    for pool, mine, count in zip(pools, own, held, strict=True):
        replicas += sized(mine, rate_of[pool], 0.0, count)
    reach = tools.reach(state)
    memory = {"recommended": [list(entry) for entry in recommended]}
    if not tools.fits(load, replicas, reach):
        if state.announced:  # what is about to be lost serves until then, and is ordered again afterwards
            return Decision(plan=tools.target(state), memory=memory)
        replicas = scarce(load, rate_of, reach)
    replicas = sorted(replicas)
    chosen = ServingPlan(tuple(replicas), tools.assign(load, replicas, reach))
    return Decision(plan=chosen, capacity=tools.capacity_for(load, chosen), memory=memory)
