"""Hold each pool at a target concurrency per replica, with a window for calm times and one for panic.

The Knative pod autoscaler (Knative Serving's documentation, "Autoscaling concepts" and "Additional autoscaling
configuration"). Concurrency is requests in flight, averaged over a stable and over a shorter panic window;

    desired replicas = ⌈concurrency ÷ (what one replica may have · target utilisation)⌉

from the stable one. If the panic one alone asks for twice the replicas that are there, the larger of both counts and
nothing shrinks, until that has not been so for a whole stable window. A change is limited to a factor either way, and
fewer replicas are taken only when that has been enough for the scale-down delay.

What a replica may have is, by Little's law, the requests/s that it serves within SLO times the seconds that they stay
there, measured while all is well; and no more than its sequence cap. Here concurrency is seen at monitoring points
only, so the panic window is the last one. Where capacity is fixed there is nothing to scale, and
it changes nothing.
"""

import math

from autopoiesis.policy import Decision, Replica, Role, ServingPlan, ServingState, tools

interface = 1

# Part of what a replica may have in flight that is aimed at.
TARGET_UTILISATION = 0.7
# Seconds of the stable window; the panic window is the last monitoring point.
STABLE_S = 300.0
# Desired ÷ present replicas by the panic window at which panic begins.
PANIC_THRESHOLD = 2.0
# Seconds for which fewer replicas must have been enough.
SCALE_DOWN_DELAY_S = 0.0
# Largest factor of growth and of shrinking between two points.
MAX_SCALE_UP = 1000.0
MAX_SCALE_DOWN = 2.0

# Least fraction of answers within SLO for a window to tell how long requests stay.
WITHIN = 0.9
# Weight of a window in that, relative to the next.
FADE = 0.9

Pool = tuple[str, Role]


def elastic(state: ServingState) -> bool:
    return any(pool.minimum < pool.maximum for pool in state.pools)


def should_reschedule(state: ServingState) -> bool:
    return state.window is not None and elastic(state)


def label(pool: Pool) -> str:
    return f"{pool[0]}/{pool[1].value}"


def totals(state: ServingState, model: str) -> dict[str, float]:
    """Of the last window and the model's classes together."""
    sums = {"rate_rps": 0.0, "backlog": 0.0, "completed": 0.0, "good": 0.0}
    for entry in state.window.classes if state.window is not None else ():
        if entry.request_class.rsplit("/", 1)[0] == model:
            sums["rate_rps"] += entry.rate_rps
            sums["backlog"] += entry.backlog
            sums["completed"] += entry.completed
            sums["good"] += entry.good
    return sums


def measured(state: ServingState, pools: list[Pool], now: dict[str, float]) -> dict[str, list[float]]:
    """By pool: requests in flight and requests/s, both summed with fading weights over the windows within SLO.

    Windows beyond the SLO are left out: the longer requests stay, the more a replica would be given.
    """
    stays = {}
    for pool in pools:
        name, seen = label(pool), totals(state, pool[0])
        flying, rate = state.memory.get("stays", {}).get(name, [0.0, 0.0])
        within = seen["completed"] > 0 and seen["good"] >= WITHIN * seen["completed"]
        if within and now[name] > 0 and seen["rate_rps"] > 0:
            flying, rate = FADE * flying + now[name], FADE * rate + seen["rate_rps"]
        stays[name] = [flying, rate]
    return stays


def residence_s(state: ServingState, pool: Pool, stay: list[float]) -> float:
    """Mean seconds that a request stays in the pool: by Little's law; what the SLO allows while nothing is measured."""
    if stay[1] > 0:
        return stay[0] / stay[1]
    slo = state.slos[pool[0]]
    requests = seconds = 0.0
    for entry in state.window.classes if state.window is not None else ():
        if entry.request_class.rsplit("/", 1)[0] == pool[0]:
            first_s, rest_s = slo.ttft_limit_s(entry.input_mean), entry.output_mean * slo.tpot_s
            requests += entry.arrivals
            seconds += entry.arrivals * {Role.PREFILL: first_s, Role.DECODE: rest_s}.get(pool[1], first_s + rest_s)
    return seconds / requests if requests > 0 else 0.0


