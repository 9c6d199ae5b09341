"""Keep the plan until the mix has drifted from the one it was made for; then re-solve exactly.

Workload-shift detection as in DistServe (Zhong et al., OSDI 2024) and ThunderServe (Jiang et al., MLSys 2025): what is
watched are each model's prompt and output tokens per second, smoothed, relative to what they were when the plan was
made. Single classes are not watched: few requests make them drift by chance. A change in the GPUs that are there counts
as drift. What those systems then plan is theirs; here it is the program of milp-replan.
"""

from autopoiesis.policy import Decision, ServingState, tools

interface = 1

# Windows over which load is averaged; the last one counts alone where it is higher.
WINDOWS = 5
# Relative change of a model's tokens per second that makes a plan stale: less than the margin, so that a plan that was
# made in a burst of one model is reconsidered before another has used up its room.
DRIFT = 0.2
# Multiple of the load to provide for: it may rise by DRIFT before anything happens, and then a while longer.
MARGIN = 1.3
# Plans over which the largest need decides how much capacity is kept.
SHRINK_PLANS = 3
# Fraction of the best multiple given up for changing nothing.
KEEP = 0.1


def profile(state: ServingState) -> dict[str, list[float]]:
    """By model: prompt and output tokens per second."""
    window = tools.expected(state, windows=WINDOWS).window
    tokens: dict[str, list[float]] = {}
    for entry in window.classes if window is not None else ():
        model = entry.request_class.rsplit("/", 1)[0]
        prompt, output = tokens.get(model, [0.0, 0.0])
        tokens[model] = [prompt + entry.rate_rps * entry.input_mean, output + entry.rate_rps * entry.output_mean]
    return tokens


def drift(then: dict[str, list[float]], now: dict[str, list[float]]) -> float:
    """The largest relative change of any model's tokens."""
    largest = 0.0
    for model in sorted(set(then) | set(now)):
        for was, value in zip(then.get(model, [0.0, 0.0]), now.get(model, [0.0, 0.0]), strict=True):
            if was != value:
                largest = max(largest, abs(value - was) / was if was > 0 else float("inf"))
    return largest


def should_reschedule(state: ServingState) -> bool:
    if state.window is None:
        return False
    if "profile" not in state.memory or state.memory["gpus"] != tools.gpus(state):
        return True
    return drift(state.memory["profile"], profile(state)) > DRIFT


def plan(state: ServingState) -> Decision:
    load = tools.expected(state, windows=WINDOWS)
    reach = tools.reach(state)
    best = tools.milp(load, wanted=reach, margin=MARGIN, keep=KEEP)
    needed = tools.capacity_for(load, best)
    capacity, history = tools.hold(state.memory.get("needed", []), needed, SHRINK_PLANS)
    if capacity != needed:
        best = tools.milp(load, wanted=reach, margin=MARGIN, keep=KEEP, paid=capacity)
    memory = {"profile": profile(state), "gpus": tools.gpus(state), "needed": history}
    return Decision(plan=best, capacity=capacity, memory=memory)
