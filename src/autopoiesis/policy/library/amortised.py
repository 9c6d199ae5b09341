"""Solve at every monitoring point, but move only where the gain pays for the move within a horizon.

The rule of HexGen-3 (ICML 2026): with θ what the present plan serves, θ' what the new one would, and τ the seconds
that the transition takes, move if (θ' − θ)(W − τ) > θ · τ. θ is headroom, which counts only up to the margin, since
capacity that no load asks for serves nobody (but for `total_time`, where a batch is the sooner done the more there is).
On elastic clusters it is divided by the price of the capacity, unless the present plan is overloaded: then more GPUs
are waited for while what serves goes on, which may take longer than W. Of τ only the part of the serving GPUs that
stops is charged then, and W begins when the move is done.
"""

from autopoiesis.policy import Decision, ServingPlan, ServingState, tools

interface = 1

# Windows over which load is averaged; the last one counts alone where it is higher.
WINDOWS = 5
# Multiple of that load to provide for.
MARGIN = 1.25
# Fraction of the best multiple given up for changing nothing.
KEEP = 0.02
# Monitoring points over which the largest need decides how much capacity is kept.
SHRINK_POINTS = 5
# W: the time within which a move has to pay.
HORIZON_S = 300.0


def should_reschedule(state: ServingState) -> bool:
    return state.window is not None


def price(state: ServingState, capacity: dict[str, int]) -> float:
    """US dollars an hour for these GPUs by pool; 1 where nothing costs anything."""
    return sum(capacity[pool.name] * pool.price_per_hour for pool in state.pools) or 1.0


def pays(load: ServingState, present: ServingPlan, best: ServingPlan, capacity: dict[str, int]) -> bool:
    """Whether to move from the present plan on the capacity requested to the best one on `capacity`."""
    requested = {pool.name: pool.requested for pool in load.pools}
    there = tools.granted(load, capacity)
    old, new = tools.granted(load, requested).estimate(present), there.estimate(best)
    if not old.feasible:
        return new.feasible
    if load.objective == "total_time":
        before, after = old.headroom, new.headroom
    else:
        before, after = min(old.headroom, MARGIN), min(new.headroom, MARGIN)
    move = there.transition(best)
    seconds = move.seconds
    elastic = any(pool.minimum < pool.maximum for pool in load.pools)
    if old.headroom < 1 and elastic:
        return (after - before) * HORIZON_S > before * seconds * (1 - move.capacity_kept)
    if old.headroom >= 1:
        before /= price(load, requested)
        after /= price(load, capacity)
    return (after - before) * (HORIZON_S - seconds) > before * seconds


def plan(state: ServingState) -> Decision:
    load = tools.expected(state, windows=WINDOWS)
    reach = tools.reach(state)
    best = tools.milp(load, wanted=reach, margin=MARGIN, keep=KEEP)
    needed = tools.capacity_for(load, best)
    wanted, history = tools.hold(state.memory.get("needed", []), needed, SHRINK_POINTS)
    if wanted != needed:
        best = tools.milp(load, wanted=reach, margin=MARGIN, keep=KEEP, paid=wanted)
    memory = {"needed": history}
    capacity = {pool.name: wanted.get(pool.name, pool.available) for pool in state.pools}
    present = tools.target(state)
    if not pays(load, present, best, capacity):
        return Decision(plan=present, memory=memory)
    return Decision(plan=best, capacity=wanted, memory=memory)
