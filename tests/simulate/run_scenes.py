"""Small clusters and loads, policies that answer in process and keep what they were shown, and runs over them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np

from autopoiesis.cluster import Cluster, Hardware, Pool, SpotLosses, Storage, catalog
from autopoiesis.cost import CostModel, StartTimes
from autopoiesis.loop.control import ControlLoop
from autopoiesis.loop.log import EventLog
from autopoiesis.plan import Capacity, ClassShares, Replica, Role, ServingPlan
from autopoiesis.policy.host import Answer
from autopoiesis.policy.interface import Decision, Move, Observation
from autopoiesis.policy.meter import Charge
from autopoiesis.policy.source import PolicySource
from autopoiesis.simulate.hosted import routing_of
from autopoiesis.simulate.run import Outcome, Point, Run, with_mode_objective
from autopoiesis.simulate.scenario import NOTHING_HIDDEN, Hidden, Mode, Scenario, draw_hidden
from autopoiesis.simulate.simulation import Routing
from autopoiesis.simulate.views import seen_requests
from autopoiesis.workload import SLO, Requests, single_requests
from autopoiesis.workload.generate import generate_chat

MODEL = "llama-3.1-8b"
HARDWARE = Hardware(catalog.gpus(), catalog.models())
DRIVES_ONLY = Storage(page_cache_bytes=0, joining="drive")
"""Every start reads its weights from its node's drive, so that a lone one takes what `CostModel.start_s` says."""
COST = CostModel(HARDWARE, start=StartTimes(storage={"h100": DRIVES_ONLY, "a100": DRIVES_ONLY}))
LINE_S = 0.1e-6

FIXED = Cluster(
    "fixed", (Pool("h100", "h100", gpus_per_node=2, minimum=4, maximum=4, price_per_hour=2.0),), HARDWARE.gpus
)
ELASTIC = Cluster(
    "elastic",
    (Pool("a100", "a100", 2, minimum=2, maximum=12, price_per_hour=1.0, start_s_p50=15.0, start_s_p90=30.0),),
    HARDWARE.gpus,
)
SPOT = Cluster(
    "spot",
    (replace(ELASTIC.pools[0], spot=SpotLosses(losses_per_hour=60, nodes_per_loss=1.5, notice_s=40, recovery_s=30)),),
    HARDWARE.gpus,
)

H = Replica(MODEL, "h100")
A = Replica(MODEL, "a100")
A2 = replace(A, tensor_parallel=2)


def plan_of(*replicas: Replica) -> ServingPlan:
    return ServingPlan(replicas)


def chat(seed: int = 0, seconds: float = 300.0, rate_rps: float = 3.0, **options: Any) -> Requests:
    """A made-up chat load with conversations."""
    return generate_chat(np.random.default_rng([seed, 77]), seconds / 3600, rate_rps, **options)


def every(seconds: float, count: int, input_tokens: int = 500, output_tokens: int = 100) -> Requests:
    """Equal requests at equal distances, the first at 0."""
    arrival_s = np.arange(count, dtype=np.float64) * np.float64(seconds)
    return single_requests(arrival_s, np.full(count, input_tokens, np.int64), np.full(count, output_tokens, np.int64))


def scenario_of(cluster: Cluster, requests: Requests, hidden: Hidden | None = None, **options: Any) -> Scenario:
    """A scenario with the world hidden by seed 1, unless another is given."""
    world = draw_hidden(cluster, 1) if hidden is None else hidden
    return Scenario(cluster, (MODEL,), requests, {MODEL: SLO()}, COST, world, **options)


