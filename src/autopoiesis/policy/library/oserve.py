"""Predict the mix, let flows assign it to unlike replicas, and move GPUs along what the flows leave idle.

The scheme of OServe (Jiang et al., arXiv:2602.12151, 2026). Below, a transportation problem divides the predicted
request classes among replicas of unlike shapes. What it makes of the replicas is feedback for the level above, which
climbs from the plan in force: GPUs go from the least used replicas to the model of the most used ones, and these are
split, joined or given another kind of GPU, as long as the estimate says that it helps. The prediction is a level and a
trend per class (exponential smoothing). The deployment is reconsidered when the predicted mix is no longer that which
it was made for, and changed where the gain pays for the transition. Weights come over the fastest links there are, from
replicas that have them; the estimate of a transition knows.

Added here, since the paper takes GPUs as given: elastic pools are sized by greedy packing for the predicted mix where
money counts, and taken whole where not; that packing is also what a climb may start from when capacity changes.
"""

from collections import Counter

from autopoiesis.policy import Decision, Replica, ServingPlan, ServingState, tools

interface = 1

# Weights of the newest window in the level of a class's rate, and of the newest step in its trend.
SMOOTHING = 0.5
TREND = 0.3
# A class keeps at least this part of its mean rate over all known windows, however its trend points.
LEAST = 0.25
# Windows over which lengths are averaged, and within which the queue at hand is to be worked off.
WINDOWS = 5
# Part of the predicted tokens per second that must belong elsewhere for the deployment to be reconsidered.
CHANGE = 0.15
# Multiple of the load to provide for: more room is worth little.
MARGIN = 1.25
# Steps up, and plans estimated for each.
STEPS = 4
LOOKED = 16
# How many of the most used and of the least used shapes exchange GPUs.
ENDS = 3
# Relative gain in headroom for which a class is divided otherwise than by speed.
CLEAR = 0.05
# Seconds within which a transition has to pay.
HORIZON_S = 300.0
# Plans over which the largest need decides how much elastic capacity is kept.
SHRINK_PLANS = 4
# Worth of headroom beyond the margin, beside that of the fraction of requests served within SLO.
ROOM = 0.02

Replicas = tuple[Replica, ...]


# --- the prediction -------------------------------------------------------------------------------------------------


def ahead(rates: list[float]) -> float:
    """The rate of the next window: level and trend of the ones before, not below `LEAST` of their mean."""
    level, trend = rates[0], 0.0
    for rate in rates[1:]:
        last, level = level, SMOOTHING * rate + (1 - SMOOTHING) * (level + trend)
        trend += TREND * (level - last - trend)
    return max(level + trend, LEAST * sum(rates) / len(rates))


def predicted(state: ServingState) -> ServingState:
    """The state with the load of the next window, and the queue at hand."""
    windows = [window for window in (*state.recent, state.window) if window is not None]
    rates = {}
    for label in sorted({entry.request_class for window in windows for entry in window.classes}):
        entries = [window.of(label) for window in windows]
        queued = entries[-1].queued if entries[-1] is not None else 0
        seen = [entry.rate_rps if entry is not None else 0.0 for entry in entries]
        rates[label] = ahead(seen) + queued / (WINDOWS * state.window_s)
    return tools.expected(state, windows=WINDOWS, rates=rates)


def mix(load: ServingState) -> dict[str, float]:
    """Tokens per second by class."""
    classes = load.window.classes if load.window is not None else ()
    return {entry.request_class: entry.rate_rps * (entry.input_mean + entry.output_mean) for entry in classes}


def change(then: dict[str, float], now: dict[str, float]) -> float:
    """What came and what went, relative to the larger mix; a mere exchange of two classes counts once."""
    more = sum(max(now.get(label, 0.0) - then.get(label, 0.0), 0.0) for label in {*then, *now})
    less = sum(max(then.get(label, 0.0) - now.get(label, 0.0), 0.0) for label in {*then, *now})
    return max(more, less) / max(sum(then.values()), sum(now.values()), 1e-9)


def should_reschedule(state: ServingState) -> bool:
    if state.window is None:
        return False
    memory = state.memory
    if "mix" not in memory or memory["gpus"] != tools.gpus(state):
        return True
    needed = memory["needed"][-1]
    if any(pool.requested > needed.get(pool.name, pool.requested) for pool in state.pools):
        return True  # capacity is held back, and let go a plan at a time
    return change(memory["mix"], mix(predicted(state))) > CHANGE


