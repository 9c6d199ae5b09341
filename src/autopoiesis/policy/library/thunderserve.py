"""Groups of unlike GPUs, each for prefill or for decode: tabu search over both, and max-flow between the phases.

The scheduler of ThunderServe (Jiang et al., MLSys 2025) with the flow formulation of HexGen-2 (Jiang, Yan and Yuan,
ICLR 2025). A group is a replica shape on GPUs of one kind; it prefills or decodes, or does both if its model has no
other. The load of a model flows through its prefill groups and on through its decode groups. Here a KV cache takes as
long between any two of them, so the largest flow is the lesser of what either side serves, and dividing each side by
what its groups serve attains it. Tabu search moves from plan to plan: flip the phase of a group, build other groups of
the same GPUs (split, merge, other parallelism, another model), swap GPUs of two kinds between models. Flow ranks the
neighbours, the estimate judges the first few; most throughput within SLO wins. When the load has shifted, phases and
routes alone are searched first (light re-scheduling), and groups only if that leaves too little room or the capacity
has changed.

Added here, since these papers take GPUs as given and always split the phases: elastic pools are sized by greedy packing
of replicas that serve both phases where money counts, and taken whole where not; that packing, or the plan in force,
stands where no split is worth more; and a transition has to pay within a horizon, as a group that changes its phase
starts anew here.
"""

from collections import Counter, defaultdict, deque
from functools import cache
from itertools import accumulate, islice, product

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


def profile(load: ServingState) -> dict[str, float]:
    """Prompt and output tokens per second of every model."""
    tokens: dict[str, float] = defaultdict(float)
    for entry in load.window.classes if load.window is not None else ():
        model = entry.request_class.rsplit("/", 1)[0]
        tokens[f"{model} prompt"] += entry.rate_rps * entry.input_mean
        tokens[f"{model} output"] += entry.rate_rps * entry.output_mean
    return dict(tokens)


def shift(then: dict[str, float], now: dict[str, float]) -> float:
    """The largest change of any model's tokens, relative to the larger value: 0 to 1."""
    pairs = [(then.get(key, 0.0), now.get(key, 0.0)) for key in {*then, *now}]
    return max((abs(value - was) / max(value, was, 1e-9) for was, value in pairs), default=0.0)


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


@cache
def apart(group: Replica) -> tuple[Replica, Replica]:
    """The group as prefill and as decode group."""
    return group.with_options(role=PREFILL), group.with_options(role=DECODE)


class Flows:
    """What groups serve of their models' load, each shape and phase asked for once."""

    def __init__(self, load: ServingState) -> None:
        self.expected = load
        self.loaded = sorted({label.rsplit("/", 1)[0] for label in tools.demand(load)})
        self.rates: dict[Replica, float] = {}

    def rate(self, group: Replica) -> float:
        """The multiple of its model's load that one such group serves in its phase."""
        if group not in self.rates:
            self.rates[group] = tools.rate(self.expected, group)
        return self.rates[group]

    def designated(self, groups: list[Replica]) -> list[Replica]:
        """The groups of one model with the phases of the largest flow.

        Those that prefill best relative to decoding prefill; how many, is tried. One alone does both.
        """
        if len(groups) < 2 or groups[0].model not in self.loaded:
            return [group.with_options(role=BOTH) for group in groups]
        worth = {pair: (self.rate(pair[0]), self.rate(pair[1])) for pair in {apart(group) for group in groups}}
        lean = {pair: -rates[0] / max(sum(rates), 1e-9) for pair, rates in worth.items()}
        pairs = sorted([apart(group) for group in groups], key=lambda pair: (lean[pair], pair[0]))
        prefill = list(accumulate(worth[pair][0] for pair in pairs))
        decode = list(accumulate(worth[pair][1] for pair in reversed(pairs)))
        first = max(range(1, len(pairs)), key=lambda count: min(prefill[count - 1], decode[-count - 1]))
        return [pair[0] for pair in pairs[:first]] + [pair[1] for pair in pairs[first:]]

    def split(self, replicas: Groups) -> Groups:
        """The plan with every model's phases designated."""
        models = sorted({replica.model for replica in replicas})
        return tuple(sorted(g for model in models for g in self.designated([r for r in replicas if r.model == model])))

    def sums(self, replicas: Groups) -> dict[tuple[str, Role], float]:
        """What the groups of each model with load serve in each phase, as a multiple of the load."""
        sums = dict.fromkeys(product(self.loaded, (BOTH, PREFILL, DECODE)), 0.0)
        for group, count in Counter(replicas).items():
            if group.model in self.loaded:
                sums[group.model, group.role] += count * self.rate(group)
        return sums

    def served(self, replicas: Groups) -> dict[str, float]:
        """The maximum flow by model with load, as a multiple of it."""
        sums = self.sums(replicas)
        return {model: sums[model, BOTH] + min(sums[model, PREFILL], sums[model, DECODE]) for model in self.loaded}

    def routes(self, replicas: Groups) -> tuple[ClassShares, ...]:
        """Shares that attain the maximum flow; none of models whose replicas do both phases.

        A share counts within its phase; half of the sum is given to either.
        """
        sums, shares = self.sums(replicas), []
        both = {replica.model for replica in replicas if replica.role is BOTH}
        for label in tools.demand(self.expected):
            model = label.rsplit("/", 1)[0]
            if model not in both and min(sums[model, PREFILL], sums[model, DECODE]) > 0:
                half = [self.rate(r) / sums[model, r.role] / 2 if r.model == model else 0.0 for r in replicas]
                shares.append(ClassShares(label, tuple(half)))
        return tuple(shares)


