"""Replicas coming up, side by side: the stages of each, and the bandwidth that their loads share.

The simulated world and the estimate of a transition run the same `Starts`, the one with what is hidden in `slow`, the
other with the belief.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from autopoiesis.cost.loading import Flow, Link, Loads
from autopoiesis.cost.model import CostModel
from autopoiesis.cost.start import GPUs, Source, Weights, nodes_of


class Stage(str, Enum):
    """What a replica that comes up does."""

    PROCESS = "process"
    LOADING = "loading"
    WARMING = "warming"
    """Capturing graphs, then warming up."""


class Up(NamedTuple):
    """A replica that serves from now on."""

    id: int
    seconds: float
    """Since its start."""
    expected_s: float
    """By the data sheet, from the same sources and with the same shares of what it shared."""


@dataclass(slots=True)
class _Start:
    model: str
    weight_bytes: float
    gpu: str
    gpus: GPUs
    slow: float
    began_s: float
    stage: Stage = Stage.PROCESS
    expected_load_s: float = 0.0
    """How long its load should have taken, once it is over."""


@dataclass(slots=True)
class _Part:
    """What one node reads for one replica."""

    node: str
    size: float
    """Bytes, times the replica's slowness."""
    since_s: float
    source: Source | None = None
    """None while it waits for `fetcher`."""
    peer: int | None = None
    fetcher: Flow | None = None
    """Whose fetch from the object store brings the weights to this node."""
    expected_s: float = 0.0
    """Of all but what it does since `since_s`."""


