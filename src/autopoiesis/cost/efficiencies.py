"""What kernels make of a GPU's data sheet: one efficiency per kind of work, and the roofline that these give.

The few numbers of a GPU kind hold for every model, tensor parallel degree and number of stages, because the counts of
FLOP and bytes carry what differs between these:

* *Linear layers*: two FLOP per weight and token; a step reads every weight of the layers and of the head once. Of a
  mixture of experts a token passes the active ones, and a step reads those that a decode batch of typical size is
  expected to touch: the formula of a step has one constant for all batches.
* *Elementwise kernels* move 2 · (8·hidden + (3·ffn + 2·(heads + 2·kv_heads)·head_dim) / tp) bytes per layer and token:
  two residual additions with their norms, which every GPU of a group does in full, and the gated activation, the
  rotary embedding and the write to the cache, which are divided. They are what keeps small shards of a model from
  being as fast as their GEMMs.
* *Causal attention* of a chunk that ends at S after p cached tokens: 2·(S² − p²)·heads·head_dim FLOP per layer.
* *Decode attention* reads 2·kv_heads·head_dim values per layer and context token; no GPU holds less than one KV head.
* *All-reduce*, twice per layer: 2·(tp − 1)/tp of the activations over the link, and a latency.
* *Launches*: fixed seconds per layer and step, more in a step that prefills, and per layer and decoding sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

from autopoiesis.cluster import GPU, Model
from autopoiesis.cost.coefficients import DTYPE, ENGINE, KV_DTYPE_BYTES, Coefficients
from autopoiesis.errors import ScenarioError

WEIGHT_BYTES = 2
ACTIVATION_BYTES = 2
HOP_S = 50e-6
"""Latency of handing activations to the next pipeline stage."""
TYPICAL_BATCH = 32
"""Decoding sequences in the step whose touched experts stand for those of every step. docs/clusters.md says how far off
that is for smaller and larger ones."""

BOUNDS = {
    "linear": (0.4, 1.0),
    "elementwise": (0.2, 1.0),
    "attention": (0.2, 1.0),
    "weights": (0.5, 1.0),
    "kv": (0.4, 1.0),
    "all_reduce": (0.15, 1.0),
    "layer_s": (2e-6, 200e-6),
    "prefill_layer_s": (0.1e-6, 100e-6),
    "all_reduce_s": (1e-6, 60e-6),
    "sequence_layer_s": (1e-9, 1e-6),
}
"""What is physical. Nothing is faster than the data sheet: no efficiency above 1. Below the lower bounds the data, not
the kernels, are at fault: GEMMs of serving sizes reach 60 to 90 % of the dense peak; FlashAttention 2 a third of an
H100's and FlashAttention 3 three quarters; streaming reads 75 to 95 % of the memory's bandwidth, short elementwise
kernels a fraction of that; ring and one-shot all-reduces 20 to 90 % of a link's, by message size. A layer is some ten
kernels: 2 µs in all within a CUDA graph, 20 µs each without; an all-reduce costs 1 to 30 µs of latency, twice a layer;
a sequence adds a block to the kernels of a layer, 1 ns to 1 µs."""


@dataclass(frozen=True, slots=True)
class Efficiencies:
    """Of one GPU kind: fractions of the data sheet's speed, and seconds of latency. ScenarioError out of `BOUNDS`."""

    linear: float
    """Of the dense FLOP/s, in linear layers."""
    elementwise: float
    """Of the memory bandwidth, in norms, activations and the like."""
    attention: float
    """Of the dense FLOP/s, in prefill attention."""
    weights: float
    """Of the memory bandwidth, reading weights."""
    kv: float
    """Of the memory bandwidth, reading the KV cache."""
    all_reduce: float
    """Of the link bandwidth."""
    layer_s: float
    """Per layer and step."""
    prefill_layer_s: float
    """Per layer and step that prefills, besides."""
    all_reduce_s: float
    """Latency of the two all-reduces of a layer."""
    sequence_layer_s: float
    """Per layer and decoding sequence."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), BOUNDS[field.name]
            if not low <= value <= high:
                raise ScenarioError(f"field {field.name!r} must be from {low:g} to {high:g}, not {value:g}")


UNMEASURED = Efficiencies(
    linear=0.85,
    elementwise=0.5,
    attention=0.6,
    weights=0.8,
    kv=0.8,
    all_reduce=0.65,
    layer_s=45e-6,
    prefill_layer_s=25e-6,
    all_reduce_s=10e-6,
    sequence_layer_s=5e-8,
)
"""Of a GPU that was never measured: round numbers between those of GPUs that were. A fit starts here, too, and stays
here in whatever its measurements do not tell."""


@lru_cache(maxsize=4096)
def roofline(
    model: Model, gpu: GPU, tensor_parallel: int, pipeline_parallel: int, efficiencies: Efficiencies
) -> Coefficients:
    """Coefficients of a shape that was not measured.

    Work divides by the pipeline's stages, which are taken as kept full by micro-batches; the weights and the launches
    of all stages pass in turn.
    """
    e = efficiencies
    head_weights = model.vocabulary * model.hidden
    read_weights = model.layer_parameters_read(TYPICAL_BATCH) + head_weights
    stages = pipeline_parallel
    flops = gpu.flops * tensor_parallel * stages
    whole = 8 * model.hidden
    divided = 3 * model.active_mlp_width + 2 * (model.heads + 2 * model.kv_heads) * model.head_dim
    elementwise_bytes = ACTIVATION_BYTES * model.layers * (whole + divided / tensor_parallel)
    token_bytes = ACTIVATION_BYTES * model.hidden
    reduced_bytes = 2 * model.layers * 2 * (tensor_parallel - 1) / tensor_parallel * token_bytes
    hops = stages - 1
    communication = (
        elementwise_bytes / (e.elementwise * gpu.memory_bandwidth)
        + reduced_bytes / (e.all_reduce * gpu.link_bandwidth)
        + hops * token_bytes / gpu.network_bandwidth
    )
    launch = e.layer_s + (e.all_reduce_s if tensor_parallel > 1 else 0.0)
    return Coefficients(
        model=model.name,
        gpu=gpu.name,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
        engine=ENGINE,
        dtype=DTYPE,
        fixed_s=model.layers * launch + hops * HOP_S,
        prefill_fixed_s=model.layers * e.prefill_layer_s,
        weights_s=WEIGHT_BYTES * read_weights / (tensor_parallel * e.weights * gpu.memory_bandwidth),
        token_s=2 * model.active_layer_parameters / (e.linear * flops),
        communication_s=communication / stages,
        attention_s=2 * model.heads * model.head_dim * model.layers / (e.attention * flops),
        context_s=kv_bytes_per_gpu(model, tensor_parallel, stages, KV_DTYPE_BYTES) / (e.kv * gpu.memory_bandwidth),
        sequence_s=model.layers * e.sequence_layer_s / stages + 2 * head_weights / (e.linear * flops),
    )


def kv_bytes_per_gpu(model: Model, tensor_parallel: int, pipeline_parallel: int, kv_dtype_bytes: int) -> float:
    """Of one cached token: keys and values of the layers and heads that a GPU holds, one head at least."""
    heads = max(model.kv_heads / tensor_parallel, 1.0)
    return 2 * model.layers / pipeline_parallel * heads * model.head_dim * kv_dtype_bytes