class Judge:
    """The worth of plans on capacity that is there or asked for, each estimated once."""

    def __init__(self, load: ServingState, capacity: dict[str, int]) -> None:
        self.there = tools.granted(load, capacity)
        self.known: dict[Groups, Estimate] = {}

    def complete(self, replicas: Groups) -> bool:
        """Whether every model has its minimum, a group for each phase counting as one."""
        count = Counter((replica.model, replica.role) for replica in replicas)
        having = {m: count[m, BOTH] + min(count[m, PREFILL], count[m, DECODE]) for m in self.there.models}
        return all(having[model] >= tools.minimum_replicas(self.there, model) for model in having)

    def fits(self, replicas: Groups) -> bool:
        return self.complete(replicas) and tools.fits(self.there, replicas)

    def headroom(self, replicas: Groups) -> float:
        return self.estimate(replicas).headroom if self.fits(replicas) else 0.0

    def estimate(self, replicas: Groups) -> Estimate:
        if replicas not in self.known:
            self.known[replicas] = self.there.estimate(ServingPlan(replicas))
        return self.known[replicas]

    def __call__(self, replicas: Groups) -> float:
        """Throughput within SLO up to the margin, then what the objective asks for; 0 is useless."""
        if not self.fits(replicas) or not (estimate := self.estimate(replicas)).feasible:
            return 0.0
        enough = estimate.headroom / MARGIN
        if self.there.objective == "total_time":
            return enough
        rest = 1 / (1 + estimate.delay_s) if self.there.objective == "delay" else estimate.goodput
        return min(enough, 1.0) + rest + ROOM * enough / (1 + enough)


def flipped(plan: Groups) -> list[Groups]:
    """The plan with the phase of one group changed; every phase that has a group keeps one."""
    roles = Counter((replica.model, replica.role) for replica in plan)
    return [
        exchanged(plan, [group], [apart(group)[group.role is PREFILL]])
        for group in sorted(set(plan))
        if group.role is not BOTH and roles[group.model, group.role] > 1
    ]


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
    for group, shape in product(count, shapes):
        if shape.gpu == group.gpu and shape != group and shape.model in (group.model, worst):
            out, new = max(shape.gpus // group.gpus, 1), max(group.gpus // shape.gpus, 1)
            if out <= count[group] and out * group.gpus >= shape.gpus:
                found.append(exchanged(bare, [group] * out, [shape] * new))
    same = {(s.model, s.gpu, s.gpus): s for s in shapes}
    for mine, other in product(count, repeat=2):
        if mine.model == worst != other.model and mine.gpu != other.gpu:
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
        around = {*flipped(now)} if light else {*flipped(now), *regrouped(flows, now, judge)}
        unseen = sorted(around.difference(visited))
        ranked = sorted(unseen, key=lambda plan: sorted(flows.served(plan).values()), reverse=True)
        looked = list(islice(filter(judge.fits, ranked), LOOKED))
        if not looked or idle == PATIENCE:
            break
        now = max(looked, key=judge)
        visited.append(now)
        best, idle = (now, 0) if judge(now) > judge(best) else (best, idle + 1)
    return best


def trimmed(flows: Flows, plan: Groups, judge: Judge) -> Groups:
    """The plan without the groups that are missed least, as many as it takes to pack; what is left if none may go."""
    while not tools.fits(judge.there, plan):
        rest = [less for group in sorted(set(plan)) if judge.complete(less := exchanged(plan, [group], []))]
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
        options = [g for s in shapes if s.model == worst for g in ((s,) if both else apart(s))]
        options = [g for g in sorted(options) if flows.rate(g) > 0 and tools.fits(judge.there, (*plan, g))]
        if not options:
            return plan
        gain = {g: (flows.served((*plan, g))[worst] - served[worst]) / g.gpus for g in options}
        plan = exchanged(plan, [], [max(options, key=lambda g: (gain[g], flows.rate(g) / g.gpus))])


def ordered(flows: Flows, plan: Groups) -> Groups:
    """The groups in turns between models and phases, whichever serves least next.

    Where GPUs are yet to come, the first groups of a plan are placed: these should be in balance, too.
    """
    have: dict[tuple[str, Role], float] = defaultdict(float)
    turns = []
    for group in plan:
        turns.append((have[group.model, group.role], group))
        have[group.model, group.role] += flows.rate(group)
    return tuple(group for _, group in sorted(turns))


def plan(state: ServingState) -> Decision:
    load = tools.expected(state, windows=WINDOWS)
    most = {pool.name: pool.maximum for pool in state.pools if pool.minimum < pool.maximum}
    packed = tools.greedy(load, wanted=most, margin=MARGIN)
    needed = tools.capacity_for(load, packed) if state.objective == "cost_per_good" else most
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
    known = {both: packed.shares, standing: present.shares}
    turns = best if best in known else ordered(flows, best)
    routes = flows.routes(turns)
    routed = {entry.request_class for entry in routes}
    routes += tuple(entry for entry in known.get(best, ()) if entry.request_class not in routed)
    return Decision(ServingPlan(turns, routes), capacity=capacity, memory=memory)
