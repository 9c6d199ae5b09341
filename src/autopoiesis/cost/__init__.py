"""How long a step, a transfer and a start take, and what fits in memory."""

from typing import TYPE_CHECKING, Any

from autopoiesis.cost.coefficients import Coefficients
from autopoiesis.cost.efficiencies import Efficiencies
from autopoiesis.cost.launch import Stage, Starts, Up
from autopoiesis.cost.model import MIGRATION_PAUSE_S, CostModel, kv_transfer_s
from autopoiesis.cost.shapes import Shape, feasible_shapes
from autopoiesis.cost.start import Source, StartTimes, start_times
from autopoiesis.cost.step import StepTimes, step_times

if TYPE_CHECKING:
    from autopoiesis.cost.fitted import Fitted

__all__ = [
    "MIGRATION_PAUSE_S",
    "Coefficients",
    "CostModel",
    "Efficiencies",
    "Fitted",
    "Shape",
    "Source",
    "Stage",
    "StartTimes",
    "Starts",
    "StepTimes",
    "Up",
    "feasible_shapes",
    "kv_transfer_s",
    "start_times",
    "step_times",
]


def __getattr__(name: str) -> Any:
    """`Fitted` reads files, which processes for policies never do: imported when first asked for."""
    if name != "Fitted":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from autopoiesis.cost.fitted import Fitted

    return Fitted
