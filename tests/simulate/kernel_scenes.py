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
    return Routing(compile_route(module), compile_priority(module))


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
        **_blocks(columns.get("blocks", [()] * n)),
    )


def _blocks(ids: list[tuple[int, ...]]) -> dict[str, NDArray[np.int64]]:
    count = np.array([len(own) for own in ids], dtype=np.int64)
    flat = np.array([block for own in ids for block in own], dtype=np.int64)
    return {"block_start": np.where(count > 0, np.cumsum(count) - count, 0), "block_count": count, "block_ids": flat}


def simulate(
    requests: Requests, *fleet: Replica, kv: int | None = None, noise: float = 0.0, text: str = "", **options: Any
) -> Simulation:
    """A simulation in which these replicas serve from the beginning, over so many links if that is given; nothing has
    happened yet."""
    links = options.pop("links", None)
    simulation = Simulation(requests, options.pop("models", MODELS), SLOS, COST, seed=7, **options)
    for i, replica in enumerate(fleet):
        start(simulation, replica, kv=kv, noise=noise, seed=i, link=None if links is None else i % links)
    if text:
        simulation.set_routing(routing(text))
    return simulation


def start(
    simulation: Simulation,
    replica: Replica,
    kv: int | None = None,
    noise: float = 0.0,
    seed: int = 0,
    link: int | None = None,
) -> int:
    """Start a replica, with a KV cache of `kv` tokens, in whole blocks, if that is given."""
    slot = simulation.start(replica, 1.0, noise, seed, link)
    if kv is not None:
        simulation.state.replicas[slot]["kv_blocks"] = kv // layout.BLOCK_TOKENS
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
    router: str = "balanced"


def tell(story: Story, *, exact: bool = False, slices: int = 1, check: bool = False) -> Simulation:
    """Run a story to its end, every stretch between two deeds in so many slices of time."""
    simulation = simulate(
        story.requests,
        *story.fleet,
        kv=story.kv,
        noise=story.noise,
        text=story.text,
        router=story.router,
        exact=exact,
        slots=2,
        links=2,
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
        _check_cache(simulation, slot, here)
        assert min(replica["waiting"], replica["decoding"], replica["prefilling"], replica["contexts"]) >= 0
        if not here.any():
            assert replica["kv_used"] == replica["contexts"] == 0
            assert replica["queue"] == -1
            # never, or now if it was given work and lost it within this instant
            assert state.ends[slot] in (layout.NEVER, scalars[layout.NOW])
    free = int(scalars[layout.FREE_NODE])
    unused = 0
    while free >= 0:
        assert state.nodes[free]["blocks"] == 0
        unused += 1
        free = int(state.nodes[free]["chained"])
    assert unused == np.count_nonzero(state.nodes["blocks"] == 0)
    hashed = [at for first in state.table.tolist() for at in _followed(state, first, "chained")]
    assert sorted(hashed) == np.flatnonzero((state.nodes["blocks"] > 0) & (state.nodes["segment"] >= 0)).tolist()


def idle_segments(simulation: Simulation, slot: int) -> list[tuple[int, int]]:
    """What a replica keeps without a sequence that holds it: segments and their blocks, what goes first before."""
    nodes = simulation.state.nodes
    idle = _followed(simulation.state, int(simulation.state.replicas[slot]["oldest"]), "newer")
    return list(zip(nodes["segment"][idle].tolist(), nodes["blocks"][idle].tolist(), strict=True))


def _followed(state: Any, at: int, name: str) -> list[int]:
    """Nodes from one on, along a link."""
    found = []
    while at >= 0:
        found.append(at)
        at = int(state.nodes[at][name])
    return found


def _check_cache(simulation: Simulation, slot: int, here: NDArray[np.bool_]) -> None:
    """The KV blocks in use are those that the sequences here hold, and with the idle ones they are not too many."""
    state = simulation.state
    replica, requests = state.replicas[slot], state.requests
    running = np.concatenate(
        [state.heap_row[slot, : replica["decoding"]], state.prefills[slot, : replica["prefilling"]]]
    )
    assert len(set(running.tolist())) == len(running)
    decoding = state.heap_row[slot, : replica["decoding"]]
    generated = requests["output"][decoding] - (requests["finish"][decoding] - replica["decode_step"])
    lengths = requests["input"][decoding] + generated - 1
    phases = np.bincount((replica["decode_step"] - lengths) % layout.BLOCK_TOKENS, minlength=layout.BLOCK_TOKENS)
    assert np.array_equal(phases, state.growth[slot])
    prompts = state.prefills[slot, : replica["prefilling"]]
    tokens = np.concatenate([lengths, requests["input"][prompts] + requests["generated"][prompts]])
    private = -(-tokens // layout.BLOCK_TOKENS) - requests["shared"][running]
    assert np.all(private >= 0)
    mine = np.flatnonzero((state.nodes["slot"] == slot) & (state.nodes["blocks"] > 0))
    held = mine[state.nodes["references"][mine] > 0]
    assert replica["kv_used"] == private.sum() + state.nodes["blocks"][held].sum()
    assert replica["kv_used"] + replica["kv_idle"] <= replica["kv_blocks"] or not simulation.slots.get(slot)
    pinned = [
        int(state.chains[i, 0])
        for row in running.tolist()
        for i in range(requests["chain"][row], requests["chain"][row] + requests["pinned"][row])
    ]
    references = dict(zip(state.nodes["segment"][held].tolist(), state.nodes["references"][held].tolist(), strict=True))
    assert references == {segment: pinned.count(segment) for segment in pinned}
    idle = _followed(state, int(replica["oldest"]), "newer")
    assert idle == _followed(state, int(replica["newest"]), "older")[::-1]
    assert sorted(idle) == sorted(set(mine.tolist()) - set(held.tolist()))
    assert replica["kv_idle"] == state.nodes["blocks"][idle].sum()
    apart = state.nodes["segment"][idle] < 0
    assert not np.any(apart[1:] & apart[:-1])
