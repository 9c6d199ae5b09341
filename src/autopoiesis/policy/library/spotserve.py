"""Re-plan when GPUs come or go or load changes: the least latency that keeps up, or else the most throughput.

SpotServe (Miao et al., ASPLOS 2024). A configuration is a data, pipeline and tensor parallelism and a batch size. Of
those whose throughput reaches the arrival rate the one with least latency is taken, of similar ones the cheapest, then
the one that keeps most of what runs; where none reaches it, the one with most throughput. Since engines start afresh
here, the one that keeps most comes first where too little would serve on the way. Requests in flight move with their KV
caches. With several models a configuration is one for each, replicas going to whoever serves the least
multiple of its load, and with several GPU kinds the same parallelism on each, best value first (per dollar, or on a
fixed cluster relative to what the models serve there); the exact optimum of throughput is always a candidate.

A pool that has not delivered within its 90th percentile of start times counts with what it has: the need goes to the
others, on demand among them, while the order stands. Spare spot nodes are held against preemption; they serve as well.
Doomed nodes serve as long as their grace period allows, while those that replace them are asked for at once.
"""

import itertools
import math
from collections import Counter

from autopoiesis.policy import Decision, Move, Replica, ServingPlan, ServingState, tools

interface = 1

# Windows over which load is averaged; the last one counts alone where it is higher.
WINDOWS = 5
# Multiple of that load to size elastic pools for.
MARGIN = 1.25
# Relative change of headroom since the last plan that asks for another one; so does load that overtakes the plan.
CHANGE = 0.25
# Batch sizes: sequences that a replica serves at once.
BATCHES = (64, 256)
# Relative difference below which latencies count as similar (a change of shape costs a restart) …
SIMILAR = 1.0
# … and throughputs, also that from the margin.
CLOSE = 0.1
# What has to be left of a grace period for draining replicas.
GRACE_S = 30.0
# Nodes of the cheapest spot pool in use beyond what is needed; the paper holds two.
SPARES = 1


def dry(state: ServingState) -> list[str]:
    """Pools that owe GPUs for longer than their starts take."""
    asked = state.memory.get("asked", {})
    return [
        pool.name
        for pool in state.pools
        if pool.requested > pool.available and state.now_s - asked.get(pool.name, state.now_s) > pool.start_s_p90
    ]


def urgent(state: ServingState) -> bool:
    """Whether a node that is announced to go will be gone, or as good as gone, by the next monitoring point."""
    return any(change.at_s < state.now_s + state.window_s + GRACE_S for change in state.announced)


def supply(state: ServingState) -> list[list[object]]:
    """What a preemption, an acquisition or a notice of either changes."""
    present: list[list[object]] = [[pool.name, pool.available] for pool in state.pools]
    return present + [[change.pool, change.gpus, urgent(state)] for change in state.announced]


def should_reschedule(state: ServingState) -> bool:
    if state.window is None:
        return False
    memory = state.memory
    if memory.get("supply") != supply(state) or memory["dry"] != dry(state):
        return True
    if state.moving is not None:
        return False
    planned: float = memory["headroom"]
    headroom = tools.expected(state, windows=WINDOWS).estimate(tools.target(state)).headroom
    overtaken = headroom < 1 <= planned
    return overtaken or headroom * (1 + CHANGE) < planned or headroom > (1 + CHANGE) * planned


