"""GPUs and model architectures: what the cost model needs to know of each, and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

from autopoiesis.errors import ScenarioError

Count = TypeVar("Count", int, float)


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

    def __post_init__(self) -> None:
        for name in ("flops", "memory_bandwidth", "memory_bytes", "link_bandwidth", "network_bandwidth"):
            if not 0 < getattr(self, name) < math.inf:
                raise ScenarioError(f"field {name!r} must be a positive, finite number")
        if not 0 <= self.price_per_hour < math.inf:
            raise ScenarioError("field 'price_per_hour' must be US dollars, at least 0")


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder-only transformer with grouped-query attention and gated MLPs; dense, or with a mixture of experts.

    Raises ScenarioError for numbers that make no architecture.
    """

    name: str
    layers: int
    hidden: int
    ffn: int
    """Width of the MLP in layers without experts; 0 if there are none."""
    heads: int
    kv_heads: int
    head_dim: int
    """Of one head; heads · head_dim need not be the hidden size."""
    vocabulary: int
    context: int
    """The longest prompt plus output, in tokens."""
    experts: int = 0
    """Per layer; 0 for a dense model."""
    active_experts: int = 0
    """Of these, how many a token passes."""
    expert_ffn: int = 0
    """Width of one expert's MLP."""
    shared_ffn: int = 0
    """Width of the MLP that every token passes beside its experts."""
    dense_layers: int = 0
    """Layers of a model with experts that have an MLP instead of them."""

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "vocabulary", "context"):
            if getattr(self, name) < 1:
                raise ScenarioError(f"field {name!r} must be at least 1, got {getattr(self, name)}")
        if self.heads % self.kv_heads:
            raise ScenarioError(f"field 'heads' must be a multiple of kv_heads ({self.kv_heads}), got {self.heads}")
        experts = (self.active_experts, self.expert_ffn, self.shared_ffn, self.dense_layers)
        if min(self.ffn, self.experts, *experts) < 0:
            raise ScenarioError("fields 'ffn', 'experts' and what says more of experts must not be negative")
        if not self.experts and any(experts):
            raise ScenarioError("field 'experts' is 0, so the other fields of experts must be left out")
        if self.experts and not 1 <= self.active_experts <= self.experts:
            raise ScenarioError(f"field 'active_experts' must be from 1 to experts ({self.experts})")
        if self.experts and self.expert_ffn < 1:
            raise ScenarioError("field 'expert_ffn' must be at least 1 in a model with experts")
        if self.dense_layers > self.layers:
            raise ScenarioError(f"field 'dense_layers' must be at most layers ({self.layers})")
        if (self.ffn > 0) != (self.expert_layers < self.layers):
            raise ScenarioError("field 'ffn' must be positive if there are layers without experts, and else 0")

    @property
    def expert_layers(self) -> int:
        """Layers with experts."""
        return self.layers - self.dense_layers if self.experts else 0

    @property
    def parameters(self) -> int:
        """All weights, input and output embeddings included (untied): what memory must hold."""
        return self._embeddings + self._layer_weights(self.experts)

    @property
    def active_parameters(self) -> int:
        """The weights that one token passes, embeddings included as model cards do."""
        return self._embeddings + self.active_layer_parameters

    @property
    def active_layer_parameters(self) -> int:
        """Of all layers, the weights that one token passes: query and output 2h·n_h·d, key and value 2h·n_k·d, three
        matrices of every MLP, and the router of every layer with experts."""
        return int(self._layer_weights(self.active_experts))

    @property
    def active_mlp_width(self) -> float:
        """Mean over layers of the MLP widths that one token passes."""
        mixed = self.active_experts * self.expert_ffn + self.shared_ffn
        return (self.expert_layers * mixed + (self.layers - self.expert_layers) * self.ffn) / self.layers

    def layer_parameters_read(self, tokens: float) -> float:
        """Expected weights of all layers that a step of so many tokens reads, if tokens choose their experts
        independently and evenly: E·(1 − (1 − k/E)^tokens) of E experts with k active."""
        if not self.experts:
            return self._layer_weights(0)
        untouched = float((1 - self.active_experts / self.experts) ** tokens)
        return self._layer_weights(self.experts * (1 - untouched))

    @property
    def _embeddings(self) -> int:
        return 2 * self.vocabulary * self.hidden

    def _layer_weights(self, experts: Count) -> Count:
        """Of all layers, with so many experts in each layer that has any."""
        attention = 2 * self.hidden * self.heads * self.head_dim + 2 * self.hidden * self.kv_heads * self.head_dim
        mixed = 3 * self.hidden * (experts * self.expert_ffn + self.shared_ffn) + self.hidden * self.experts
        dense = 3 * self.hidden * self.ffn
        return self.layers * attention + self.expert_layers * mixed + (self.layers - self.expert_layers) * dense
