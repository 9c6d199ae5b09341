"""What there is to serve with: GPUs, links, nodes, pools, capacity that comes and goes, model architectures."""

from autopoiesis.cluster.cluster import Cluster, Hardware, Pool
from autopoiesis.cluster.failures import Failures
from autopoiesis.cluster.hardware import GPU, Model
from autopoiesis.cluster.spot import Spot, SpotHistory, SpotLosses, SpotRegime
from autopoiesis.cluster.storage import Storage

__all__ = [
    "GPU",
    "Cluster",
    "Failures",
    "Hardware",
    "Model",
    "Pool",
    "Spot",
    "SpotHistory",
    "SpotLosses",
    "SpotRegime",
    "Storage",
]
