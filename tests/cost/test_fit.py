"""Fitting: what made a table is found again, carries over to what is not in it, and stays physical whatever it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from step_tables import HARDWARE, LARGE, SHAPES, SMALL, TRUTH, table

from autopoiesis.cost import CostModel, Fitted
from autopoiesis.cost.efficiencies import BOUNDS, UNMEASURED
from autopoiesis.cost.fit import fit, fit_efficiencies, mape, predicted_s
from autopoiesis.cost.measurements import PHASES, MeasuredShape, MeasuredSteps, read_measured_steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("steps")


def read(folder: Path, text: str) -> MeasuredSteps:
    (folder / "steps.csv").write_text(text)
    return read_measured_steps(str(folder / "steps.csv"), HARDWARE.models, HARDWARE.gpus)


def cost_of(fitted: Fitted) -> CostModel:
    return CostModel(HARDWARE, measured=fitted.measured, efficiencies=fitted.efficiencies)


def worst(errors: dict[str, float | None]) -> float:
    return max(error for error in errors.values() if error is not None)


def test_predictions_are_those_of_the_cost_model_step_by_step(folder: Path) -> None:
    steps = read(folder, table(system="a100_sxm"))
    cost = CostModel(HARDWARE)
    one_by_one = [
        cost.steps(steps.shapes[shape].model, "a100", steps.shapes[shape].tensor_parallel, 1, 2).step_s(*work)
        for shape, *work in zip(
            steps.shape, steps.prefill_tokens, steps.attention, steps.sequences, steps.context, strict=True
        )
    ]
    assert predicted_s(cost, steps) == pytest.approx(one_by_one, rel=1e-12)


def test_errors_are_relative_to_the_measurement_and_by_phase(folder: Path) -> None:
    steps = read(folder, table(kinds=("prefill_step", "decode_step")))
    truth = CostModel(HARDWARE, measured=(), efficiencies={"h100": TRUTH})
    factor = np.where(steps.phase == PHASES.index("decode"), 1 / 1.1, 1 / 0.8)
    errors = mape(truth, replace(steps, seconds=steps.seconds * factor))
    assert errors == {"prefill": pytest.approx(0.2, abs=1e-4), "decode": pytest.approx(0.1, abs=1e-4), "mixed": None}


def test_what_made_the_table_is_found_again(folder: Path) -> None:
    fitted = fit(read(folder, table()), HARDWARE)
    found = fitted.efficiencies["h100"]
    for name in BOUNDS:
        assert getattr(found, name) == pytest.approx(getattr(TRUTH, name), rel=0.2), name
    assert worst(mape(cost_of(fitted), read(folder, table()))) < 0.005


@pytest.mark.parametrize("held", [[s for s in SHAPES if s[1] == 4], [s for s in SHAPES if s[0] == LARGE]])
def test_efficiencies_carry_over_to_shapes_that_were_not_measured(folder: Path, held: list[tuple[str, int]]) -> None:
    fitted = fit(read(folder, table(shapes=[s for s in SHAPES if s not in held], noise=0.03)), HARDWARE)
    assert worst(mape(cost_of(fitted), read(folder, table(shapes=held)))) < 0.03


def test_a_shape_with_kernels_of_its_own_gets_coefficients_of_its_own(folder: Path) -> None:
    odd = replace(TRUTH, attention=0.25, kv=0.45)
    text = table(shapes=[(SMALL, 1), (SMALL, 4), (LARGE, 2)]) + table(odd, shapes=[(SMALL, 2)]).partition("\n")[2]
    steps = read(folder, text)
    fitted = fit(steps, HARDWARE)
    its_own = steps.of(MeasuredShape("h100", SMALL, 2))
    assert worst(mape(cost_of(fitted), its_own)) < 0.01
    assert worst(mape(replace(cost_of(fitted), measured=()), its_own)) > 0.05


def test_what_the_steps_do_not_tell_stays_as_for_any_gpu(folder: Path) -> None:
    steps = read(folder, table(shapes=[(SMALL, 1)], kinds=("decode_step",)))
    found = fit_efficiencies(steps, HARDWARE, UNMEASURED)
    for name in ("attention", "all_reduce", "all_reduce_s", "prefill_layer_s"):
        assert getattr(found, name) == pytest.approx(getattr(UNMEASURED, name)), name
    assert found.kv == pytest.approx(TRUTH.kv, rel=0.05)


def test_every_gpu_kind_is_fitted_by_itself(folder: Path) -> None:
    h100, a100 = table(), table(replace(TRUTH, linear=0.95, kv=0.9), system="a100")
    both = fit(read(folder, h100 + a100.partition("\n")[2]), HARDWARE)
    for text, gpu in ((h100, "h100"), (a100, "a100")):
        alone = fit(read(folder, text), HARDWARE)
        assert both.efficiencies[gpu] == alone.efficiencies[gpu]
        assert tuple(shape for shape in both.measured if shape.gpu == gpu) == alone.measured


def test_the_same_table_gives_the_same_fit(folder: Path) -> None:
    steps = read(folder, table(noise=0.05, seed=3))
    assert fit(steps, HARDWARE) == fit(steps, HARDWARE)


def test_a_few_wild_rows_do_not_bend_the_rest(folder: Path) -> None:
    steps = read(folder, table())
    wild = steps.seconds.copy()
    wild[::40] *= 3
    fitted = fit(replace(steps, seconds=wild), HARDWARE)
    assert worst(mape(cost_of(fitted), steps)) < 0.05


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.integers(1, 20))
def test_whatever_a_table_says_what_comes_out_is_physical(seed: int, factor: float, rows: int) -> None:
    """Efficiencies check their bounds when they are made."""
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 200, rows).astype(np.float64)
    prompt = rng.integers(0, 2, rows) * n * 37
    usual = MeasuredSteps(
        shapes=(MeasuredShape("h100", SMALL, 1), MeasuredShape("h100", LARGE, 4)),
        shape=rng.integers(0, 2, rows),
        phase=np.where(prompt > 0, 2, 1),
        prefill_tokens=prompt,
        attention=prompt * 1000,
        sequences=n,
        context=n * 1000,
        seconds=factor * 0.02 * rng.lognormal(0, 1, rows),
    )
    found = fit_efficiencies(usual, HARDWARE, UNMEASURED)
    assert all(low <= getattr(found, name) <= high for name, (low, high) in BOUNDS.items())
