"""Hold each model at a target utilisation: more or fewer replicas of the shape it has.

The rule of the Kubernetes horizontal autoscaler and of Dynamo's planner: replicas = ⌈demand ÷ (what one serves ×
target)⌉, nothing within a tolerance, fewer only after a delay. Shapes are reconsidered, by greedy packing, only when
more replicas of them cannot be had. Where capacity is fixed there is nothing to scale, and it changes nothing.
"""

import math

from autopoiesis.policy import Decision, Replica, ServingPlan, ServingState, tools

interface = 1

# Windows over which load is averaged; the last one counts alone where it is higher.
WINDOWS = 3
# Utilisation to hold: load ÷ what the replicas serve within SLO.
TARGET = 0.75
# Relative distance from the target within which nothing changes.
TOLERANCE = 0.1
# Windows' worth of arrivals in the queue that are scaled for at most.
LONGEST_QUEUE = 2.0
# Monitoring points over which the largest need decides.
SHRINK_POINTS = 5


def outlook(state: ServingState) -> ServingState:
    """The load to scale to: what is expected, and the queue at hand to be worked off within a window on top."""
    entries = state.window.classes if state.window is not None else ()
    arrivals = sum(entry.arrivals for entry in entries)
    queued = sum(entry.queued for entry in entries)
    return tools.expected(state, windows=WINDOWS, margin=1 + min(queued / max(arrivals, 1), LONGEST_QUEUE))


def elastic(state: ServingState) -> bool:
    return any(pool.minimum < pool.maximum for pool in state.pools)


def room(load: ServingState, replicas: list[Replica]) -> dict[str, float]:
    """By model with load: the multiple of it that the replicas serve."""
    models = sorted({request_class.rsplit("/", 1)[0] for request_class in tools.demand(load)})
    return tools.multiples(replicas, tools.rates(load), models)


def should_reschedule(state: ServingState) -> bool:
    if state.window is None or not elastic(state):
        return False
    load = outlook(state)
    present = list(tools.target(state).replicas)
    have = room(load, present)
    return any(not near_target(multiple) for multiple in have.values())


def near_target(multiple: float) -> bool:
    return multiple > 0 and abs(1 / (multiple * TARGET) - 1) <= TOLERANCE


def scaled(load: ServingState, present: list[Replica]) -> tuple[dict[str, Replica], dict[str, int]]:
    """By model: the shape it is scaled with, and how many replicas its load needs now."""
    rate_of = tools.rates(load)
    have = room(load, present)
    shapes = {}
    counts = {}
    for model in load.models:
        own = sorted(replica for replica in present if replica.model == model)
        least = tools.minimum_replicas(load, model)
        options = own or sorted(shape for shape in rate_of if shape.model == model)
        if own:
            shape = max(options, key=lambda replica: own.count(replica) * replica.gpus)
        else:
            shape = max(options, key=lambda replica: rate_of[replica] / replica.gpus)
        shapes[model] = shape
        rate = rate_of.get(shape, 0.0)
        if model not in have or rate <= 0:
            counts[model] = max(least, len(own))
        elif own and near_target(have[model]):
            counts[model] = max(least, math.ceil(have[model] / rate - 1e-9))
        else:
            counts[model] = max(least, math.ceil(1 / (TARGET * rate) - 1e-9))
    return shapes, counts


def plan(state: ServingState) -> Decision:
    load = outlook(state)
    present = list(tools.target(state).replicas)
    if not elastic(state):
        return Decision(plan=tools.target(state))
    shapes, needed = scaled(load, present)
    counts, history = tools.hold(state.memory.get("needed", []), needed, SHRINK_POINTS)
    replicas = sorted(shapes[model] for model in state.models for _ in range(counts[model]))
    reach = tools.reach(state)
    if tools.fits(load, replicas, reach):
        chosen = ServingPlan(tuple(replicas), tools.assign(load, replicas, reach))
    else:
        chosen = tools.greedy(load, wanted=reach, margin=1 / TARGET)
    return Decision(plan=chosen, capacity=tools.capacity_for(load, chosen), memory={"needed": history})
