"""Groups of unlike GPUs, each for prefill or for decode: tabu search over both, and max-flow between the phases.

The scheduler of ThunderServe (MLSys 2025) with the flow formulation of HexGen-2 (ICLR 2025). A group is a replica shape
on GPUs of one kind; it prefills or decodes, or does both if its model has no other. The load of a model flows through
its prefill groups and on through its decode groups. Here a KV cache takes as long between any two of them, so the
transportation problem has a closed form: the largest flow is the lesser of what either side serves, and dividing each
side by what its groups serve attains it. Tabu search moves from plan to plan: flip the phase of a group, build other
groups of the same GPUs (split, merge, other parallelism, another model), swap GPUs of two kinds between models. Flow
ranks the neighbours, the estimate judges the first few; most throughput within SLO wins.

When the load has shifted, phases and routes alone are searched first (light re-scheduling: no group changes its GPUs or
its weights), and groups only if that leaves too little room or the capacity has changed.

Added here, since these papers take GPUs as given and always split the phases: elastic pools are sized by greedy packing
of replicas that serve both phases where money counts, and taken whole where not; that packing, or the plan in force,
stands where no split is worth more; and a transition has to pay within a horizon, as a group that changes its phase
starts anew here.
"""

from collections import Counter, deque

from autopoiesis.policy import ClassShares, Decision, Estimate, Replica, Role, ServingPlan, ServingState, tools

interface = 1

# Windows over which load is averaged; the last one counts alone where it is higher.
WINDOWS = 5
# Relative change of a model's prompt or output tokens per second that makes a plan stale.
SHIFT = 0.2
# Multiple of the load to provide for: more room is worth little, less sends a light search on to a full one.
MARGIN = 1.25
# Seconds within which a transition has to pay.
HORIZON_S = 300.0
# Steps of the tabu search, and how many without a better plan end it.
ITERATIONS = 16
PATIENCE = 6
# Plans visited last that are not visited again.
TENURE = 12
# Neighbours of a plan that are estimated, those of largest flow first.
LOOKED = 4
# Plans over which the largest need decides how much elastic capacity is kept.
SHRINK_PLANS = 4
# Worth of headroom beyond the margin, beside that of the fraction of requests served within SLO.
ROOM = 0.02

BOTH = Role.MIXED
PREFILL = Role.PREFILL
DECODE = Role.DECODE
Groups = tuple[Replica, ...]  # a plan without its routes, sorted


# --- the load -------------------------------------------------------------------------------------------------------


def profile(load: ServingState) -> dict[str, list[float]]:
    """By model: prompt and output tokens per second."""
    tokens: dict[str, list[float]] = {}
    for entry in load.window.classes if load.window is not None else ():
        model = entry.request_class.rsplit("/", 1)[0]
        prompt, output = tokens.get(model, [0.0, 0.0])
        tokens[model] = [prompt + entry.rate_rps * entry.input_mean, output + entry.rate_rps * entry.output_mean]
    return tokens


def shift(then: dict[str, list[float]], now: dict[str, list[float]]) -> float:
    """The largest change of any model's tokens, relative to the larger value: 0 to 1."""
    largest = 0.0
    for model in sorted({*then, *now}):
        for was, value in zip(then.get(model, [0.0, 0.0]), now.get(model, [0.0, 0.0]), strict=True):
            largest = max(largest, abs(value - was) / max(value, was, 1e-9))
    return largest


def should_reschedule(state: ServingState) -> bool:
    if state.window is None:
        return False
    memory = state.memory
    if "profile" not in memory or memory["gpus"] != tools.gpus(state):
        return True
    needed = memory["needed"][-1]
    if any(pool.requested > needed.get(pool.name, pool.requested) for pool in state.pools):
        return True  # capacity is held back, and let go a plan at a time
    return shift(memory["profile"], profile(tools.expected(state, windows=WINDOWS))) > SHIFT


# --- phases and flows -----------------------------------------------------------------------------------------------


