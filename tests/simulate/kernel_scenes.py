"""Stories for the event kernel: requests, a fleet, what happens to it, a policy; and the books that must balance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.cluster import Hardware, catalog
from autopoiesis.cost import CostModel
from autopoiesis.plan import Replica, Role
from autopoiesis.policy.route import compile_priority, compile_route
from autopoiesis.simulate import layout
from autopoiesis.simulate.layout import SECOND
from autopoiesis.simulate.simulation import Routing, Simulation
from autopoiesis.workload import SLO, Requests

SMALL, LARGE = "llama-3.1-8b", "llama-3.1-70b"
MODELS = (SMALL,)
COST = CostModel(Hardware(catalog.gpus(), catalog.models()))
SLOS = {name: SLO() for name in catalog.models()}
MIXED = Replica(SMALL, "h100")
PREFILL = replace(MIXED, role=Role.PREFILL)
DECODE = replace(MIXED, role=Role.DECODE)
FOREVER = float("inf")

LEAST_LOADED = "def route(request, replicas):\n    return min(replicas, key=lambda r: r.in_flight).index\n"
RANDOM = "def route(request, replicas):\n    return floor(request.uniform1 * len(replicas))\n"
NEVER_PLACES = "def route(request, replicas):\n    return HOLD\n"
ONE_AT_A_TIME = """
def route(request, replicas):
    best = min(replicas, key=lambda r: r.in_flight)
    return HOLD if best.in_flight > 0.0 else best.index
"""
SHEDS = """
def route(request, replicas):
    best = min(replicas, key=lambda r: r.in_flight)
    if best.in_flight < 3.0:
        return best.index
    return SHED if request.waited_s > 0.2 else HOLD
"""
FICKLE = """
def route(request, replicas):
    if request.uniform1 < 0.3:
        return HOLD
    if request.uniform1 < 0.35:
        return SHED
    return floor(request.uniform2 * (len(replicas) + 1.0))
"""
SHORT_FIRST = "def priority(request):\n    return -request.prompt_tokens\n"
NO_PRIORITY = "def priority(request):\n    return request.prompt_tokens / 0.0 - request.prompt_tokens / 0.0\n"
TEXTS = ("", LEAST_LOADED, RANDOM, NEVER_PLACES, ONE_AT_A_TIME, SHEDS, FICKLE)
PRIORITIES = ("", SHORT_FIRST, NO_PRIORITY)


@cache
def routing(text: str) -> Routing:
    """The compiled functions of a policy with these definitions."""
    module = '"""Test."""\nfrom autopoiesis.policy import HOLD, SHED\n\ninterface = 1\n\n' + text
    route, priority = compile_route(module), compile_priority(module)
    return Routing(None if route is None else route.function, None if priority is None else priority.function)


def calls(*rows: tuple[float, int, int], **columns: Any) -> Requests:
    """Requests (arrival in seconds, input, output); further columns by name, single requests without them."""
    n = len(rows)
    arrival, given, wanted = (np.array([row[i] for row in rows]) for i in range(3)) if n else (np.zeros(0),) * 3
    return Requests(
        arrival_s=arrival.astype(np.float64),
        model=np.array(columns.get("model", [0] * n), dtype=np.int64),
        input_tokens=given.astype(np.int64),
        output_tokens=wanted.astype(np.int64),
        prefix_tokens=np.array(columns.get("prefix", [0] * n), dtype=np.int64),
        previous=np.array(columns.get("previous", [-1] * n), dtype=np.int64),
        think_s=np.array(columns.get("think", [0.0] * n), dtype=np.float64),
    )


def simulate(
    requests: Requests, *fleet: Replica, kv: int | None = None, noise: float = 0.0, text: str = "", **options: Any
) -> Simulation:
    """A simulation in which these replicas serve from the beginning; nothing has happened yet."""
    simulation = Simulation(requests, options.pop("models", MODELS), SLOS, COST, seed=7, **options)
    for i, replica in enumerate(fleet):
        start(simulation, replica, kv=kv, noise=noise, seed=i)
    if text:
        simulation.set_routing(routing(text))
    return simulation


def start(simulation: Simulation, replica: Replica, kv: int | None = None, noise: float = 0.0, seed: int = 0) -> int:
    """Start a replica, with a KV cache of `kv` tokens if that is given."""
    slot = simulation.start(replica, 1.0, noise, seed)
    if kv is not None:
        simulation.state.replicas[slot]["kv_tokens"] = kv
    return slot


@dataclass(frozen=True)
class Deed:
    """Something done to the replica that is `which`-th of those there are; `start` starts another one like it."""

    at_s: float
    what: str
    which: int


@dataclass(frozen=True)
class Story:
    requests: Requests
    fleet: tuple[Replica, ...]
    kv: int | None
    noise: float
    deeds: tuple[Deed, ...]
    text: str


def tell(story: Story, *, exact: bool = False, slices: int = 1, check: bool = False) -> Simulation:
    """Run a story to its end, every stretch between two deeds in so many slices of time."""
    simulation = simulate(
        story.requests, *story.fleet, kv=story.kv, noise=story.noise, text=story.text, exact=exact, slots=2
    )
    gone: list[Replica] = []
    for deed in sorted(story.deeds, key=lambda deed: deed.at_s):
        _let_pass(simulation, deed.at_s, slices, check)
        there = sorted(simulation.slots)
        if deed.what == "start":
            last = gone.pop() if gone else story.fleet[deed.which % len(story.fleet)]
            start(simulation, last, story.kv, story.noise, seed=100 + deed.which)
            continue
        if not there:
            continue
        slot = there[deed.which % len(there)]
        match deed.what:
            case "drain":
                if simulation.drain(slot):
                    gone.append(simulation.slots[slot])
                    simulation.stop(slot)
            case "undrain":
                simulation.undrain(slot)
            case "stop" | "migrate":
                gone.append(simulation.slots[slot])
                simulation.stop(slot, transfer=deed.what == "migrate")
        if check:
            check_books(simulation)
    _let_pass(simulation, FOREVER, slices, check)
    return simulation


def _let_pass(simulation: Simulation, until_s: float, slices: int, check: bool) -> None:
    last_s = 40.0 if until_s == FOREVER else until_s
    began_s = simulation.now_s
    for i in range(1, slices):
        _advance(simulation, began_s + (last_s - began_s) * i / slices)
        if check:
            check_books(simulation)
    _advance(simulation, until_s)
    if check:
        check_books(simulation)


def _advance(simulation: Simulation, until_s: float) -> None:
    while simulation.advance(until_s) == layout.DRAINED:
        assert simulation.in_flight(simulation.drained_slot) == 0
        simulation.stop(simulation.drained_slot)


def results(simulation: Simulation) -> NDArray[Any]:
    """What can be said of each request afterwards."""
    names = ["arrival", "first", "done", "status", "reason", "slot", "sequence"]
    return np.array(simulation.state.requests[names])


def seconds(simulation: Simulation, name: str) -> NDArray[np.float64]:
    """A column of times, relative to each request's arrival."""
    requests = simulation.state.requests
    return np.asarray((requests[name] - requests["arrival"]) / SECOND)


