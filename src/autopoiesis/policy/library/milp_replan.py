"""Re-plan at every monitoring point with an exact mixed-integer program.

The optimal deployment as an integer program, as in Mélange (Griggs et al., arXiv:2404.14527, 2024), which finds the
cheapest mix of GPU kinds for buckets of request sizes: here replica counts per shape and GPU kind, and flows of request
classes to them, solved exactly each time. The rest is common practice and of no paper: changing nothing is preferred
among plans that differ by less than KEEP, capacity shrinks late, and where latency is the objective the plan is
polished against the estimator, because a plan with most throughput is not the one with least delay.
"""

from autopoiesis.policy import Decision, ServingState, tools

interface = 1

# Windows over which load is averaged; the last one counts alone where it is higher.
WINDOWS = 5
# Multiple of that load to provide for.
MARGIN = 1.25
# Fraction of the best multiple given up for changing nothing. A move costs its GPUs about a minute; at a hundredth the
# plan follows every window's chance, at a tenth only what lasts as long as some ten such minutes.
KEEP = 0.1
# Monitoring points over which the largest need decides how much capacity is kept.
SHRINK_POINTS = 5
# Steps of local search where the objective is delay.
POLISH_STEPS = 3


def should_reschedule(state: ServingState) -> bool:
    return state.window is not None


def plan(state: ServingState) -> Decision:
    load = tools.expected(state, windows=WINDOWS)
    reach = tools.reach(state)
    best = tools.milp(load, wanted=reach, margin=MARGIN, keep=KEEP)
    needed = tools.capacity_for(load, best)
    capacity, history = tools.hold(state.memory.get("needed", []), needed, SHRINK_POINTS)
    if capacity != needed:
        best = tools.milp(load, wanted=reach, margin=MARGIN, keep=KEEP, paid=capacity)
    if state.objective == "delay":
        busy = tools.expected(state, windows=WINDOWS, margin=MARGIN)
        best = tools.local_search(busy, best, POLISH_STEPS, wanted={**reach, **capacity})
    return Decision(plan=best, capacity=capacity, memory={"needed": history})