class Flows:
    """What groups serve of their models' load, each shape and phase asked for once."""

    def __init__(self, load: ServingState) -> None:
        self.expected = load
        self.loaded = {label.rsplit("/", 1)[0] for label in tools.demand(load)}
        self.rates: dict[Replica, float] = {}
        self.phases: dict[Replica, tuple[Replica, Replica]] = {}

    def rate(self, group: Replica) -> float:
        """The multiple of its model's load that one such group serves in its phase."""
        if group not in self.rates:
            self.rates[group] = tools.rate(self.expected, group)
        return self.rates[group]

    def apart(self, group: Replica) -> tuple[Replica, Replica]:
        """The group as prefill and as decode group."""
        if group not in self.phases:
            self.phases[group] = (group.with_options(role=PREFILL), group.with_options(role=DECODE))
        return self.phases[group]

    def designated(self, groups: list[Replica]) -> list[Replica]:
        """The groups of one model with the phases of the largest flow.

        Those that prefill best relative to decoding prefill; how many, is tried. One alone does both.
        """
        if len(groups) < 2 or groups[0].model not in self.loaded:
            return [group.with_options(role=BOTH) for group in groups]
        pairs = [self.apart(group) for group in groups]
        worth = {pair: (self.rate(pair[0]), self.rate(pair[1])) for pair in set(pairs)}
        pairs.sort(key=lambda pair: (-worth[pair][0] / max(sum(worth[pair]), 1e-9), pair[0]))
        before, after = 0.0, sum(worth[pair][1] for pair in pairs)
        best, first = -1.0, 1
        for position in range(1, len(pairs)):
            prefill, decode = worth[pairs[position - 1]]
            before, after = before + prefill, after - decode
            if min(before, after) > best:
                best, first = min(before, after), position
        return [pair[0] for pair in pairs[:first]] + [pair[1] for pair in pairs[first:]]

    def split(self, replicas: Groups) -> Groups:
        """The plan with every model's phases designated."""
        models = sorted({replica.model for replica in replicas})
        return tuple(sorted(g for model in models for g in self.designated([r for r in replicas if r.model == model])))

    def served(self, replicas: Groups) -> dict[str, float]:
        """The maximum flow by model with load, as a multiple of it."""
        sums = dict.fromkeys(((model, role) for model in sorted(self.loaded) for role in (BOTH, PREFILL, DECODE)), 0.0)
        for group, count in Counter(replicas).items():
            if group.model in self.loaded:
                sums[group.model, group.role] += count * self.rate(group)
        return {m: sums[m, BOTH] + min(sums[m, PREFILL], sums[m, DECODE]) for m in sorted(self.loaded)}

    def routes(self, replicas: Groups) -> tuple[ClassShares, ...]:
        """Shares that attain the maximum flow; none of models whose replicas do both phases.

        A share counts within its phase; half of the sum is given to either.
        """
        shares = []
        for label in tools.demand(self.expected):
            model = label.rsplit("/", 1)[0]
            roles = {replica.role for replica in replicas if replica.model == model}
            if BOTH in roles:
                continue
            part = [self.rate(r) if r.model == model else 0.0 for r in replicas]
            total = {role: sum(p for p, r in zip(part, replicas, strict=True) if r.role is role) for role in roles}
            if min(total.values()) > 0:
                half = [p / total[r.role] / 2 if p else 0.0 for p, r in zip(part, replicas, strict=True)]
                shares.append(ClassShares(label, tuple(half)))
        return tuple(shares)


# --- the search -----------------------------------------------------------------------------------------------------


def worth(state: ServingState, estimate: Estimate) -> float:
    """How good a plan is: throughput within SLO up to the margin, then what the objective asks for. 0 is useless."""
    if not estimate.feasible:
        return 0.0
    enough = estimate.headroom / MARGIN
    if state.objective == "total_time":
        return enough
    rest = 1 / (1 + estimate.delay_s) if state.objective == "delay" else estimate.goodput
    return min(enough, 1.0) + rest + ROOM * enough / (1 + enough)


