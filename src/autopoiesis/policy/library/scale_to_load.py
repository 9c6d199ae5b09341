"""Hold each model at a target utilisation: more or fewer replicas of the shape it has.

The rule of the Kubernetes horizontal autoscaler and of Dynamo's planner: replicas = ⌈demand ÷ (what one serves ×
target)⌉, nothing within a tolerance, fewer only after a delay. Shapes are reconsidered, by greedy packing, only when
more replicas of them cannot be had. Where capacity is fixed there is nothing to scale, so GPUs go from the model with
most room to the one with least, once they differ enough.
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
# Monitoring points over which the largest need decides.
SHRINK_POINTS = 5
# Ratio between the most and the least room of two models at which fixed GPUs change hands.
UNEVEN = 1.4


def elastic(state: ServingState) -> bool:
    return any(pool.minimum < pool.maximum for pool in state.pools)


def room(load: ServingState, replicas: list[Replica]) -> dict[str, float]:
    """By model with load: the multiple of it that the replicas serve."""
    models = sorted({request_class.rsplit("/", 1)[0] for request_class in tools.demand(load)})
    return tools.multiples(replicas, tools.rates(load), models)


def should_reschedule(state: ServingState) -> bool:
    if state.window is None:
        return False
    load = tools.expected(state, windows=WINDOWS)
    present = list(tools.target(state).replicas)
    have = room(load, present)
    if not have:
        return False
    if elastic(state):
        return any(not near_target(multiple) for multiple in have.values())
    return max(have.values()) > UNEVEN * min(have.values())


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


def rebalanced(load: ServingState, replicas: list[Replica]) -> list[Replica]:
    """Replicas after GPUs went from who has most room to who has least, for as long as that helps."""
    rate_of = tools.rates(load)
    while True:
        have = room(load, replicas)
        poor = min(have, key=lambda model: have[model])
        rich = max(have, key=lambda model: have[model])
        if have[rich] <= UNEVEN * have[poor]:
            return replicas
        trials = [
            trial
            for shape in tools.shapes(load, poor)
            for trial in [given(load, replicas, rich, shape)]
            if min(room_of(trial, rate_of, have).values()) > have[poor]
        ]
        if not trials:
            return replicas
        replicas = max(trials, key=lambda trial: min(room_of(trial, rate_of, have).values()))


def room_of(replicas: list[Replica], rate_of: dict[Replica, float], models: dict[str, float]) -> dict[str, float]:
    return tools.multiples(replicas, rate_of, models)


def given(load: ServingState, replicas: list[Replica], rich: str, shape: Replica) -> list[Replica]:
    """The replicas with one more of a shape, in the place of as few of the rich model's as that takes."""
    rest = sorted(replicas, key=lambda replica: (replica.gpu != shape.gpu, replica.gpus, replica))
    while not tools.fits(load, [*rest, shape]):
        own = [replica for replica in rest if replica.model == rich and replica.gpu == shape.gpu]
        if not own or sum(r.model == rich for r in rest) <= tools.minimum_replicas(load, rich):
            return replicas
        rest.remove(own[0])
    return [*rest, shape]


def plan(state: ServingState) -> Decision:
    load = tools.expected(state, windows=WINDOWS)
    present = list(tools.target(state).replicas)
    if not elastic(state):
        replicas = sorted(rebalanced(load, present))
        return Decision(plan=ServingPlan(tuple(replicas), tools.assign(load, replicas)))
    shapes, needed = scaled(load, present)
    counts, history = tools.hold(state.memory.get("needed", []), needed, SHRINK_POINTS)
    replicas = sorted(shapes[model] for model in state.models for _ in range(counts[model]))
    reach = tools.reach(state)
    if tools.fits(load, replicas, reach):
        chosen = ServingPlan(tuple(replicas), tools.assign(load, replicas, reach))
    else:
        chosen = tools.greedy(load, wanted=reach, margin=1 / TARGET)
    return Decision(plan=chosen, capacity=tools.capacity_for(load, chosen), memory={"needed": history})
