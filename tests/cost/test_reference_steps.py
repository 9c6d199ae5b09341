"""Against measured kernels: the errors that are promised of what ships, and of what was not measured.

The table is not part of the package: the variable AUTOPOIESIS_REFERENCE_STEPS names it. Without it, `test_fit` holds
the same to a table made up from known efficiencies.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autopoiesis.cluster import Hardware, catalog
from autopoiesis.cost import CostModel
from autopoiesis.cost.fit import fit, mape, predicted_s
from autopoiesis.cost.measurements import MeasuredSteps, read_measured_steps

VARIABLE = "AUTOPOIESIS_REFERENCE_STEPS"
PATH = Path(os.environ.get(VARIABLE) or "no table")
HARDWARE = Hardware(catalog.gpus(), catalog.models())
GPUS = ("h100", "a100")
PHASES = ("prefill", "decode", "mixed")

pytestmark = pytest.mark.skipif(
    not PATH.is_file() and VARIABLE not in os.environ, reason=f"no table of measured steps: set {VARIABLE} to its path"
)


@pytest.fixture(scope="module")
def steps() -> MeasuredSteps:
    return read_measured_steps(str(PATH), HARDWARE.models, HARDWARE.gpus)


def off(cost: CostModel, steps: MeasuredSteps, phase: str) -> float:
    error = mape(cost, steps)[phase]
    assert error is not None
    return error


def of_gpu(steps: MeasuredSteps, gpu: str) -> MeasuredSteps:
    return steps.of(*(shape for shape in steps.shapes if shape.gpu == gpu))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("gpu", GPUS)
def test_what_ships_is_within_five_percent_of_what_was_measured(steps: MeasuredSteps, gpu: str, phase: str) -> None:
    assert off(CostModel(HARDWARE), of_gpu(steps, gpu), phase) <= 0.05


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("gpu", GPUS)
def test_the_few_efficiencies_that_ship_are_so_for_every_shape(steps: MeasuredSteps, gpu: str, phase: str) -> None:
    assert off(CostModel(HARDWARE, measured=()), of_gpu(steps, gpu), phase) <= 0.05


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("held", ["tp=4", "model=llama-3.1-70b"])
def test_shapes_held_out_of_the_fit_are_predicted_within_ten_percent(
    steps: MeasuredSteps, held: str, gpu: str, phase: str
) -> None:
    out = [s for s in steps.shapes if held in (f"tp={s.tensor_parallel}", f"model={s.model}")]
    fitted = fit(steps.of(*(shape for shape in steps.shapes if shape not in out)), HARDWARE)
    cost = CostModel(HARDWARE, measured=fitted.measured, efficiencies=fitted.efficiencies)
    assert off(cost, of_gpu(steps.of(*out), gpu), phase) <= 0.10


def test_what_ships_is_what_calibrating_gives(steps: MeasuredSteps) -> None:
    fitted = fit(steps, HARDWARE)
    own = CostModel(HARDWARE, measured=fitted.measured, efficiencies=fitted.efficiencies)
    assert predicted_s(CostModel(HARDWARE), steps) == pytest.approx(predicted_s(own, steps), rel=0.01)