# --- flows and moves ------------------------------------------------------------------------------------------------


def worth(state: ServingState, replicas: Replicas) -> float:
    """How good replicas are: throughput within SLO up to the margin, then what the objective asks for. 0 is useless."""
    estimate = state.estimate(ServingPlan(replicas))
    if not estimate.feasible or not tools.fits(state, replicas):
        return 0.0
    enough = estimate.headroom / MARGIN
    if state.objective == "total_time":
        return enough
    rest = 1 / (1 + estimate.delay_s) if state.objective == "delay" else estimate.goodput
    return min(enough, 1.0) + rest + ROOM * enough / (1 + enough)


class Feedback:
    """What the flows say of the replicas of a plan; each shape is asked for once."""

    def __init__(self, there: ServingState) -> None:
        self.there = there
        self.demand = tools.demand(there)
        self.rates: dict[Replica, float] = {}
        self.alone: dict[Replica, dict[str, float]] = {}

    def rate(self, shape: Replica) -> float:
        if shape not in self.rates:
            self.rates[shape] = tools.rate(self.there, shape)
        return self.rates[shape]

    def use(self, replicas: Replicas) -> dict[Replica, float]:
        """By shape, the fraction of its time that the assigned classes take; without load, 0."""
        count = Counter(replicas)
        served = tools.multiples(replicas, {shape: self.rate(shape) for shape in count}, self.there.models)
        busy = {shape: 1 / max(served[shape.model], 1e-9) for shape in sorted(count)}
        shares = tools.assign(self.there, replicas)
        divided = {entry.request_class.rsplit("/", 1)[0] for entry in shares}
        busy.update((shape, 0.0) for shape in busy if shape.model in divided)
        for entry in shares:
            for shape, part in dict(zip(replicas, entry.fractions, strict=True)).items():
                if part > 0:
                    if shape not in self.alone:
                        self.alone[shape] = tools.capacity(self.there, shape)
                    able = self.alone[shape].get(entry.request_class, 0.0)
                    # replicas of one shape have equal parts
                    busy[shape] += part * self.demand[entry.request_class] / max(able, 1e-9)
        return busy

    def moves(self, state: ServingState, plan: ServingPlan) -> list[ServingPlan]:
        """Plans one move away, those for the most used shapes first."""
        busy = self.use(plan.replicas)
        order = sorted(busy, key=lambda shape: (-busy[shape], shape))
        found: dict[Replicas, None] = {}
        for taker in order[:ENDS]:
            own = [shape for shape in state.shapes if shape.model == taker.model]
            for shape in own:
                found[changed(plan.replicas, [], [shape])] = None
            for giver in (*order[: -ENDS - 1 : -1], taker):
                for shape in own:
                    found.update(dict.fromkeys(regrouped(plan.replicas, giver, shape, state.shapes)))
                found.update(dict.fromkeys(swapped(plan.replicas, taker, giver, state.shapes)))
        kept = [replicas for replicas in found if allowed(state, replicas, plan.replicas)]
        return [ServingPlan(replicas) for replicas in kept[:LOOKED]]


def changed(replicas: Replicas, out: list[Replica], new: list[Replica]) -> Replicas:
    left = list(replicas)
    for replica in out:
        left.remove(replica)
    return tuple(sorted(left + new))


