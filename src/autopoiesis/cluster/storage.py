"""Where the nodes of a pool read a model's weights from: data of the cluster file."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autopoiesis.errors import ScenarioError, unknown_name

DRIVES = {"nvme-gen4": 7e9, "nvme-gen3": 3.5e9, "sata": 0.55e9}
"""Classes of local drives: bytes/s of sequential reading, by the makers' data sheets."""
OBJECT_STORE_BANDWIDTH = 1e9
"""Bytes/s that an object store gives a cluster, where its file does not say."""
JOINING = ("object-store", "drive")
PEERS = ("none", "node", "cluster")


@dataclass(frozen=True, slots=True)
class Storage:
    """What every node of one pool has."""

    drive: str = "nvme-gen3"
    """The class of the local drive, one of `DRIVES`."""
    page_cache_bytes: float = 256e9
    """Host memory that keeps what was read, per node; 0 for engines that read past it."""
    joining: str = "object-store"
    """Where a node that has just joined finds weights: in the `object-store`, or, if they are part of its image, on
    its `drive`."""
    peers: str = "none"
    """Whether a starting engine can copy the weights from a serving replica of its model: from `none`, from those on
    its `node`, or from any in the `cluster`."""

    def __post_init__(self) -> None:
        for name, known in (("drive", DRIVES), ("joining", JOINING), ("peers", PEERS)):
            if getattr(self, name) not in known:
                raise ScenarioError(f"field 'storage.{name}': {unknown_name('value', getattr(self, name), known)}")
        if not 0 <= self.page_cache_bytes < math.inf:
            raise ScenarioError("field 'storage.page_cache_bytes' must be a finite number of at least 0")

    @property
    def drive_bandwidth(self) -> float:
        """Bytes/s."""
        return DRIVES[self.drive]
