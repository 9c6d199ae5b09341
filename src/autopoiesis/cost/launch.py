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
    loading_s: float = 0.0
    """When the stage began; how long it took, once it is over."""


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
        self._sources: dict[Flow, tuple[str, Source, int | None]] = {}
        """Of every load under way: for which node, from where, and from which replica."""
        self._gpu_of: dict[str, str] = {}
        """Node → GPU kind."""

    # --- what happens -------------------------------------------------------------------------------------------

    def joined(self, node: str) -> None:
        """A node has come; its drive and host memory have what a new node has."""
        self._weights.joined(node)

    def serves(self, id: int, model: str, gpu: str, gpus: GPUs) -> None:
        """A replica serves that did not start here."""
        self._know_nodes(gpu, gpus)
        self._weights.serves(id, model, self._cost.weight_bytes(model), gpus)

    def begin(self, id: int, model: str, gpu: str, gpus: GPUs, now_s: float, slow: float = 1.0) -> None:
        """A replica starts. `slow`, with the cost model's own factor, multiplies the time of every stage; a load that
        is slow by itself occupies what it shares for as much longer."""
        self._know_nodes(gpu, gpus)
        slow *= self._cost.start_slow
        self._starts[id] = _Start(model, self._cost.weight_bytes(model), gpu, gpus, slow, now_s)
        heapq.heappush(self._timers, (now_s + slow * self._times.process_s, id, Stage.PROCESS))

    def end(self, id: int, now_s: float) -> None:
        """A replica is gone, up or not: its load's share is free for others, and who copies from it reads elsewhere."""
        self._starts.pop(id, None)
        self._weights.gone(id)
        for flow in [flow for flow in self._sources if flow[0] == id]:
            del self._sources[flow]
            self._loads.cancel(flow, now_s)
        for flow in [flow for flow, (_, _, peer) in self._sources.items() if peer == id]:
            self._load(flow, self._sources[flow][0], self._loads.cancel(flow, now_s), now_s)

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
                    del self._sources[flow]
                    if not any(id == flow[0] for id, _ in self._sources):
                        self._warm(flow[0], due_s)
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
        """Where a replica's weights come from while they load, by node."""
        return {node: source for flow, (node, source, _) in self._sources.items() if flow[0] == id}

    # --- stages -------------------------------------------------------------------------------------------------

    def _awaited(self, id: int, stage: Stage) -> bool:
        return id in self._starts and self._starts[id].stage is stage

    def _begin_loads(self, id: int, now_s: float) -> None:
        start = self._starts[id]
        start.stage, start.loading_s = Stage.LOADING, now_s
        for part, (node, count) in enumerate(nodes_of(start.gpus).items()):
            self._load((id, part), node, start.slow * start.weight_bytes * count / len(start.gpus), now_s)

    def _load(self, flow: Flow, node: str, size: float, now_s: float) -> None:
        source, route, peer = self._weights.source(self._starts[flow[0]].model, node)
        self._sources[flow] = node, source, peer
        self._loads.begin(flow, size, route, now_s)

    def _warm(self, id: int, now_s: float) -> None:
        start = self._starts[id]
        start.stage, start.loading_s = Stage.WARMING, now_s - start.loading_s
        seconds = start.slow * (self._times.capture_s + self._times.warm_up_s)
        heapq.heappush(self._timers, (now_s + seconds, id, Stage.WARMING))

    def _serve(self, id: int, now_s: float) -> Up:
        start = self._starts.pop(id)
        self._weights.serves(id, start.model, start.weight_bytes, start.gpus)
        times = self._times
        # the load moved `slow` times its bytes at the shares it was given, so at the same shares it should have taken:
        expected_s = times.process_s + start.loading_s / start.slow + times.capture_s + times.warm_up_s
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
