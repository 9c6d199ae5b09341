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


def utilisation(load: ServingState, present: list[Replica]) -> dict[Pool, float]:
    """By pool with load: load ÷ what its replicas serve of it; infinite if that is nothing."""
    loaded = {request_class.rsplit("/", 1)[0] for request_class in tools.demand(load)}
    served = dict.fromkeys((pool for pool in tools.units(load, present) if pool[0] in loaded), 0.0)
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


def plan(state: ServingState) -> Decision:
    if not elastic(state):
        return Decision(plan=tools.target(state))
    load = tools.expected(state, windows=WINDOWS)
    present = list(tools.target(state).replicas)
    rate_of = tools.choices(load, present)
    pools = list(rate_of)
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
            counts.append(len(tools.sized(mine, rate_of[pool], 1 / TARGET, least)))
    held, recommended = stabilised(state, counts, [len(mine) for mine in own])
    replicas = []
    for pool, mine, count in zip(pools, own, held, strict=True):
        replicas += tools.sized(mine, rate_of[pool], 0.0, count)
    reach = tools.reach(state)
    memory = {"recommended": [list(entry) for entry in recommended]}
    if not tools.fits(load, replicas, reach):
        if state.announced:  # what is about to be lost serves until then, and is ordered again afterwards
            return Decision(plan=tools.target(state), memory=memory)
        replicas = tools.rationed(load, rate_of, dict.fromkeys(pools, 1 / TARGET), reach)
    replicas = tools.in_turns(replicas)
    chosen = ServingPlan(tuple(replicas), tools.assign(load, replicas, reach))
    return Decision(plan=chosen, capacity=tools.capacity_for(load, chosen), memory=memory)
