"""Prefill and decode apart, each with the shape of best goodput per GPU; planned anew when the pattern shifts.

The placement of DistServe (Zhong et al., OSDI 2024): per phase the parallelism with the highest goodput per GPU, and
⌈rate ÷ goodput⌉ replicas of it; a profiler watches rate and mean lengths, and a change beyond a threshold plans anew.
With several models and GPU kinds each phase of each model is a unit of its own: whichever serves the least multiple of
its load gets its best replica that still fits, per GPU or, where capacity is bought, per dollar, until all have MARGIN;
of GPUs paid for anyway, until none is left.
"""

import math

from autopoiesis.policy import Decision, Replica, Role, ServingPlan, ServingState, tools

interface = 1

# Windows over which load is averaged; the last one counts alone where it is higher.
WINDOWS = 5
# Relative change of a model's rate or mean lengths that makes a plan stale.
SHIFT = 0.3
# Multiple of the load that each phase is to serve.
MARGIN = 1.25
# Plans over which the largest need decides how much capacity is kept.
SHRINK_PLANS = 3
# Relative gain in headroom below which phases that are apart already stay as they are, if capacity does not change.
GAIN = 0.1


def profile(state: ServingState) -> dict[str, list[float]]:
    """By model: requests per second, mean prompt and mean output."""
    window = tools.expected(state, windows=WINDOWS).window
    seen: dict[str, list[float]] = {}
    for entry in window.classes if window is not None else ():
        model = entry.request_class.rsplit("/", 1)[0]
        rate, prompt, output = seen.get(model, [0.0, 0.0, 0.0])
        more = entry.rate_rps
        seen[model] = [rate + more, prompt + more * entry.input_mean, output + more * entry.output_mean]
    return {model: [rate, p / rate, o / rate] for model, (rate, p, o) in seen.items() if rate > 0}


def shifted(then: dict[str, list[float]], now: dict[str, list[float]]) -> bool:
    if set(then) != set(now):
        return True
    return any(abs(b - a) > SHIFT * a for model in now for a, b in zip(then[model], now[model], strict=True))


def should_reschedule(state: ServingState) -> bool:
    if state.window is None:
        return False
    if "profile" not in state.memory or state.memory["gpus"] != tools.gpus(state):
        return True
    return shifted(state.memory["profile"], profile(state))


def goodputs(load: ServingState) -> dict[tuple[str, Role], dict[Replica, float]]:
    """By model and phase: the multiple of the load that one replica of each shape serves, best value first.

    A model of which some phase has no shape that serves anything, or that has no load, is left out.
    """
    elastic = any(pool.minimum < pool.maximum for pool in load.pools)
    price = {pool.gpu: pool.price_per_hour if elastic and pool.price_per_hour > 0 else 1.0 for pool in load.pools}
    found = {}
    for model in load.models:
        phases = {}
        for role in (Role.PREFILL, Role.DECODE):
            rates = {}
            for shape in tools.shapes(load, model):
                rate = tools.rate(load, shape.with_options(role=role))
                if 0 < rate < math.inf:
                    rates[shape.with_options(role=role)] = rate
            order = sorted(rates, key=lambda shape: (-rates[shape] / shape.gpus / price[shape.gpu], shape))
            phases[model, role] = {shape: rates[shape] for shape in order}
        if all(phases.values()):
            found.update(phases)
    return found


def seeded(
    load: ServingState, rates: dict[tuple[str, Role], dict[Replica, float]], wanted: dict[str, int]
) -> list[Replica] | None:
    """The minimum of each phase of each model: of the best shapes, else of the smallest; None if these do not fit."""
    for small in (False, True):
        replicas = []
        for model in load.models:
            count = tools.minimum_replicas(load, model)
            if (model, Role.PREFILL) not in rates:
                own = [replica for replica in tools.target(load).replicas if replica.model == model]
                least = min(tools.shapes(load, model), key=lambda shape: (shape.gpus, shape))
                replicas += own if len(own) >= count and not small else [least] * count
                continue
            for role in (Role.PREFILL, Role.DECODE):
                options = list(rates[model, role])
                replicas += [min(options, key=lambda shape: shape.gpus) if small else options[0]] * count
        if tools.fits(load, replicas, wanted):
            return replicas
    return None


def grown(
    load: ServingState,
    replicas: list[Replica],
    rates: dict[tuple[str, Role], dict[Replica, float]],
    wanted: dict[str, int],
    goal: float,
) -> list[Replica]:
    """`replicas` and more, until every phase serves `goal` times its load or nothing that it could have fits."""
    replicas = list(replicas)
    have = {
        unit: sum(rates[unit].get(replica, 0.0) for replica in replicas if (replica.model, replica.role) == unit)
        for unit in rates
    }
    while have:
        unit = min(have, key=lambda unit: have[unit])
        if have[unit] >= goal:
            break
        shape = next((shape for shape in rates[unit] if tools.fits(load, [*replicas, shape], wanted)), None)
        if shape is None:
            have.pop(unit)
            continue
        replicas.append(shape)
        have[unit] += rates[unit][shape]
    return replicas


def stays(
    load: ServingState, rates: dict[tuple[str, Role], dict[Replica, float]], best: ServingPlan, capacity: dict[str, int]
) -> bool:
    """Whether the phases are apart already and serve nearly as much: restarts take a phase away while they last."""
    present = tools.target(load)
    units = {(replica.model, replica.role) for replica in present.replicas}
    if any(pool.requested != capacity.get(pool.name, pool.requested) for pool in load.pools):
        return False
    if not rates or not units >= set(rates):
        return False
    there = tools.granted(load, capacity)
    now = there.estimate(present)
    return now.feasible and there.estimate(best).headroom <= (1 + GAIN) * now.headroom


def plan(state: ServingState) -> Decision:
    load = tools.expected(state, windows=WINDOWS)
    reach = tools.reach(state)
    rates = goodputs(load)
    memory = {"profile": profile(state), "gpus": tools.gpus(state), "needed": state.memory.get("needed", [])}
    seeds = seeded(load, rates, reach)
    if seeds is None:
        # no room for both phases of every model: they share replicas
        together = tools.greedy(load, wanted=reach, margin=MARGIN)
        return Decision(plan=together, capacity=tools.capacity_for(load, together), memory=memory)
    replicas = grown(load, seeds, rates, reach, MARGIN)
    needed = tools.capacity_for(load, ServingPlan(tuple(replicas)))
    capacity, memory["needed"] = tools.hold(memory["needed"], needed, SHRINK_PLANS)
    replicas = grown(load, replicas, rates, {**reach, **capacity}, math.inf)
    best = ServingPlan(tuple(tools.in_turns(replicas)))
    if stays(load, rates, best, capacity):
        best = tools.target(state)
    return Decision(plan=best, capacity=capacity, memory=memory)