class Starts:
    """Every start under way. Time is an argument: the caller asks for `due_s` and comes to `advance` then."""

    def __init__(self, cost: CostModel) -> None:
        self._cost = cost
        self._times = cost.start
        self._weights = Weights(cost.start)
        self._loads = Loads(self._bandwidth)
        self._starts: dict[int, _Start] = {}
        self._timers: list[tuple[float, int, Stage]] = []
        """When a replica will be done with that stage; those of replicas that ended stay until they are due."""
        self._parts: dict[Flow, _Part] = {}
        """Every load that has not ended."""
        self._gpu_of: dict[str, str] = {}
        """Node → GPU kind."""

    # --- what happens -------------------------------------------------------------------------------------------

    def joined(self, node: str) -> None:
        """A node has come; its drive and host memory have what a new node has."""
        self._weights.joined(node)

    def serves(self, id: int, model: str, gpu: str, gpus: GPUs) -> None:
        """A replica serves, whether or not it started here."""
        self._know_nodes(gpu, gpus)
        for node in nodes_of(gpus):
            self._weights.read(node, model, self._cost.weight_bytes(model))
        self._weights.serves(id, model, gpus)

    def begin(self, id: int, model: str, gpu: str, gpus: GPUs, now_s: float, slow: float = 1.0) -> None:
        """A replica starts. `slow`, with the cost model's own factor, multiplies the time of every stage; a load that
        is slow by itself occupies what it shares for as much longer."""
        self._know_nodes(gpu, gpus)
        slow *= self._cost.start_slow
        self._starts[id] = _Start(model, self._cost.weight_bytes(model), gpu, gpus, slow, now_s)
        heapq.heappush(self._timers, (now_s + slow * self._times.process_s, id, Stage.PROCESS))

    def end(self, id: int, now_s: float) -> None:
        """A replica is gone, up or not: its load's share is free for others, and who copies from it reads elsewhere."""
        self._weights.gone(id)
        mine = [flow for flow in self._parts if flow[0] == id]
        for flow in mine:
            if self._parts[flow].fetcher is None:
                self._loads.cancel(flow, now_s)
        for flow, part in list(self._parts.items()):
            if flow not in mine and part.peer == id:
                part.size = self._loads.cancel(flow, now_s)
                self._load(flow, now_s)
        for flow in mine:
            del self._parts[flow]
        self._go_on_without(mine, now_s)
        self._starts.pop(id, None)

    @property
    def due_s(self) -> float:
        """When the next stage of some replica ends; infinite if nothing starts."""
        while self._timers and not self._awaited(*self._timers[0][1:]):
            heapq.heappop(self._timers)
        return min(self._timers[0][0] if self._timers else math.inf, self._loads.due_s)

    def advance(self, now_s: float) -> list[Up]:
        """Everything that is due until then; who is up, in order of time and then of ids."""
        up = []
        while (due_s := self.due_s) <= now_s and due_s < math.inf:
            if self._loads.due_s <= due_s:
                for flow in self._loads.end():
                    self._loaded(flow, due_s)
                continue
            _, id, stage = heapq.heappop(self._timers)
            if stage is Stage.PROCESS:
                self._begin_loads(id, due_s)
            else:
                up.append(self._serve(id, due_s))
        return up

    # --- what can be seen ---------------------------------------------------------------------------------------

    def stage(self, id: int) -> Stage:
        """Of a replica that starts; raises KeyError for another."""
        return self._starts[id].stage

    def sources(self, id: int) -> dict[str, Source]:
        """Where a replica's weights come from while they load, by node; a node that waits for another's is left out."""
        return {part.node: part.source for flow, part in self._parts.items() if flow[0] == id and part.source}

    # --- stages -------------------------------------------------------------------------------------------------

    def _awaited(self, id: int, stage: Stage) -> bool:
        return id in self._starts and self._starts[id].stage is stage

    def _begin_loads(self, id: int, now_s: float) -> None:
        start = self._starts[id]
        start.stage = Stage.LOADING
        for number, (node, count) in enumerate(nodes_of(start.gpus).items()):
            size = start.slow * start.weight_bytes * count / len(start.gpus)
            self._parts[id, number] = _Part(node, size, now_s)
            self._load((id, number), now_s)

    def _load(self, flow: Flow, now_s: float) -> None:
        """Read from the nearest source; what is on its way from the object store to the node is waited for, as engines
        do that download into one folder."""
        part = self._parts[flow]
        model = self._starts[flow[0]].model
        self._account(flow, now_s)
        part.source, route, part.peer = self._weights.source(model, part.node)
        part.fetcher = None
        if part.source is Source.OBJECT_STORE:
            for other, fetch in self._parts.items():
                same = fetch.node == part.node and self._starts[other[0]].model == model
                if other != flow and same and fetch.source is Source.OBJECT_STORE:
                    part.source, part.fetcher = None, other
                    return
        self._loads.begin(flow, part.size, route, now_s)

    def _account(self, flow: Flow, now_s: float) -> None:
        """What has been done since the last time should have taken that long, but for the slowness of who did it."""
        part = self._parts[flow]
        slow = self._starts[(part.fetcher or flow)[0]].slow
        part.expected_s += (now_s - part.since_s) / slow
        part.since_s = now_s

    def _loaded(self, flow: Flow, now_s: float) -> None:
        """All of a part has come. A node that has read its part is taken to have the whole model."""
        self._account(flow, now_s)
        part, start = self._parts.pop(flow), self._starts[flow[0]]
        self._weights.read(part.node, start.model, start.weight_bytes)
        self._go_on_without([flow], now_s)
        if any(id == flow[0] for id, _ in self._parts):
            return
        start.stage, start.expected_load_s = Stage.WARMING, part.expected_s
        seconds = start.slow * (self._times.capture_s + self._times.warm_up_s)
        heapq.heappush(self._timers, (now_s + seconds, flow[0], Stage.WARMING))

    def _go_on_without(self, fetchers: list[Flow], now_s: float) -> None:
        """Who waited for these waits no longer."""
        for flow in sorted(flow for flow, part in self._parts.items() if part.fetcher in fetchers):
            self._load(flow, now_s)

    def _serve(self, id: int, now_s: float) -> Up:
        start = self._starts.pop(id)
        self._weights.serves(id, start.model, start.gpus)
        times = self._times
        expected_s = times.process_s + start.expected_load_s + times.capture_s + times.warm_up_s
        return Up(id, now_s - start.began_s, expected_s)

    # --- links --------------------------------------------------------------------------------------------------

    def _know_nodes(self, gpu: str, gpus: GPUs) -> None:
        for node, _ in gpus:
            self._gpu_of[node] = gpu

    def _bandwidth(self, link: Link) -> float:
        """Bytes/s."""
        kind, node = link
        match kind:
            case "drive":
                return self._times.storage_of(node).drive_bandwidth
            case "host":
                return self._times.host_bandwidth
            case "object-store":
                return self._times.object_store_bandwidth
            case "nic":
                return self._cost.hardware.gpus[self._gpu_of[node]].network_bandwidth
            case "nvlink":
                return self._cost.hardware.gpus[self._gpu_of[node]].link_bandwidth
        raise AssertionError(f"no such link: {link}")
