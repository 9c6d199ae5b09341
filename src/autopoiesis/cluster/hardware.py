"""GPUs and model architectures: what the cost model needs to know of each, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GPU:
    """One kind of accelerator, by its data sheet."""

    name: str
    flops: float
    """Dense bf16 FLOP/s."""
    memory_bandwidth: float
    """Bytes/s."""
    memory_bytes: float
    link_bandwidth: float
    """Bytes/s between GPUs of one node, per GPU and direction."""
    network_bandwidth: float
    """Bytes/s between nodes."""
    price_per_hour: float
    """US dollars for one GPU."""


@dataclass(frozen=True, slots=True)
class Model:
    """A dense decoder-only transformer with grouped-query attention and a gated MLP."""

    name: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    """The longest prompt plus output, in tokens."""

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer: query and output 2h², key and value 2h·n_k·d, three MLP matrices 3hf."""
        attention = 2 * self.hidden * self.heads * self.head_dim + 2 * self.hidden * self.kv_heads * self.head_dim
        return attention + 3 * self.hidden * self.ffn

    @property
    def parameters(self) -> int:
        """All weights, input and output embeddings included (untied)."""
        return 2 * self.vocabulary * self.hidden + self.layers * self.layer_parameters