def plain(cluster: Cluster, requests: Requests, **options: Any) -> Scenario:
    """A scenario in which nothing is hidden, and nothing is lost that is not named."""
    losses = options.pop("losses", ())
    return scenario_of(cluster, requests, replace(NOTHING_HIDDEN, losses=losses), **options)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a policy was asked, and what it was shown."""

    now_s: float
    question: str
    observation: bytes
    belief: bytes


def never(observation: Observation) -> bool:
    return False


def always(observation: Observation) -> bool:
    return True


def stay(observation: Observation) -> Decision:
    return Decision(observation.plan)


@dataclass
class InProcess:
    """A policy without a host. `trigger` and `planner` may raise; each call is charged as many seconds as given."""

    trigger_function: Callable[[Observation], bool] = never
    planner: Callable[[Observation], Decision] = stay
    trigger_s: float = 0.001
    plan_s: float = 1.0
    routing: Routing = field(default_factory=Routing)
    source: PolicySource = field(default_factory=lambda: PolicySource("in process", '"""In process."""\n'))
    failures: int = 0
    last_failure: str | None = None
    adopted: dict[str, Any] = field(default_factory=dict)
    shown: list[Shown] = field(default_factory=list)

    def trigger(self, observation: Observation, belief: bytes) -> Answer[bool]:
        return self._answer("trigger", self.trigger_function, self.trigger_s, observation, belief)

    def plan(self, observation: Observation, belief: bytes) -> Answer[Decision]:
        return self._answer("plan", self.planner, self.plan_s, observation, belief)

    def adopt(self, memory: dict[str, Any]) -> dict[str, Any]:
        return dict(self.adopted)

    def _answer(
        self, question: str, ask: Callable[[Observation], Any], seconds: float, observation: Observation, belief: bytes
    ) -> Answer[Any]:
        self.shown.append(Shown(observation.now_s, question, msgspec.msgpack.encode(observation), belief))
        charge = Charge(lines=round(seconds / LINE_S))
        try:
            return Answer(ask(observation), None, charge, 0.0, 0.0)
        except Exception as error:
            self.failures += 1
            self.last_failure = str(error)
            return Answer(None, str(error), charge, 0.0, 0.0)


def with_route(text: str) -> Routing:
    """The routing of a policy that is nothing but a `route`."""
    return routing_of(text)


def rng_of(observation: Observation) -> np.random.Generator:
    """Draws that depend on every byte of what is shown, so that a leak of anything changes what is decided."""
    return np.random.default_rng(list(hashlib.sha256(msgspec.msgpack.encode(observation)).digest()))


def random_decision(observation: Observation, wildness: float = 0.0) -> Decision:
    """A decision drawn from all that is shown; a share `wildness` of them is nonsense."""
    rng = rng_of(observation)
    pool = observation.pools[int(rng.integers(len(observation.pools)))]
    shapes = [shape for shape in observation.shapes if shape.gpu == pool.gpu and shape.tensor_parallel <= 2]
    room = int(rng.integers(1, max(pool.available, pool.requested, 1) + 1))
    replicas: list[Replica] = []
    while room > 0 and len(replicas) < 12:
        shape = replace(shapes[int(rng.integers(len(shapes)))], max_sequences=int(rng.choice([16, 256])))
        replicas.append(shape)
        room -= shape.gpus
    if len(replicas) >= 2 and rng.random() < 0.2:
        replicas[:2] = [replace(replicas[0], role=Role.PREFILL), replace(replicas[1], role=Role.DECODE)]
    fractions = rng.dirichlet(np.ones(len(replicas)))
    shares = (ClassShares(f"{MODEL}/<2048", tuple(fractions.tolist())),) if rng.random() < 0.5 else ()
    if rng.random() < wildness:
        replicas = [replace(replica, batched_tokens=int(rng.integers(-5, 100))) for replica in replicas]
    if rng.random() < wildness:
        replicas = replicas * 5
    if rng.random() < wildness:
        replicas = []
    capacity = {pool.name: int(rng.integers(0, pool.maximum + 3))} if rng.random() < 0.7 else {}
    if rng.random() < wildness:
        capacity = {"nowhere": 4}
    move = Move(
        drain_cap_s=float(rng.choice([0.0, 2.0, 30.0])),
        migrate=bool(rng.random() < 0.5),
        capacity_kept=float(rng.choice([0.0, 0.5, 1.0])),
    )
    memory = {"calls": observation.memory.get("calls", 0) + 1}
    return Decision(ServingPlan(tuple(replicas), shares), capacity, move, memory)


def restless(wildness: float = 0.0, plan_s: float = 7.0) -> InProcess:
    """Plans anew at most points, at random, as far as everything shown decides it."""
    return InProcess(
        lambda observation: bool(rng_of(observation).random() < 0.8),
        lambda observation: random_decision(observation, wildness),
        plan_s=plan_s,
    )


@dataclass
class Ran:
    """A run that has ended."""

    run: Run
    policy: InProcess
    outcome: Outcome
    log: EventLog
    points: dict[int, float]
    """When the monitoring points were, by index."""
    known: dict[int, str]
    """What could be replayed at each of them: the digest of every request seen so far, and of the belief."""

    def lines_until(self, now_s: float) -> list[str]:
        return [line for record, line in zip(self.log.records, self.log.lines(), strict=True) if record.now_s <= now_s]

    def shown_until(self, now_s: float) -> list[Shown]:
        return [shown for shown in self.policy.shown if shown.now_s <= now_s]

    @property
    def requests(self) -> Any:
        return self.run.world.simulation.state.requests

    def commands(self, kind: type[Any]) -> list[Any]:
        return [command for record in self.log.records for command in record.commands if isinstance(command, kind)]

    def events(self, kind: type[Any]) -> list[Any]:
        return [record.event for record in self.log.records if isinstance(record.event, kind)]


def run_of(
    scenario: Scenario,
    policy: InProcess,
    plan: ServingPlan,
    mode: Mode = Mode.OPERATOR,
    capacity: Capacity | None = None,
    swaps: dict[int, InProcess] | None = None,
    with_known: bool = False,
    **options: Any,
) -> Ran:
    """Serve the scenario to its end. `swaps` maps a monitoring point's index to the policy that takes over there;
    `with_known` fills `Ran.known`."""
    log = EventLog()
    points: dict[int, float] = {}
    known: dict[int, str] = {}

    def on_point(point: Point) -> InProcess | None:
        points[point.index] = point.now_s
        if with_known:
            seen = seen_requests(point.run.world.simulation, np.concatenate(point.run.book.rows), 0.0)
            columns = [getattr(seen, name).tobytes() for name in (*Requests.COLUMNS, "block_ids")]
            known[point.index] = hashlib.sha256(b"".join([*columns, point.run.belief.cost.encode()])).hexdigest()
        return (swaps or {}).get(point.index)

    run = Run(
        with_mode_objective(scenario, mode),
        policy,
        plan,
        capacity or Capacity.at_minimum(scenario.cluster),
        mode,
        on_point=on_point,
        log=log,
        **options,
    )
    return Ran(run, policy, run.finish(), log, points, known)


def fresh_loop(scenario: Scenario, plan: ServingPlan, capacity: Capacity | None = None) -> ControlLoop:
    """A loop that begins as a run's does."""
    return ControlLoop(
        scenario.cluster,
        scenario.envelope,
        scenario.models,
        scenario.shapes,
        plan,
        capacity or Capacity.at_minimum(scenario.cluster),
        scenario.planner_deadline_s,
    )
