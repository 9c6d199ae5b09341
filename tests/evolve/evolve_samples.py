"""Small policies that the tests of evolution recombine, and the requests they ask with."""

from __future__ import annotations

from autopoiesis.evolve.providers import CompletionRequest, Message
from autopoiesis.policy.source import PolicySource

THRESHOLD = PolicySource(
    "threshold",
    '''"""Re-solve when the mix has drifted."""
import math
from autopoiesis.policy import Decision, ReplicaView, Request, ServingState, tools

interface = 1

DRIFT = 0.3
WINDOWS = 4
LIMIT = 256.0


def measure(state: ServingState) -> float:
    """How far the load has moved."""
    before = [window.rate_rps for window in state.recent[-WINDOWS:]]
    if state.window is None or not before:
        return math.inf
    return abs(state.window.rate_rps / max(sum(before) / len(before), 1e-9) - 1.0)


def should_reschedule(state: ServingState) -> bool:
    return measure(state) > DRIFT


def plan(state: ServingState) -> Decision:
    return Decision(tools.milp(state), memory={"drift": measure(state)})


def route(request: Request, replicas: list[ReplicaView]) -> int:
    return min(replicas, key=lambda r: r.in_flight + r.in_flight_tokens / LIMIT).index
''',
)

PERIODIC = PolicySource(
    "periodic",
    '''"""Re-pack every few windows."""
from autopoiesis.policy import Decision, ServingState, tools

interface = 1

WINDOWS = 3
HEADROOM = 1.2
TABLE = {"a": 1, "b": 2}


def measure(state: ServingState) -> int:
    return int(state.now_s // state.window_s)


def should_reschedule(state: ServingState) -> bool:
    """Every few windows."""
    return measure(state) % WINDOWS == 0


def plan(state: ServingState) -> Decision:
    measure = HEADROOM * TABLE["b"]
    return Decision(tools.greedy(state, measure))


def adopt(memory: dict) -> dict:
    return {name: value for name, value in memory.items() if name in TABLE}
''',
)

AMORTISED = PolicySource(
    "amortised",
    '''"""Move when the gain pays."""
from autopoiesis.policy import Decision, Request, ServingState, tools

interface = 1

HORIZON_S: float = 300.0
SHARE = 0.5


def should_reschedule(state: ServingState) -> bool:
    target = plan(state).plan
    move = state.transition(target)
    gain = state.estimate(target).headroom - state.estimate(state.plan).headroom
    return gain * (HORIZON_S - move.seconds) > SHARE * move.seconds


def plan(state: ServingState) -> Decision:
    return Decision(tools.milp(state))


def priority(request: Request) -> float:
    return 1.0 / request.ttft_slo_s
''',
)

PARENTS = (THRESHOLD, PERIODIC, AMORTISED)


def asked(request_id: str = "r1", content: str = "improve", seed: int = 0) -> CompletionRequest:
    return CompletionRequest(request_id, (Message("user", content),), 0.7, 512, PARENTS, seed)