def check_books(simulation: Simulation) -> None:
    """Every request is in one place, and what a replica counts is what it has."""
    state = simulation.state
    requests, scalars = state.requests, state.scalars
    n = len(requests)
    size = int(scalars[layout.PENDING])
    assert size <= len(state.pending_row)
    assert np.all(state.pending_time[:size] >= scalars[layout.NOW])
    entries = np.bincount(state.pending_row[:size], minlength=2 * n)
    assert np.array_equal(entries[n:], requests["timed"])
    unfinished = requests["done"] < 0
    previous = requests["previous"]
    to_come = np.zeros(n, dtype=np.int64)
    to_come[state.order[scalars[layout.NEXT_ORDER] : scalars[layout.ORDER_END]]] = 1
    follows = (requests["arrival"] == layout.NEVER) & (requests["done"][previous] < 0)
    places = to_come + entries[:n] + (requests["held"] == 1) + (requests["slot"] >= 0) + follows
    assert np.all(places[unfinished] == 1)
    assert np.all((to_come + entries[:n] + requests["held"])[~unfinished] == 0)
    assert int(scalars[layout.UNFINISHED]) == unfinished.sum() == n - int(scalars[layout.FINISHED])
    assert int(scalars[layout.HELD]) == (requests["held"] == 1).sum()
    assert len(set(state.finished[: scalars[layout.FINISHED]])) == int(scalars[layout.FINISHED])
    for slot in range(len(state.replicas)):
        replica = state.replicas[slot]
        here = unfinished & (requests["slot"] == slot)
        assert replica["in_flight"] == here.sum()
        assert replica["in_flight_tokens"] == requests["input"][here].sum()
        assert replica["waiting"] + replica["decoding"] + replica["prefilling"] == here.sum()
        assert 0 <= replica["kv_used"] <= max(replica["kv_tokens"], 0)
        assert min(replica["waiting"], replica["decoding"], replica["prefilling"], replica["contexts"]) >= 0
        if not here.any():
            assert replica["kv_used"] == replica["contexts"] == 0
            assert replica["queue"] == -1
            # never, or now if it was given work and lost it within this instant
            assert state.ends[slot] in (layout.NEVER, scalars[layout.NOW])