class Market:
    """What there is to build from: GPUs paid for anyway, GPUs within reach, and what replicas serve for their price."""

    def __init__(self, load: ServingState, limits: dict[str, int], present: ServingPlan) -> None:
        self.state = load
        self.limits = limits
        self.least = {pool.name: min(pool.minimum, limits[pool.name]) for pool in load.pools}
        self.paid, self.within = tools.gpus(load, self.least), tools.gpus(load, limits)
        self.node = {pool.gpu: pool.gpus_per_node for pool in load.pools}
        self.price = {gpu: min(p.price_per_hour for p in load.pools if p.gpu == gpu) for gpu in self.paid}
        self.elastic = self.paid != self.within
        self.present = Counter(present.replicas)
        self.rate_of = tools.rates(load)
        busy = {request_class.rsplit("/", 1)[0] for request_class in tools.demand(load)}
        self.loaded = sorted(m for m in busy if any(r > 0 for s, r in self.rate_of.items() if s.model == m))
        self.worth = {gpu: self.price[gpu] if self.elastic else self.served_per_gpu(gpu) for gpu in self.price}

    def served_per_gpu(self, gpu: str) -> float:
        """What a GPU of a kind serves best of each model's load, summed: what it is worth where money is spent."""
        return sum(
            max((self.rate_of[s] / s.gpus for s in self.state.shapes if s.gpu == gpu and s.model == model), default=0.0)
            for model in self.loaded
        )

    def value(self, shape: Replica) -> float:
        return self.rate_of[shape] / shape.gpus / max(self.worth[shape.gpu], 1e-9)

    def options(self, model: str) -> list[list[Replica]]:
        """A model's parallelisms in its present batch size: for each, the shapes of all kinds, best value first."""
        shapes = [s for s in self.state.shapes if s.model == model and self.within.get(s.gpu, 0) >= s.gpus]
        if model not in self.loaded:
            return [sorted(shapes, key=lambda s: (s.gpus, self.price[s.gpu], s))]
        batches = [r.max_sequences for r in self.present.elements() if r.model == model]
        batch = max(batches, key=batches.count, default=BATCHES[-1])
        shapes = [s.with_options(max_sequences=batch) for s in shapes]
        for shape in shapes:
            if shape not in self.rate_of:
                self.rate_of[shape] = tools.rate(self.state, shape)
        chosen = []
        for degree in sorted({(s.tensor_parallel, s.pipeline_parallel) for s in shapes}):
            # A kind on which the model does not fit at this degree takes the next larger one that does.
            by_kind: dict[str, Replica] = {}
            for shape in sorted(shapes, key=lambda s: (s.tensor_parallel, s.pipeline_parallel)):
                if (shape.tensor_parallel, shape.pipeline_parallel) >= degree and self.rate_of[shape] > 0:
                    by_kind.setdefault(shape.gpu, shape)
            order = sorted(by_kind.values(), key=lambda s: (-self.value(s), s))
            if order and order not in chosen:
                chosen.append(order)
        return chosen or [sorted(shapes, key=lambda s: (s.gpus, s))]

    def filled(
        self, replicas: list[Replica], order: dict[str, list[Replica]], gpus: dict[str, int], goal: float
    ) -> list[Replica]:
        """The replicas and more, the model with the least multiple first, until all have the goal or nothing fits."""
        replicas = list(replicas)
        free = dict(gpus)
        for replica in replicas:
            free[replica.gpu] -= replica.gpus
        have = tools.multiples(replicas, self.rate_of, self.loaded)
        short = [model for model in self.loaded if have[model] < goal]
        while short:
            model = min(short, key=lambda name: (have[name], name))
            shape = next((s for s in order[model] if s.gpus <= free[s.gpu]), None)
            if shape is None:
                short.remove(model)
                continue
            replicas.append(shape)
            free[shape.gpu] -= shape.gpus
            have[model] += self.rate_of[shape]
            if have[model] >= goal:
                short.remove(model)
        return replicas

    def configured(self, order: dict[str, list[Replica]]) -> list[Replica] | None:
        """The replicas of one configuration; None where not every model's minimum fits."""
        free = dict(self.within)
        replicas = []
        for model in self.state.models:
            for _ in range(tools.minimum_replicas(self.state, model)):
                shape = next((s for s in order[model] if s.gpus <= free[s.gpu]), None)
                if shape is None:
                    return None
                free[shape.gpu] -= shape.gpus
                replicas.append(shape)
        least = len(replicas)
        for gpus, goal in ((self.paid, MARGIN), (self.within, MARGIN), (self.paid, math.inf)):
            replicas = self.filled(replicas, order, gpus, goal)
        while not tools.fits(self.state, replicas, self.limits):
            if len(replicas) == least:
                return None
            replicas.pop()
        return replicas

    def cost(self, replicas: tuple[Replica, ...]) -> float:
        """US dollars an hour for whole nodes beyond those paid for anyway."""
        money = 0.0
        for gpu, node in self.node.items():
            used = sum(replica.gpus for replica in replicas if replica.gpu == gpu)
            money += math.ceil(max(used - self.paid[gpu], 0) / node) * node * self.price[gpu]
        return money

    def best(self, plans: list[ServingPlan], gently: bool = False) -> ServingPlan:
        """The choice of SpotServe among these plans; gently, of those that keep up the one that keeps most replicas."""
        there = tools.granted(self.state, self.limits)
        known = [(plan, there.estimate(plan)) for plan in plans]
        enough = [entry for entry in known if entry[1].headroom >= (1 - CLOSE) * MARGIN]
        if enough:
            least = min(estimate.delay_s for _, estimate in enough)
            similar = [plan for plan, estimate in enough if gently or estimate.delay_s <= (1 + SIMILAR) * least]
        else:
            most = max(estimate.headroom for _, estimate in known)
            similar = [plan for plan, estimate in known if estimate.headroom >= (1 - CLOSE) * most]
        if gently:
            return min(similar, key=lambda plan: (-self.kept(plan.replicas), self.cost(plan.replicas)))
        return min(similar, key=lambda plan: (self.cost(plan.replicas), -self.kept(plan.replicas)))

    def complete(self, plan: ServingPlan) -> bool:
        """Whether every model has its minimum of replicas."""
        counts = Counter(replica.model for replica in plan.replicas)
        return all(counts[model] >= tools.minimum_replicas(self.state, model) for model in self.state.models)

    def kept(self, replicas: tuple[Replica, ...]) -> int:
        """GPUs whose replicas run now and would go on."""
        return sum(replica.gpus * count for replica, count in (Counter(replicas) & self.present).items())