def regrouped(replicas: Replicas, giver: Replica, shape: Replica, shapes: Replicas) -> list[Replicas]:
    """The GPUs of one giver as replicas of a shape, half of them so, or those of as many givers as one of it takes."""
    if shape.gpu != giver.gpu or shape == giver:
        return []
    if shape.gpus > giver.gpus:
        givers = -(-shape.gpus // giver.gpus)
        return [changed(replicas, [giver] * givers, [shape])] if replicas.count(giver) >= givers else []
    plans = [changed(replicas, [giver], [shape] * (giver.gpus // shape.gpus))]
    half = giver.gpus // 2
    halves = [s for s in shapes if (s.model, s.gpu, s.gpus) == (giver.model, giver.gpu, half) and s != shape]
    if halves and shape.gpus <= half:
        plans.append(changed(replicas, [giver], [halves[0]] + [shape] * (half // shape.gpus)))
    return plans


def swapped(replicas: Replicas, taker: Replica, giver: Replica, shapes: Replicas) -> list[Replicas]:
    """Two models exchange replicas on unlike GPUs."""
    if taker.model == giver.model or taker.gpu == giver.gpu:
        return []
    gained = [s for s in shapes if (s.model, s.gpu, s.gpus) == (taker.model, giver.gpu, giver.gpus)]
    given = [s for s in shapes if (s.model, s.gpu, s.gpus) == (giver.model, taker.gpu, taker.gpus)]
    return [changed(replicas, [taker, giver], [gained[0], given[0]])] if gained and given else []


def allowed(state: ServingState, replicas: Replicas, before: Replicas) -> bool:
    """Whether replicas pack, and no model has less than its minimum."""
    count = Counter(replica.model for replica in replicas)
    enough = all(count[model] >= tools.minimum_replicas(state, model) for model in state.models)
    return enough and replicas != before and tools.fits(state, replicas)


def trimmed(feedback: Feedback, replicas: Replicas) -> Replicas:
    """The replicas that pack on what is there: the least used ones of models that can spare one go first."""
    state = feedback.there
    while not tools.fits(state, replicas):
        count = Counter(replica.model for replica in replicas)
        spare = [r for r in sorted(set(replicas)) if count[r.model] > tools.minimum_replicas(state, r.model)]
        if not spare:
            break
        served = tools.multiples(replicas, {r: feedback.rate(r) for r in {*replicas}}, state.models)
        replicas = changed(replicas, [max(spare, key=lambda r: served[r.model] - feedback.rate(r))], [])
    return replicas


def filled(feedback: Feedback, replicas: Replicas) -> Replicas:
    """The replicas and more on free GPUs: what serves most per GPU for the most used model, and nothing that moves."""
    state = feedback.there
    loaded = sorted({label.rsplit("/", 1)[0] for label in feedback.demand})
    while loaded:
        served = tools.multiples(replicas, {r: feedback.rate(r) for r in {*replicas}}, loaded)
        worst = min(loaded, key=lambda model: served[model])
        own = sorted(
            (shape for shape in state.shapes if shape.model == worst and feedback.rate(shape) > 0),
            key=lambda shape: (-feedback.rate(shape) / shape.gpus, shape),
        )
        new = next((shape for shape in own if tools.fits(state, (*replicas, shape))), None)
        if new is None:
            loaded.remove(worst)
        else:
            replicas = changed(replicas, [], [new])
    return replicas


def assigned(there: ServingState, replicas: Replicas) -> ServingPlan:
    """The plan with the flows as shares, unless dividing classes by speed serves about as much."""
    plain, flows = ServingPlan(replicas), ServingPlan(replicas, tools.assign(there, replicas))
    if not flows.shares:
        return plain
    return flows if there.estimate(flows).headroom > (1 + CLEAR) * there.estimate(plain).headroom else plain


def plan(state: ServingState) -> Decision:
    load = predicted(state)
    most = {pool.name: pool.maximum for pool in state.pools if pool.minimum < pool.maximum}
    packed = tools.greedy(load, wanted=most, margin=MARGIN)
    needed = tools.capacity_for(load, packed)
    if state.objective != "cost_per_good":
        needed = most
    capacity, history = tools.hold(state.memory.get("needed", []), needed, SHRINK_PLANS)
    if capacity != needed:
        packed = tools.greedy(load, wanted=most, margin=MARGIN, paid=capacity)
    memory = {"mix": mix(load), "gpus": tools.gpus(state), "needed": history}

    there = tools.granted(load, capacity)
    feedback = Feedback(there)
    present = tools.target(state).sorted()
    kept = trimmed(feedback, present.replicas)
    more = start = filled(feedback, kept)
    if start != present.replicas:
        start = max((start, packed.replicas), key=lambda replicas: worth(there, replicas))
    climbed = tools.local_search(
        there, ServingPlan(start), STEPS, feedback.moves, lambda now, plan: -worth(now, plan.replicas)
    ).replicas

    enough = there.estimate(ServingPlan(kept)).headroom
    stands = worth(there, kept)

    def net(replicas: Replicas) -> float:
        """Worth over the horizon. During a transition counts what it keeps, if that is all or enough for the load."""
        move = there.transition(ServingPlan(replicas))
        seconds, left = min(move.seconds, HORIZON_S - 1), move.capacity_kept
        meanwhile = left * stands if left >= 1 or left * enough >= 1 else 0.0
        return worth(there, replicas) * (HORIZON_S - seconds) + meanwhile * seconds

    best = max((kept, more, climbed), key=net)
    if best == present.replicas:
        capacity = tools.capacity_for(load, present)
    return Decision(plan=assigned(there, best), capacity=capacity, memory=memory)
