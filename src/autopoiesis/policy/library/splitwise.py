"""A prompt pool, a token pool and a mixed pool that borrows machines from both as their queues demand.

Splitwise (Patel et al., ISCA 2024): machines of one shape per model prefill or decode; when one phase's queue outgrows
the other's, the other lends a machine, which then serves both phases and goes back once the queue is gone; each request
joins the shortest queue of its phase. Pools are sized by what a machine serves of each phase. With several models and
GPU kinds, a model's shape is the one that serves most of both phases per GPU (per dollar where capacity is bought), and
whichever phase of whichever model is worst off gets the next machine.
"""

import math

from autopoiesis.policy import HOLD, Decision, Replica, ReplicaView, Request, Role, ServingPlan, ServingState, tools

interface = 1

# Windows over which load is averaged; the last one counts alone where it is higher.
WINDOWS = 5
# Multiple of the load that each pool is to serve.
MARGIN = 1.25
# Waiting requests per machine by which one phase's queue exceeds the other's before a machine is lent.
IMBALANCE = 4.0
# Relative change in a model's machines below which pools keep their size, and machines only move between them.
TOLERANCE = 0.25
# Monitoring points over which the largest need decides how much capacity is kept.
SHRINK_POINTS = 5

PHASES = (Role.PREFILL, Role.DECODE)


def should_reschedule(state: ServingState) -> bool:
    return state.window is not None


def machines(load: ServingState) -> dict[str, list[tuple[Replica, float, float]]]:
    """By model with load: shapes and the multiples that one serves of prefill and of decode, best value first."""
    elastic = any(pool.minimum < pool.maximum for pool in load.pools)
    price = {pool.gpu: pool.price_per_hour if elastic and pool.price_per_hour > 0 else 1.0 for pool in load.pools}
    found = {}
    for model in load.models:
        options = []
        for shape in tools.shapes(load, model):
            first, second = (tools.rate(load, shape.with_options(role=role)) for role in PHASES)
            if 0 < first < math.inf and 0 < second < math.inf:
                # n machines divided at best serve n · first · second ÷ (first + second)
                value = first * second / (first + second) / shape.gpus / price[shape.gpu]
                options.append((-value, shape, first, second))
        if options:
            found[model] = [option[1:] for option in sorted(options)]
    return found


def pools(
    load: ServingState,
    start: list[Replica],
    shapes: dict[str, list[tuple[Replica, float, float]]],
    wanted: dict[str, int],
    goal: float,
) -> list[Replica]:
    """`start` and more machines, until both pools of every model serve `goal` times its load or no more fit."""
    replicas = list(start)
    rates: dict[tuple[str, Role], dict[Replica, float]] = {}
    for model, options in shapes.items():
        for shape, *multiples in options:
            for role, multiple in zip(PHASES, multiples, strict=True):
                rates.setdefault((model, role), {})[shape.with_options(role=role)] = multiple
    have = {unit: sum(options.get(replica, 0.0) for replica in replicas) for unit, options in rates.items()}
    while have:
        unit = min(have, key=lambda unit: have[unit])
        if have[unit] >= goal:
            break
        machine = next((shape for shape in rates[unit] if tools.fits(load, [*replicas, shape], wanted)), None)
        if machine is None:
            have.pop(unit)
            continue
        replicas.append(machine)
        have[unit] += rates[unit][machine]
    return replicas


def seeds(
    load: ServingState, shapes: dict[str, list[tuple[Replica, float, float]]], wanted: dict[str, int]
) -> list[Replica] | None:
    """Every model's minimum in each pool: of its best shape, else of its smallest; None if these do not fit."""
    for small in (False, True):
        replicas = []
        for model in load.models:
            count = tools.minimum_replicas(load, model)
            least = min(tools.shapes(load, model), key=lambda shape: (shape.gpus, shape))
            own = [replica for replica in tools.target(load).replicas if replica.model == model]
            if model in shapes:
                options = [option[0] for option in shapes[model]]
                shape = min(options, key=lambda shape: shape.gpus) if small else options[0]
                replicas += [shape.with_options(role=role) for role in PHASES for _ in range(count)]
            else:
                replicas += own if len(own) >= count and not small else [least] * count
        if tools.fits(load, replicas, wanted):
            return replicas
    return None


def waiting(state: ServingState, model: str, role: Role) -> float:
    """Requests that wait per machine of a pool, the mixed pool's with the prompts'."""
    takes = (role, Role.MIXED) if role is Role.PREFILL else (role,)
    pool = [r for r in state.replicas if r.replica.model == model and r.replica.role in takes and r.phase == "serving"]
    return sum(status.waiting for status in pool) / len(pool) if pool else 0.0


def exchanged(state: ServingState, model: str, own: list[Replica], wish: list[Replica]) -> list[Replica]:
    """A model's machines with at most one in another pool: lent to the longer queue, or back where one is missing."""
    prompts, tokens = waiting(state, model, Role.PREFILL), waiting(state, model, Role.DECODE)
    lender = None
    if prompts > tokens + IMBALANCE:
        lender = Role.DECODE
    elif tokens > prompts + IMBALANCE:
        lender = Role.PREFILL
    mixed = [replica for replica in own if replica.role is Role.MIXED]
    if lender is not None:
        pool = [replica for replica in own if replica.role is lender]
        if len(pool) > tools.minimum_replicas(state, model):
            own.remove(pool[-1])
            own.append(pool[-1].with_options(role=Role.MIXED))
    elif mixed:
        lack = {role: sum(r.role is role for r in wish) - sum(r.role is role for r in own) for role in PHASES}
        own.remove(mixed[-1])
        own.append(mixed[-1].with_options(role=max(PHASES, key=lambda role: lack[role])))
    return own


def settled(present: list[Replica], wish: list[Replica]) -> bool:
    """Whether machines in pools are there already, about as many GPUs as wished for."""
    roles = {replica.role for replica in present}
    if not roles >= {replica.role for replica in wish}:
        return False
    there, wanted = sum(replica.gpus for replica in present), sum(replica.gpus for replica in wish)
    return abs(there - wanted) <= TOLERANCE * wanted


def plan(state: ServingState) -> Decision:
    load = tools.expected(state, windows=WINDOWS)
    reach = tools.reach(state)
    shapes = machines(load)
    start = seeds(load, shapes, reach)
    if start is None:
        # no room for both pools of every model: they share machines
        together = tools.greedy(load, wanted=reach, margin=MARGIN)
        return Decision(plan=together, capacity=tools.capacity_for(load, together))
    wish = pools(load, start, shapes, reach, MARGIN)
    needed = tools.capacity_for(load, ServingPlan(tuple(wish)))
    capacity, history = tools.hold(state.memory.get("needed", []), needed, SHRINK_POINTS)
    paid = {**reach, **capacity}
    wish = pools(load, wish, shapes, paid, math.inf)
    present = list(tools.target(state).replicas)
    kept = []
    for model in state.models:
        own, due = ([r for r in side if r.model == model] for side in (present, wish))
        kept += exchanged(state, model, own, due) if model in shapes and settled(own, due) else due
    chosen = pools(load, kept, shapes, paid, math.inf) if tools.fits(load, kept, paid) else wish
    return Decision(plan=ServingPlan(tuple(tools.in_turns(chosen))), capacity=capacity, memory={"needed": history})


def route(request: Request, replicas: list[ReplicaView]) -> int:
    if len(replicas) == 0:
        return HOLD
    if request.phase > 0:
        return min(replicas, key=lambda r: r.in_flight / r.speed).index
    return min(replicas, key=lambda r: r.in_flight_tokens / r.speed).index
