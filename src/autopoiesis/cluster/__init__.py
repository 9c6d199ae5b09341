"""What there is to serve with: GPUs, links, nodes, pools, capacity that comes and goes, model architectures."""

from autopoiesis.cluster.cluster import Cluster, Hardware, Pool, SpotLosses
from autopoiesis.cluster.hardware import GPU, Model
from autopoiesis.cluster.storage import Storage

__all__ = ["GPU", "Cluster", "Hardware", "Model", "Pool", "SpotLosses", "Storage"]
