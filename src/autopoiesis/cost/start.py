"""What a start takes: stages, and the sources that weights come from.

A new replica starts its process, loads its weights, captures its CUDA graphs, warms up and serves. Loading takes the
largest of bytes ÷ bandwidth over its parts, one per node that it spans. Published cold starts are 30 to 100 s; an H100
loads a 32B model in 20 s with a plain reader and in 3.2 s with one that saturates the path from host memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from autopoiesis.cluster import Cluster, Storage
from autopoiesis.cluster.storage import OBJECT_STORE_BANDWIDTH
from autopoiesis.cost.loading import Route

GPUs = tuple[tuple[str, int], ...]
"""Single GPUs as (node id, index within the node), as placement gives them."""


@dataclass(frozen=True, slots=True)
class StartTimes:
    """Seconds and bandwidths of a start on a node that is there."""

    process_s: float = 12.0
    """Container, Python, CUDA context, process group."""
    capture_s: float = 10.0
    """CUDA graphs of every batch size."""
    warm_up_s: float = 5.0
    """Memory profile and the first completion."""
    host_bandwidth: float = 20e9
    """Bytes/s from a node's host memory to its GPUs, for all of its loads together."""
    object_store_bandwidth: float = OBJECT_STORE_BANDWIDTH
    """Bytes/s for all loads of the cluster together."""
    storage: dict[str, Storage] = field(default_factory=dict)
    """By pool; one that is missing has the defaults."""

    def storage_of(self, node: str) -> Storage:
        """What a node has; node ids are `pool/index`."""
        return self.storage.get(node.rpartition("/")[0], DEFAULT_STORAGE)

    def lone_s(self, weight_bytes: float) -> float:
        """A start with nothing beside it, from a drive of the default class."""
        bandwidth = min(DEFAULT_STORAGE.drive_bandwidth, self.host_bandwidth)
        return self.process_s + weight_bytes / bandwidth + self.capture_s + self.warm_up_s


DEFAULT_STORAGE = Storage()


def start_times(cluster: Cluster) -> StartTimes:
    """Starts on this cluster, with the storage that its file names."""
    return StartTimes(
        object_store_bandwidth=cluster.object_store_bandwidth,
        storage={pool.name: pool.storage for pool in cluster.pools},
    )


class Source(str, Enum):
    """Where weights come from."""

    PEER = "peer"
    MEMORY = "memory"
    DRIVE = "drive"
    OBJECT_STORE = "object-store"


class Weights:
    """Which weights every node has on its drive and in its page cache, and which replicas could pass on theirs.

    Nodes that were there from the beginning have every model on their drives.
    """

    def __init__(self, times: StartTimes) -> None:
        self._times = times
        self._drives: dict[str, set[str]] = {}
        """Models on the drives of the nodes that joined without them."""
        self._caches: dict[str, dict[str, float]] = {}
        """By node: models in the page cache and their bytes, the one used longest ago first."""
        self._serving: dict[int, tuple[str, GPUs]] = {}

    def joined(self, node: str) -> None:
        """A node has come, perhaps under a name that was in use before."""
        self._caches.pop(node, None)
        self._drives.pop(node, None)
        if self._times.storage_of(node).joining == "object-store":
            self._drives[node] = set()

    def read(self, node: str, model: str, weight_bytes: float) -> None:
        """A node has read a model's weights: they are on its drive, and in its page cache if there is room."""
        if node in self._drives:
            self._drives[node].add(model)
        cache = self._caches.setdefault(node, {})
        cache.pop(model, None)
        room = self._times.storage_of(node).page_cache_bytes - weight_bytes
        if room < 0:
            return
        while sum(cache.values()) > room:
            del cache[next(iter(cache))]
        cache[model] = weight_bytes

    def serves(self, id: int, model: str, gpus: GPUs) -> None:
        """A replica serves, and could pass on its weights."""
        self._serving[id] = model, gpus

    def gone(self, id: int) -> None:
        """The replica passes on nothing any more."""
        self._serving.pop(id, None)

    def source(self, model: str, node: str) -> tuple[Source, Route, int | None]:
        """The nearest source of a model's weights for a node: a peer on it, its host memory, a peer elsewhere, its
        drive, the object store; with the links that the bytes pass, and which replica the peer is."""
        peers = self._times.storage_of(node).peers
        others = [id for id, (of, _) in self._serving.items() if of == model] if peers != "none" else []
        near = min((id for id in others if node in nodes_of(self._serving[id][1])), default=None)
        if near is not None:
            return Source.PEER, frozenset({("nvlink", node)}), near
        host = ("host", node)
        if model in self._caches.get(node, ()):
            return Source.MEMORY, frozenset({host}), None
        if others and peers == "cluster":
            far = min(others)
            return Source.PEER, frozenset({("nic", self._serving[far][1][0][0]), ("nic", node)}), far
        if model in self._drives.get(node, (model,)):
            return Source.DRIVE, frozenset({("drive", node), host}), None
        return Source.OBJECT_STORE, frozenset({("object-store", ""), ("nic", node), host}), None


def nodes_of(gpus: Iterable[tuple[str, int]]) -> dict[str, int]:
    """How many of these GPUs each node has, in their order."""
    counts: dict[str, int] = {}
    for node, _ in gpus:
        counts[node] = counts.get(node, 0) + 1
    return counts
