"""Keep the plan until the mix has drifted from the one it was made for; then re-solve exactly.

Workload-shift detection as in DistServe and ThunderServe: what is watched are each class's rate and token lengths,
smoothed, relative to what they were when the plan was made. A change in the GPUs that are there counts as drift.
"""

from autopoiesis.policy import Decision, ServingState, tools

interface = 1

# Windows over which load is averaged; the last one counts alone where it is higher.
WINDOWS = 3
# Relative change of a rate or a length that makes a plan stale.
DRIFT = 0.3
# Classes with less than this fraction of their model's token load, then and now, are left out: they are noise.
MINOR = 0.05
# Multiple of the load to provide for: load may rise by DRIFT before anything happens.
MARGIN = 1.3
# Fraction of the best multiple given up for changing nothing.
KEEP = 0.02


def profile(state: ServingState) -> dict[str, list[float]]:
    """By class: requests/s, mean prompt and mean output tokens."""
    window = tools.expected(state, windows=WINDOWS).window
    classes = window.classes if window is not None else ()
    return {entry.request_class: [entry.rate_rps, entry.input_mean, entry.output_mean] for entry in classes}


def fractions(classes: dict[str, list[float]]) -> dict[str, float]:
    """By class: its part of the tokens of its model."""
    tokens = {label: rate * (prompt + output) for label, (rate, prompt, output) in classes.items()}
    totals: dict[str, float] = {}
    for label, count in tokens.items():
        model = label.rsplit("/", 1)[0]
        totals[model] = totals.get(model, 0.0) + count
    return {label: count / max(totals[label.rsplit("/", 1)[0]], 1e-9) for label, count in tokens.items()}


def drift(then: dict[str, list[float]], now: dict[str, list[float]]) -> float:
    """The largest relative change of a rate or a length, over classes that matter."""
    before, after = fractions(then), fractions(now)
    largest = 0.0
    for label in sorted(set(then) | set(now)):
        if max(before.get(label, 0.0), after.get(label, 0.0)) < MINOR:
            continue
        old, new = then.get(label, [0.0] * 3), now.get(label, [0.0] * 3)
        for was, value in zip(old, new, strict=True):
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
    best = tools.milp(load, wanted=tools.reach(state), margin=MARGIN, keep=KEEP)
    memory = {"profile": profile(state), "gpus": tools.gpus(state)}
    return Decision(plan=best, capacity=tools.capacity_for(load, best), memory=memory)