class Judge:
    """The worth of plans on capacity that is there or asked for, each estimated once."""

    def __init__(self, load: ServingState, capacity: dict[str, int]) -> None:
        self.there = tools.granted(load, capacity)
        self.known: dict[Groups, Estimate] = {}

    def complete(self, replicas: Groups) -> bool:
        """Whether every model has its minimum, a group for each phase counting as one."""
        for model in self.there.models:
            roles = Counter(replica.role for replica in replicas if replica.model == model)
            if roles[BOTH] + min(roles[PREFILL], roles[DECODE]) < tools.minimum_replicas(self.there, model):
                return False
        return True

    def fits(self, replicas: Groups) -> bool:
        return self.complete(replicas) and tools.fits(self.there, replicas)

    def estimate(self, replicas: Groups) -> Estimate:
        if replicas not in self.known:
            self.known[replicas] = self.there.estimate(ServingPlan(replicas))
        return self.known[replicas]

    def headroom(self, replicas: Groups) -> float:
        return self.estimate(replicas).headroom if self.fits(replicas) else 0.0

    def __call__(self, replicas: Groups) -> float:
        return worth(self.there, self.estimate(replicas)) if self.fits(replicas) else 0.0


def flipped(flows: Flows, plan: Groups) -> list[Groups]:
    """The plan with the phase of one group changed; every phase that has a group keeps one."""
    count = Counter(plan)
    roles = Counter((replica.model, replica.role) for replica in plan)
    plans = []
    for group in sorted(count):
        if group.role is not BOTH and roles[group.model, group.role] > 1:
            prefill, decode = flows.apart(group)
            plans.append(exchanged(plan, [group], [decode if group.role is PREFILL else prefill]))
    return plans


def exchanged(plan: Groups, out: list[Replica], new: list[Replica]) -> Groups:
    left = list(plan)
    for group in out:
        left.remove(group)
    return tuple(sorted(left + new))


