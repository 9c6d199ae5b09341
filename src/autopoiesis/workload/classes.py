"""Request classes and their service-level objectives.

A request's output length is unknown when it arrives, so its class is what is known: the model and the bucket of
its prompt length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BUCKET_LIMITS = (512, 2048, 8192)
"""A prompt shorter than the first limit is in bucket 0, and so on; anything longer is in the last."""

BUCKETS = ("<512", "<2048", "<8192", "longer")


def class_label(model: str, bucket: int) -> str:
    """`llama-3.1-8b/<2048`: how policies, tables and files name a class."""
    return f"{model}/{BUCKETS[bucket]}"


def class_labels(models: tuple[str, ...]) -> tuple[str, ...]:
    """All classes; the class index of a request is `model index * len(BUCKETS) + bucket`."""
    return tuple(class_label(model, bucket) for model in models for bucket in range(len(BUCKETS)))


def bucket_of(input_tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bucket of each prompt length."""
    return np.searchsorted(np.array(BUCKET_LIMITS), input_tokens, side="right").astype(np.int64)


@dataclass(frozen=True, slots=True)
class SLO:
    """What a request of one model is promised. TTFT grows with the prompt; TPOT is the mean over its output."""

    ttft_s: float = 1.0
    ttft_s_per_input_token: float = 0.0005
    tpot_s: float = 0.05

    def ttft_limit_s(self, input_tokens: float) -> float:
        return self.ttft_s + self.ttft_s_per_input_token * input_tokens


LARGE_MODEL_PARAMETERS = 15e9
"""Above this many active parameters the default TPOT is 100 ms instead of 50 ms."""


def default_slo(active_parameters: float) -> SLO:
    return SLO(tpot_s=0.1 if active_parameters > LARGE_MODEL_PARAMETERS else 0.05)
