"""Re-plan at every monitoring point by greedy packing, and move if that serves clearly more.

Common practice rather than one publication: whoever is worst off gets the replica that serves most per GPU (per dollar
where capacity is elastic) until all have a margin. Capacity grows at once and shrinks after a delay, as in the
Kubernetes horizontal pod autoscaler (its documentation, "Stabilization window"); a plan hardly better than the present
one is left alone.
"""

from autopoiesis.policy import Decision, ServingState, tools

interface = 1

# Windows over which load is averaged; the last one counts alone where it is higher.
WINDOWS = 5
# Multiple of that load to provide for.
MARGIN = 1.25
# Relative gain in headroom below which the present plan stays, if capacity does not change.
GAIN = 0.05
# Monitoring points over which the largest need decides how much capacity is kept.
SHRINK_POINTS = 5


def should_reschedule(state: ServingState) -> bool:
    return state.window is not None


def plan(state: ServingState) -> Decision:
    load = tools.expected(state, windows=WINDOWS)
    reach = tools.reach(state)
    best = tools.greedy(load, wanted=reach, margin=MARGIN)
    needed = tools.capacity_for(load, best)
    capacity, history = tools.hold(state.memory.get("needed", []), needed, SHRINK_POINTS)
    if capacity != needed:
        best = tools.greedy(load, wanted=reach, margin=MARGIN, paid=capacity)
    present = tools.target(state)
    requested = {pool.name: pool.requested for pool in state.pools}
    if all(requested[name] == gpus for name, gpus in capacity.items()):
        there = tools.granted(load, requested)
        if there.estimate(best).headroom <= (1 + GAIN) * there.estimate(present).headroom:
            best = present
    return Decision(plan=best, capacity=capacity, memory={"needed": history})