def regrouped(flows: Flows, plan: Groups, judge: Judge) -> list[Groups]:
    """The plan with GPUs of one kind grouped otherwise, free ones used, or GPUs of two kinds swapped between models.

    GPUs change their model in favour of the one with the least flow. All phases are designated anew.
    """
    served = flows.served(plan)
    worst = min(sorted(served), key=lambda model: served[model], default="")
    count = Counter(replica.with_options(role=BOTH) for replica in plan)
    shapes = sorted(set(flows.expected.shapes))
    bare = tuple(sorted(count.elements()))
    found = [exchanged(bare, [], [s]) for s in shapes if s.model == worst and tools.fits(judge.there, (*bare, s))]
    for group in sorted(count):
        for shape in shapes:
            if shape.gpu != group.gpu or shape == group or shape.model not in (group.model, worst):
                continue
            if shape.gpus <= group.gpus:
                found.append(exchanged(bare, [group], [shape] * (group.gpus // shape.gpus)))
            elif count[group] * group.gpus >= shape.gpus and shape.gpus % group.gpus == 0:
                found.append(exchanged(bare, [group] * (shape.gpus // group.gpus), [shape]))
    same = {(s.model, s.gpu, s.gpus): s for s in shapes}
    for mine in sorted(group for group in count if group.model == worst):
        for other in sorted(group for group in count if group.model != worst and group.gpu != mine.gpu):
            gained = same.get((worst, other.gpu, other.gpus))
            given = same.get((other.model, mine.gpu, mine.gpus))
            if gained is not None and given is not None:
                found.append(exchanged(bare, [mine, other], [gained, given]))
    return [flows.split(replicas) for replicas in found]


def searched(flows: Flows, start: Groups, judge: Judge, light: bool) -> Groups:
    """The best plan that tabu search meets; a light one changes phases only."""
    now = best = start
    visited = deque([start], maxlen=TENURE)
    idle = 0
    for _ in range(ITERATIONS):
        around = {*flipped(flows, now)} if light else {*flipped(flows, now), *regrouped(flows, now, judge)}
        served = {plan: sorted(flows.served(plan).values()) for plan in around if plan not in visited}
        ranked = sorted(sorted(served), key=lambda plan: served[plan], reverse=True)
        looked = []
        for plan in ranked:
            if judge.fits(plan):
                looked.append(plan)
            if len(looked) == LOOKED:
                break
        if not looked or idle == PATIENCE:
            break
        now = max(looked, key=judge)
        visited.append(now)
        best, idle = (now, 0) if judge(now) > judge(best) else (best, idle + 1)
    return best


def trimmed(flows: Flows, plan: Groups, judge: Judge) -> Groups:
    """The plan without the groups that are missed least, as many as it takes to pack; what is left if none may go."""
    while not tools.fits(judge.there, plan):
        rest = [exchanged(plan, [group], []) for group in sorted(set(plan))]
        rest = [less for less in rest if judge.complete(less)]
        if not rest:
            break
        plan = max(rest, key=lambda less: sorted(flows.served(less).values()))
    return plan


def filled(flows: Flows, plan: Groups, judge: Judge) -> Groups:
    """The plan with groups on free GPUs, each where the least flow gains most per GPU; what stands is left alone."""
    shapes = sorted(set(flows.expected.shapes))
    while True:
        served = flows.served(plan)
        worst = min(sorted(served), key=lambda model: served[model], default="")
        both = any(group.model == worst and group.role is BOTH for group in plan)
        options = [[shape] if both else flows.apart(shape) for shape in shapes if shape.model == worst]
        gains = {}
        for group in (group for option in options for group in option):
            more = exchanged(plan, [], [group])
            if flows.rate(group) > 0 and tools.fits(judge.there, more):
                gain = flows.served(more)[worst] - served[worst]
                gains[more] = (gain / group.gpus, flows.rate(group) / group.gpus)
        if not gains:
            return plan
        plan = max(sorted(gains), key=lambda more: gains[more])


def plan(state: ServingState) -> Decision:
    load = tools.expected(state, windows=WINDOWS)
    most = {pool.name: pool.maximum for pool in state.pools if pool.minimum < pool.maximum}
    packed = tools.greedy(load, wanted=most, margin=MARGIN)
    needed = tools.capacity_for(load, packed)
    if state.objective != "cost_per_good":
        needed = most
    capacity, history = tools.hold(state.memory.get("needed", []), needed, SHRINK_PLANS)
    if capacity != needed:
        packed = tools.greedy(load, wanted=most, margin=MARGIN, paid=capacity)
    memory = {"profile": profile(load), "gpus": tools.gpus(state), "needed": history}
    changed = state.memory.get("gpus") != memory["gpus"] or any(
        capacity.get(pool.name, pool.requested) != pool.requested for pool in state.pools
    )

    flows, judge = Flows(load), Judge(load, capacity)
    present = tools.target(state).sorted()
    standing, both = present.replicas, packed.replicas
    kept = trimmed(flows, standing, judge)
    plans = [kept] if changed else [kept, searched(flows, flows.split(kept), judge, light=True)]
    if changed or max(judge.headroom(groups) for groups in plans) < MARGIN:
        plans.append(filled(flows, kept, judge))
        start = max((flows.split(kept), flows.split(both)), key=judge)
        plans += [both, searched(flows, start, judge, light=False)]

    def net(groups: Groups) -> float:
        """Worth over the horizon. During a transition counts what it keeps, if that is all or enough for the load."""
        move = judge.there.transition(ServingPlan(groups))
        seconds, left = min(move.seconds, HORIZON_S - 1), move.capacity_kept
        meanwhile = left * judge(kept) if left >= 1 or left * judge.headroom(kept) >= 1 else 0.0
        return judge(groups) * (HORIZON_S - seconds) + meanwhile * seconds

    best = max(plans, key=net)
    if best == standing:
        capacity = tools.capacity_for(load, ServingPlan(best))
    known = {both: packed.shares, standing: present.shares}.get(best, ())
    routes = flows.routes(best)
    routed = {entry.request_class for entry in routes}
    routes += tuple(entry for entry in known if entry.request_class not in routed)
    return Decision(ServingPlan(best, routes), capacity=capacity, memory=memory)