def batched(market: Market, chosen: ServingPlan) -> list[ServingPlan]:
    """The plan, and with each other batch size for one model."""
    plans = [chosen]
    for model, batch in itertools.product(market.loaded, BATCHES):
        replicas = [r.with_options(max_sequences=batch) if r.model == model else r for r in chosen.replicas]
        plans.append(ServingPlan(tuple(sorted(replicas))))
    return list(dict.fromkeys(plans))


def asked_for(market: Market, needed: dict[str, int], out: list[str]) -> dict[str, int]:
    """Capacity: what is needed, what replaces doomed nodes, the spare nodes, and a node more of each dry pool."""
    capacity = dict(needed)
    pools = sorted(market.state.pools, key=lambda pool: (pool.price_per_hour, pool.name))
    spare = SPARES
    for pool in pools:
        if pool.name not in needed:
            continue
        losses = [max(pool.available - change.gpus, 0) for change in market.state.announced if change.pool == pool.name]
        more = max(losses, default=0)
        if pool.name in out:
            capacity[pool.name] = max(needed[pool.name], pool.available)
            more += pool.gpus_per_node
        elif pool.spot and needed[pool.name] > pool.minimum:
            more += spare * pool.gpus_per_node
            spare = 0
        capacity[pool.name] = min(capacity[pool.name] + more, pool.maximum)
    return capacity


def candidates(market: Market, present: ServingPlan) -> list[ServingPlan]:
    """A plan for every configuration, the one with most throughput, and what runs unless it costs more than they do."""
    options = [market.options(model) for model in market.state.models]
    orders = [dict(zip(market.state.models, choice, strict=True)) for choice in itertools.product(*options)]
    found = [replicas for order in orders if (replicas := market.configured(order)) is not None]
    if not found:
        return []
    plans = [ServingPlan(tuple(sorted(replicas))) for replicas in found]
    plans.append(tools.milp(market.state, wanted=market.limits, margin=MARGIN))
    dearest = max(market.cost(plan.replicas) for plan in plans)
    stands = market.complete(present) and tools.fits(market.state, present.replicas, market.limits)
    if stands and market.cost(present.replicas) <= dearest:
        plans.append(present)
    return list(dict.fromkeys(plans))


def disrupts(load: ServingState, present: ServingPlan, chosen: ServingPlan) -> bool:
    """Whether what is left of the capacity on the way to the chosen plan is less than the load needs."""
    return load.estimate(present).headroom * load.transition(chosen).capacity_kept < 1


def plan(state: ServingState) -> Decision:
    load = tools.expected(state, windows=WINDOWS)
    out, present = dry(state), tools.target(state)
    reach = tools.reach(state)
    limits = {p.name: min(reach[p.name], p.available) if p.name in out else reach[p.name] for p in state.pools}
    market = Market(load, limits, present)
    plans = candidates(market, present)
    if not plans and limits != reach:
        # Too little is left for the minima: there is nothing to do but to wait for what is owed.
        market = Market(load, reach, present)
        plans = candidates(market, present)
    memory = {"supply": supply(state), "dry": out, "asked": {}, "headroom": load.estimate(present).headroom}
    if not plans:
        return Decision(plan=present, memory=memory)
    chosen = market.best(batched(market, market.best(plans)))
    if disrupts(load, present, chosen):
        chosen = market.best(plans, gently=True)
    capacity = asked_for(market, tools.capacity_for(load, chosen, market.limits), out)
    wanted = {name: min(capacity.get(name, gpus), gpus) for name, gpus in market.limits.items()}
    order = {model: sorted({r for r in chosen.replicas if r.model == model}) for model in state.models}
    replicas = tuple(sorted(market.filled(list(chosen.replicas), order, tools.gpus(load, wanted), math.inf)))
    early = len(state.announced) > 0 and not urgent(state) and market.complete(present)
    if early or present.same_replicas(ServingPlan(replicas)):
        chosen = present
    elif tools.fits(load, replicas, wanted):
        chosen = ServingPlan(replicas, tools.assign(load, replicas, wanted))
    asked = state.memory.get("asked", {})
    available = {pool.name: pool.available for pool in state.pools}
    memory["asked"] = {name: asked.get(name, state.now_s) for name, gpus in capacity.items() if gpus > available[name]}
    memory["headroom"] = tools.granted(load, wanted).estimate(chosen).headroom
    return Decision(plan=chosen, capacity=capacity, move=Move(migrate=True), memory=memory)
