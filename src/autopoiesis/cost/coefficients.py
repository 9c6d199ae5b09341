"""The coefficients of one replica shape: what each kind of work in a step costs it, in seconds.

They belong to an exact key: model, GPU kind, tensor and pipeline parallel degree, engine and dtype of the weights.
Where a shape was measured its coefficients are data; where it was not, `efficiencies.roofline` derives them.
"""

from __future__ import annotations

from dataclasses import dataclass

from autopoiesis.errors import ScenarioError

ENGINE = "vllm"
DTYPE = "bf16"
TWO_BYTES = ("bf16", "fp16")
"""Of the weights. Memory and FLOP counts of the package are for two bytes a weight."""
KV_DTYPE_BYTES = 2
"""Bytes of a cached value that `context_s` holds for; with another width the time scales with the bytes read."""

LONGEST_S = 1000.0
"""No part of a step takes longer; a larger number is a slip of units."""

TIMES = (
    "fixed_s",
    "prefill_fixed_s",
    "weights_s",
    "token_s",
    "communication_s",
    "attention_s",
    "context_s",
    "sequence_s",
)


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Seconds of one step's parts (see `step`), for one shape. All but the first three assume full pipeline stages.

    Raises ScenarioError for a degree below 1 or a time that is negative or not finite.
    """

    model: str
    gpu: str
    tensor_parallel: int
    pipeline_parallel: int
    engine: str
    dtype: str
    fixed_s: float
    """Per step."""
    prefill_fixed_s: float
    """Per step that holds prompt tokens, besides."""
    weights_s: float
    """Reading the weights once: what the linear layers take at least."""
    token_s: float
    """Linear layers, per new token."""
    communication_s: float
    """Whatever else a new token costs: all-reduces, pipeline hops, norms and activations."""
    attention_s: float
    """Per unit of S² − p²."""
    context_s: float
    """Per token of context of a decoding sequence, with `KV_DTYPE_BYTES`."""
    sequence_s: float
    """Per decoding sequence."""

    def __post_init__(self) -> None:
        for name in ("tensor_parallel", "pipeline_parallel"):
            if getattr(self, name) < 1:
                raise ScenarioError(f"field {name!r} must be 1 or more, not {getattr(self, name)}")
        for name in TIMES:
            value = getattr(self, name)
            if not 0 <= value <= LONGEST_S:
                raise ScenarioError(f"field {name!r} must be seconds, 0 to {LONGEST_S:g}, not {value:g}")

    @property
    def key(self) -> tuple[str, str, int, int, str, str]:
        """What they were measured for."""
        return self.model, self.gpu, self.tensor_parallel, self.pipeline_parallel, self.engine, self.dtype

    def is_of(self, model: str, gpu: str, tensor_parallel: int, pipeline_parallel: int, engine: str) -> bool:
        """Whether these were measured for that shape under that engine, with weights of two bytes."""
        shape = (self.model, self.gpu, self.tensor_parallel, self.pipeline_parallel, self.engine)
        return shape == (model, gpu, tensor_parallel, pipeline_parallel, engine) and self.dtype in TWO_BYTES
