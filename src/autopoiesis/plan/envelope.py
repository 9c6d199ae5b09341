"""The operator's envelope: bounds that no policy can cross, enforced whenever a plan is validated."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Envelope:
    """Every bound is optional but the first. Money is US dollars, counts are GPUs or replicas as named."""

    minimum_replicas: int = 1
    """Replicas that each model keeps serving, whatever the policy wants."""
    minimum_replicas_of: dict[str, int] = field(default_factory=dict)
    """The same for single models, by name."""
    maximum_gpus: int | None = None
    maximum_cost_per_hour: float | None = None
    moves_per_hour: int | None = None
    """Replica starts that policies may cause within any hour; repairs do not count."""
    class_floor: dict[str, int] = field(default_factory=dict)
    """Request class → least number of replicas that a plan must share it among."""

    def minimum_for(self, model: str) -> int:
        return self.minimum_replicas_of.get(model, self.minimum_replicas)