def targets(
    state: ServingState, present: list[Replica], stays: dict[str, list[float]]
) -> dict[Pool, dict[Replica, float]]:
    """By pool: the concurrency that one of each shape is given, and the shapes in order of choice; 0 if unknown."""
    load = tools.expected(state, windows=1)
    stay_s = {pool: residence_s(state, pool, stays[label(pool)]) for pool in tools.units(state, present)}

    def target(shape: Replica) -> float:
        within = sum(load.throughput(shape).values()) * stay_s[shape.model, shape.role]
        return TARGET_UTILISATION * min(within, shape.max_sequences)

    return tools.choices(load, present, target)


def concurrency(state: ServingState, pools: list[Pool]) -> dict[str, float]:
    """By pool: requests in flight now; what the gateway still holds of a model counts for what takes it in."""
    flying = {label(pool): 0.0 for pool in pools}
    for status in state.replicas:
        pool = status.replica.model, status.replica.role
        if pool in pools:
            flying[label(pool)] += status.in_flight
    for pool in pools:
        sent = sum(status.in_flight for status in state.replicas if status.replica.model == pool[0])
        held = totals(state, pool[0])["backlog"] - sent
        if pool[1] is not Role.DECODE:
            flying[label(pool)] += max(held, 0)
    return flying


def plan(state: ServingState) -> Decision:
    if not elastic(state):
        return Decision(plan=tools.target(state))
    present = list(tools.target(state).replicas)
    pools = tools.units(state, present)
    own = {pool: [replica for replica in present if (replica.model, replica.role) == pool] for pool in pools}
    now = concurrency(state, pools)
    stays = measured(state, pools, now)
    target_of = targets(state, present, stays)
    samples = [entry for entry in state.memory.get("samples", []) if entry[0] > state.now_s - STABLE_S]
    samples.append([state.now_s, now])
    panics = dict(state.memory.get("panics", {}))
    wanted = {}
    need = {}
    for pool in pools:
        name, mine, target = label(pool), own[pool], target_of[pool]
        least, ready = tools.minimum_replicas(state, pool[0]), max(len(mine), 1)
        seen = [entry[1][name] for entry in samples if name in entry[1]]
        stable = sum(seen) / len(seen)
        if next(iter(target.values())) <= 0:  # what it serves is known only under load
            wanted[name], need[pool] = max(least, len(mine) if stable > 0 else 0), stable
            continue
        panicked = len(tools.sized(mine, target, now[name], least))
        if panicked >= PANIC_THRESHOLD * ready:
            panics[name] = state.now_s
        panic = panics.get(name, -math.inf) > state.now_s - STABLE_S
        need[pool] = max(stable, now[name]) if panic else stable
        desired = len(tools.sized(mine, target, need[pool], least))
        slowest, fastest = math.floor(ready / MAX_SCALE_DOWN), math.ceil(ready * MAX_SCALE_UP)
        desired = max(least, slowest, min(desired, fastest))
        wanted[name] = max(desired, len(mine)) if panic else desired
    delayed = [entry for entry in state.memory.get("wanted", []) if entry[0] > state.now_s - SCALE_DOWN_DELAY_S]
    delayed.append([state.now_s, wanted])
    replicas = []
    for pool in pools:
        count = max(entry[1].get(label(pool), 0) for entry in delayed)
        replicas += tools.sized(own[pool], target_of[pool], 0.0, count)
    reach = tools.reach(state)
    memory = {"samples": samples, "panics": panics, "wanted": delayed, "stays": stays}
    if not tools.fits(state, replicas, reach):
        if state.announced:  # what is about to be lost serves until then, and is ordered again afterwards
            return Decision(plan=tools.target(state), memory=memory)
        replicas = tools.rationed(state, target_of, need, reach)
    replicas = tools.in_turns(replicas)
    chosen = ServingPlan(tuple(replicas), tools.assign(state, replicas, reach))
    return Decision(plan=chosen, capacity=tools.capacity_for(state, chosen), memory=memory)
