"""How long one engine step takes: a roofline with one efficiency per term.

A step processes `tokens` new tokens (prefill chunks and one per decoding sequence):

    step = fixed + [prefill fixed] + max(weights, token · tokens) + communication · tokens
         + attention · Σ(S² − p²) + context · Σ(context of decoding sequences) + sequence · decoding sequences

so that, while the batch does not change, the time of k decode steps is a quadratic in k with a closed form.
FLOP and byte counts: two FLOP per weight and token for linear layers; causal attention of a chunk that ends at S
after p cached tokens costs 2·(S² − p²)·heads·head_dim FLOP per layer; decoding reads 2·kv_heads·head_dim values per
layer and context token. An all-reduce moves 2·(tp−1)/tp of the activations, twice per layer. Efficiencies (`Slowness`)
are what kernels take beyond the data sheet; those of H100, H200 and A100 were fitted to tabulated vLLM kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from autopoiesis.cluster import GPU, Model

WEIGHT_BYTES = 2
MEMORY_UTILISATION = 0.9
ACTIVATION_BYTES = 5.5 * 2**30
"""Per GPU group (one pipeline stage): profiled peak of activations."""
TENSOR_PARALLEL_LAUNCH_S = 20e-6
"""Launch latency of the two all-reduces of one layer."""
SEQUENCE_S = 4e-6
"""Scheduling, sampling and detokenising of one sequence in one step."""


@dataclass(frozen=True, slots=True)
class Slowness:
    """Time over the data sheet's time, per term; `layer_s` are the fixed seconds of one layer in one step."""

    linear: float
    attention: float
    weights: float
    kv: float
    layer_s: float
    prefill_layer_s: float
    """Additional fixed seconds of one layer in a step that prefills."""


DATA_SHEET = Slowness(linear=1.2, attention=1.7, weights=1.2, kv=1.2, layer_s=50e-6, prefill_layer_s=14e-6)
"""For a GPU that was never measured."""

FITTED = {
    "h100": Slowness(linear=1.22, attention=1.94, weights=1.11, kv=1.10, layer_s=45e-6, prefill_layer_s=13e-6),
    "h200": Slowness(linear=1.22, attention=1.94, weights=1.14, kv=1.11, layer_s=43e-6, prefill_layer_s=15e-6),
    "a100": Slowness(linear=1.05, attention=1.46, weights=1.32, kv=1.35, layer_s=56e-6, prefill_layer_s=14e-6),
}


@dataclass(frozen=True, slots=True)
class StepTimes:
    """The coefficients of one replica, in seconds, and its KV capacity in tokens."""

    fixed_s: float
    prefill_fixed_s: float
    weights_s: float
    token_s: float
    communication_s: float
    """Per token."""
    attention_s: float
    """Per unit of S² − p²."""
    context_s: float
    """Per token of context of a decoding sequence."""
    sequence_s: float
    kv_tokens: int
    """KV cache capacity; 0 or less if the weights do not fit."""
    kv_bytes_per_token: float
    """Over all GPUs of the replica."""
    weight_bytes: float
    """Over all GPUs of the replica."""
    stages: int = 1
    """Of the pipeline. `token_s` and `attention_s` are those of a full one, in which every stage works."""

    def step_s(self, prefill_tokens: float, attention: float, sequences: float, context: float) -> float:
        """Seconds of one step: new prompt tokens, their Σ(S² − p²), decoding sequences, their Σ context."""
        tokens = prefill_tokens + sequences
        seconds = self.fixed_s + max(self.weights_s, self.token_s * tokens) + self.communication_s * tokens
        if prefill_tokens:
            seconds += self.prefill_fixed_s + self.attention_s * attention
        return seconds + self.context_s * context + self.sequence_s * sequences

    def unloaded_s(self, input_tokens: float, output_tokens: float, batched_tokens: int) -> float:
        """End-to-end seconds of a request that is alone on the replica."""
        chunks = max(1, -(-int(input_tokens) // batched_tokens))
        prefill = chunks * (self.fixed_s + self.prefill_fixed_s) + self.attention_s * input_tokens**2
        chunk = input_tokens / chunks
        prefill += chunks * (max(self.weights_s, self.token_s * chunk) + self.communication_s * chunk)
        steps = max(output_tokens - 1, 0)
        decode = steps * self.step_s(0, 0, 1, input_tokens + (steps + 1) / 2)
        return prefill + decode


@lru_cache(maxsize=4096)
def step_times(
    model: Model, gpu: GPU, tensor_parallel: int, pipeline_parallel: int, kv_dtype_bytes: int, slow: float
) -> StepTimes:
    """Coefficients of a replica of `model` on `gpu`; `slow` multiplies every time (1: as fitted).

    Pipeline stages are taken as kept full by micro-batches: compute and KV reads divide by the stages, the weights
    are read once per stage in turn, and a single batch's bubbles are left out.
    """
    slowness = FITTED.get(gpu.name, DATA_SHEET)
    shards = tensor_parallel * pipeline_parallel
    flops = gpu.flops * shards
    layer_weights = model.layers * model.layer_parameters
    head_weights = model.vocabulary * model.hidden
    reduced = 2 * (tensor_parallel - 1) / tensor_parallel * model.hidden * WEIGHT_BYTES * 2 * model.layers
    hops = pipeline_parallel - 1
    kv_heads = max(model.kv_heads / tensor_parallel, 1.0)
    kv_bytes_per_gpu = 2 * model.layers / pipeline_parallel * kv_heads * model.head_dim * kv_dtype_bytes
    weight_bytes = float(model.parameters * WEIGHT_BYTES)
    pool = gpu.memory_bytes * MEMORY_UTILISATION * shards - weight_bytes - ACTIVATION_BYTES * pipeline_parallel
    pool -= 0.15 * 2**30 if shards == 1 else (0.6 * shards + 0.35) * 2**30
    launch = TENSOR_PARALLEL_LAUNCH_S if tensor_parallel > 1 else 0.0
    return StepTimes(
        fixed_s=slow * (model.layers * (slowness.layer_s + launch) + hops * 50e-6),
        prefill_fixed_s=slow * model.layers * slowness.prefill_layer_s,
        weights_s=slow
        * slowness.weights
        * WEIGHT_BYTES
        * (layer_weights + head_weights)
        / (tensor_parallel * gpu.memory_bandwidth),
        token_s=slow * slowness.linear * 2 * layer_weights / flops,
        communication_s=slow
        * (reduced / gpu.link_bandwidth + hops * model.hidden * WEIGHT_BYTES / gpu.network_bandwidth),
        attention_s=slow * slowness.attention * 2 * model.heads * model.head_dim * model.layers / flops,
        context_s=slow * slowness.kv * kv_bytes_per_gpu / gpu.memory_bandwidth,
        sequence_s=slow * (SEQUENCE_S + 2 * head_weights / flops),
        kv_tokens=int(pool / (kv_bytes_per_gpu * shards)),
        kv_bytes_per_token=kv_bytes_per_gpu * shards,
        weight_bytes=weight_bytes,
        stages=pipeline_parallel,
    )
