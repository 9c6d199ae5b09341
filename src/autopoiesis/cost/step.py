"""How long one engine step takes, from the coefficients of its replica, and how much fits in the replica's memory.

A step processes `tokens` new tokens (prefill chunks and one per decoding sequence):

    step = fixed + [prefill fixed] + max(weights, token · tokens) + communication · tokens
         + attention · Σ(S² − p²) + context · Σ(context of decoding sequences) + sequence · decoding sequences

for chunks that end at S after p cached tokens, so that, while the batch does not change, the time of k decode steps is
a quadratic in k with a closed form. Coefficients are measured (`coefficients`) or derived (`efficiencies`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from autopoiesis.cluster import GPU, Model
from autopoiesis.cost.coefficients import KV_DTYPE_BYTES, Coefficients
from autopoiesis.cost.efficiencies import WEIGHT_BYTES, kv_bytes_per_gpu

Some = TypeVar("Some", float, NDArray[np.float64])

MEMORY_UTILISATION = 0.9
ACTIVATION_PEAK_BYTES = 5.5 * 2**30
"""Per GPU group (one pipeline stage): profiled peak of activations."""


@dataclass(frozen=True, slots=True)
class StepTimes:
    """The coefficients of one replica, in seconds, and its KV capacity in tokens.

    With several pipeline stages, everything that grows with the work (token, communication, attention, context,
    sequence) is divided by them, as if micro-batches kept all stages full. Work that is alone on the replica fills one
    stage at a time and counts `stages` times.
    """

    fixed_s: float
    prefill_fixed_s: float
    weights_s: float
    token_s: float
    communication_s: float
    """Per token: all-reduces, pipeline hops, norms and activations."""
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
    """Pipeline parallel degree. The other coefficients are those of a full pipeline, in which every stage works."""

    def step_s(self, prefill_tokens: float, attention: float, sequences: float, context: float) -> float:
        """Seconds of one step: new prompt tokens, their Σ(S² − p²), decoding sequences, their Σ context."""
        tokens = prefill_tokens + sequences
        seconds = self.fixed_s + max(self.weights_s, self.token_s * tokens) + self.communication_s * tokens
        if prefill_tokens:
            seconds += self.prefill_fixed_s + self.attention_s * attention
        return seconds + self.context_s * context + self.sequence_s * sequences

    def unloaded_s(self, input_tokens: Some, output_tokens: Some, batched_tokens: int) -> Some:
        """End-to-end seconds of a request, or of each of several, that is alone on the replica: each chunk, and each
        decoding step, passes the pipeline's stages one after the other."""
        chunks = np.maximum(1, np.ceil(input_tokens / batched_tokens))
        chunk = self.stages * input_tokens / chunks
        prefill = chunks * (self.fixed_s + self.prefill_fixed_s) + self.stages * self.attention_s * input_tokens**2
        prefill += chunks * (np.maximum(self.weights_s, self.token_s * chunk) + self.communication_s * chunk)
        steps = np.maximum(output_tokens - 1, 0)
        context = input_tokens + (steps + 1) / 2
        decode = steps * (self.step_s(0, 0, self.stages, 0) + self.context_s * self.stages * context)
        seconds: Some = prefill + decode
        return seconds


@lru_cache(maxsize=4096)
def step_times(model: Model, gpu: GPU, coefficients: Coefficients, kv_dtype_bytes: int, slow: float) -> StepTimes:
    """The replica of `model` on `gpu` that has these coefficients; `slow` multiplies every time (1: as they are).

    Memory: utilisation times what the GPUs have, less weights, the peak of activations and what the runtime takes.
    """
    c = coefficients
    shards = c.tensor_parallel * c.pipeline_parallel
    kv_bytes = kv_bytes_per_gpu(model, c.tensor_parallel, c.pipeline_parallel, kv_dtype_bytes) * shards
    weight_bytes = float(model.parameters * WEIGHT_BYTES)
    pool = gpu.memory_bytes * MEMORY_UTILISATION * shards - weight_bytes - ACTIVATION_PEAK_BYTES * c.pipeline_parallel
    pool -= 0.15 * 2**30 if shards == 1 else (0.6 * shards + 0.35) * 2**30
    return StepTimes(
        fixed_s=slow * c.fixed_s,
        prefill_fixed_s=slow * c.prefill_fixed_s,
        weights_s=slow * c.weights_s,
        token_s=slow * c.token_s,
        communication_s=slow * c.communication_s,
        attention_s=slow * c.attention_s,
        context_s=slow * c.context_s * kv_dtype_bytes / KV_DTYPE_BYTES,
        sequence_s=slow * c.sequence_s,
        kv_tokens=int(pool / kv_bytes),
        kv_bytes_per_token=kv_bytes,
        weight_bytes=weight_bytes,
        stages=c.pipeline_parallel,
    )
