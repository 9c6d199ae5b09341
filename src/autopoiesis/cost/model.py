"""The cost model: how long a step, a start and a transfer take, for one set of coefficients.

The same type is the hidden truth of a simulated world and the belief that policies see; the two differ in their
factors, and only calibration from telemetry moves the belief towards the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from autopoiesis.cluster import Hardware
from autopoiesis.cost.coefficients import ENGINE, Coefficients
from autopoiesis.cost.efficiencies import UNMEASURED, WEIGHT_BYTES, Efficiencies, roofline
from autopoiesis.cost.start import StartTimes
from autopoiesis.cost.step import StepTimes, step_times

if TYPE_CHECKING:
    from autopoiesis.cost.fitted import Fitted

KV_TRANSFER_BASE_S = 0.00005
KV_TRANSFER_BANDWIDTH = 25e9
MIGRATION_PAUSE_S = 0.03


def _shipped() -> Fitted:
    # Reads files, which nobody needs who only plans with a model that is given.
    from autopoiesis.cost.fitted import shipped

    return shipped()


@dataclass(frozen=True)
class CostModel:
    """Times of every replica shape on this hardware."""

    hardware: Hardware
    slow: dict[str, float] = field(default_factory=dict)
    """By GPU kind: factor on every step time; 1 where it is missing."""
    start: StartTimes = field(default_factory=StartTimes)
    start_slow: float = 1.0
    """Factor on start times."""
    measured: tuple[Coefficients, ...] = field(default_factory=lambda: _shipped().measured)
    """Of exact shapes, the first of equals: taken before anything else."""
    efficiencies: dict[str, Efficiencies] = field(default_factory=lambda: dict(_shipped().efficiencies))
    """By GPU kind, for shapes that are not among `measured`. Both are data of the model, and travel with it, because a
    locked policy host can read no file."""
    engine: str = ENGINE
    """Whose measurements count."""

    def steps(
        self, model: str, gpu: str, tensor_parallel: int, pipeline_parallel: int, kv_dtype_bytes: int
    ) -> StepTimes:
        return step_times(
            self.hardware.models[model],
            self.hardware.gpus[gpu],
            self.coefficients(model, gpu, tensor_parallel, pipeline_parallel),
            kv_dtype_bytes,
            self.slow.get(gpu, 1.0),
        )

    def coefficients(self, model: str, gpu: str, tensor_parallel: int, pipeline_parallel: int) -> Coefficients:
        """The shape's as measured; else by its GPU's efficiencies, or those of a GPU that nobody measured. Factors
        (`slow`) are not in them."""
        for measured in self.measured:
            if measured.is_of(model, gpu, tensor_parallel, pipeline_parallel, self.engine):
                return measured
        return roofline(
            self.hardware.models[model],
            self.hardware.gpus[gpu],
            tensor_parallel,
            pipeline_parallel,
            self.efficiencies.get(gpu, UNMEASURED),
        )

    def weight_bytes(self, model: str) -> float:
        return float(self.hardware.models[model].parameters * WEIGHT_BYTES)

    def start_s(self, model: str) -> float:
        """Expected seconds from launching a replica on free GPUs until it serves, if nothing else starts beside it."""
        return self.start_slow * self.start.lone_s(self.weight_bytes(model))

    def with_slow(self, slow: dict[str, float], start_slow: float | None = None) -> CostModel:
        return replace(self, slow=slow, start_slow=self.start_slow if start_slow is None else start_slow)

    def encode(self) -> bytes:
        """As bytes, for a policy host; `CostModel.decode` is the inverse."""
        return msgspec.msgpack.encode(self)

    @staticmethod
    def decode(data: bytes) -> CostModel:
        return msgspec.msgpack.decode(data, type=CostModel)


def kv_transfer_s(kv_bytes: float) -> float:
    """Seconds to move a KV cache between two replicas."""
    return KV_TRANSFER_BASE_S + kv_bytes / KV_TRANSFER_BANDWIDTH
