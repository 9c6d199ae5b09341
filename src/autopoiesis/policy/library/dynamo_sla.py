"""Every interval, size each pool of replicas to the load by what one replica serves within the SLO, as lately measured.

The SLA planner of NVIDIA Dynamo (its documentation, "SLA-based planner"): with c_p and c_d the measured ÷ the expected
TTFT and ITL, and rates in requests/s,

    prefill replicas = ⌈rate · min(1, c_p) ÷ what one prefills within its SLO⌉
    decode replicas  = ⌈rate ÷ what one decodes at ITL = SLO ÷ c_d⌉

A prefill queue makes c_p large and says nothing of throughput, hence the min; cached prefixes make it small. At equal
prompt lengths requests and the tokens of the published formula stand to each other alike. Replicas that serve both
phases are sized by the larger need. If more is needed than can be had, pools get GPUs in proportion to their needs.

What the interface adds: a cluster of fixed size is one budget that is always spent in proportion to needs, and moved
only for a clear gain; expected latencies are those of all models together, so one pair of corrections serves them all.
"""

import math

from autopoiesis.policy import Decision, Replica, Role, ServingPlan, ServingState, tools

interface = 1

# Seconds between adjustments.
INTERVAL_S = 180.0
# Windows of the load predictor: 1 predicts the last one's load, more a moving average, or the last one's if larger.
WINDOWS = 3
# Multiple of the predicted load to provide for.
MARGIN = 1.0
# Corrections beyond this factor are taken for noise.
LARGEST_CORRECTION = 2.0
# On a fixed budget, least gain in what the worst-off pool has of its need for which GPUs change hands.
GAIN = 0.1

Pool = tuple[str, Role]


def should_reschedule(state: ServingState) -> bool:
    if state.window is None or state.moving is not None:
        return False
    adjusted_s: float = state.memory.get("adjusted_s", -math.inf)
    return state.now_s >= adjusted_s + INTERVAL_S


def elastic(state: ServingState) -> bool:
    return any(pool.minimum < pool.maximum for pool in state.pools)


def p90(percentiles: list[tuple[float, int]]) -> float:
    """90th percentile of a mixture, from those of its parts and their sizes, tails taken for exponential; 0 of nothing.

    It solves Σ n · 0.1^(t ÷ p90 of the part) = 0.1 · Σ n by bisection; parts with one percentile have it together.
    """
    seen = [(seconds, count) for seconds, count in percentiles if seconds > 0 and count > 0]
    if not seen:
        return 0.0
    low, high = min(seen)[0], max(seen)[0]
    total = sum(count for _, count in seen)
    for _ in range(20):
        middle = (low + high) / 2
        beyond = sum(count * 0.1 ** (middle / seconds) for seconds, count in seen)
        low, high = (middle, high) if beyond > 0.1 * total else (low, middle)
    return high


def correction(measured: float, expected: float) -> float:
    """Measured ÷ expected latency, within bounds; 1 where either is missing."""
    if not (measured > 0 and 0 < expected < math.inf):
        return 1.0
    return min(max(measured / expected, 1 / LARGEST_CORRECTION), LARGEST_CORRECTION)


def corrections(state: ServingState) -> tuple[float, float]:
    """c_p and c_d of the last window; 1 where the estimate is of a plan beyond saturation, which no profile covers."""
    expected = state.estimate(state.plan)
    if state.window is None or not expected.feasible or expected.headroom < 1:
        return 1.0, 1.0
    ttft_s = p90([(entry.ttft_p90_s, entry.completed) for entry in state.window.classes])
    tpot_s = p90([(entry.tpot_p90_s, entry.completed) for entry in state.window.classes])
    return correction(ttft_s, expected.ttft_p90_s), correction(tpot_s, expected.tpot_p90_s)


def decoded(unloaded_s: float, slo_s: float, c_d: float) -> float:
    """Throughput at ITL = SLO ÷ c_d, relative to that at the SLO.

    With ITL = t + k · batch and batch = throughput · ITL, throughput is (1 − t ÷ ITL) ÷ k; t is the unloaded ITL.
    """
    if not 0 < unloaded_s < slo_s:
        return 1 / c_d
    ratio = (slo_s - c_d * unloaded_s) / (slo_s - unloaded_s)
    return min(max(ratio, 1 / LARGEST_CORRECTION), LARGEST_CORRECTION)


def needs(state: ServingState, pools: list[Pool]) -> dict[Pool, float]:
    """By pool: the multiple of its model's load to be served, were the estimates right."""
    c_p, c_d = corrections(state)
    unloaded_s = tools.expected(state, margin=0.01).estimate(state.plan).tpot_p90_s
    need = {}
    for model, role in pools:
        prefill, decode = min(1.0, c_p), 1 / decoded(unloaded_s, state.slos[model].tpot_s, c_d)
        need[model, role] = MARGIN * {Role.PREFILL: prefill, Role.DECODE: decode}.get(role, max(prefill, decode))
    return need


def sized(
    load: ServingState, pool: Pool, rate: dict[Replica, float], present: list[Replica], need: float
) -> list[Replica]:
    """The replicas of a pool that serve its need; what there is, where it is not known what they serve."""
    own = [replica for replica in present if (replica.model, replica.role) == pool]
    main, least = next(iter(rate)), tools.minimum_replicas(load, pool[0])
    if rate[main] <= 0:  # what it serves is not known
        return own or [main] * least
    if rate[main] == math.inf:  # nothing to serve
        return (own or [main])[:1] * least
    return tools.sized(own, rate, need, least)


def plan(state: ServingState) -> Decision:
    load = tools.expected(state, windows=WINDOWS)
    present = list(tools.target(state).replicas)
    missing = [model for model in state.models if model not in {replica.model for replica in present}]
    pools = tools.units(state, present)
    need = needs(state, pools)
    rate_of = tools.choices(load, present)
    memory = {"adjusted_s": state.now_s}
    reach = tools.reach(state)
    replicas = present
    if elastic(state):
        replicas = [replica for pool in pools for replica in sized(load, pool, rate_of[pool], present, need[pool])]
    short = not tools.fits(load, replicas, reach)
    if short and state.announced:  # what is about to be lost serves until then, and is ordered again afterwards
        return Decision(plan=tools.target(state))
    if short or not elastic(state):
        replicas = tools.rationed(load, rate_of, need, reach, goal=math.inf)
        before, after = (min(tools.served(rate_of, need, some).values()) for some in (present, replicas))
        gain = after > (1 + GAIN) * before
        if not tools.fits(load, replicas, reach) or (tools.fits(load, present, reach) and not missing and not gain):
            return Decision(plan=tools.target(state), memory=memory)
    replicas = tools.in_turns(replicas)
    chosen = ServingPlan(tuple(replicas), tools.assign(load, replicas, reach))
    return Decision(plan=chosen, capacity=tools.capacity_for(load, chosen), memory=memory)
