"""The roofline: counts of FLOP and bytes over the data sheet, and what a GPU's efficiencies may be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.cluster import Model, catalog
from autopoiesis.cost import Coefficients, Efficiencies
from autopoiesis.cost.coefficients import TIMES
from autopoiesis.cost.efficiencies import BOUNDS, UNMEASURED, roofline
from autopoiesis.cost.fitted import shipped
from autopoiesis.errors import ScenarioError

SMALL, LARGE = catalog.model("llama-3.1-8b"), catalog.model("llama-3.1-70b")
H100 = catalog.gpus()["h100"]
DATA_SHEET = Efficiencies(**{name: 1.0 if high == 1.0 else low for name, (low, high) in BOUNDS.items()})
"""As fast as is physical."""

kinds = st.builds(Efficiencies, **{name: st.floats(low, high) for name, (low, high) in BOUNDS.items()})
degrees = st.sampled_from([1, 2, 4, 8])
models = st.sampled_from([SMALL, LARGE])


def test_at_full_efficiency_work_takes_what_the_data_sheet_says() -> None:
    one = roofline(SMALL, H100, 1, 1, DATA_SHEET)
    layers = 32 * (2 * 4096**2 + 2 * 4096 * 8 * 128 + 3 * 4096 * 14336)
    head = 128256 * 4096
    assert one.token_s == pytest.approx(2 * layers / 989e12)
    assert one.weights_s == pytest.approx(2 * (layers + head) / 3350e9)
    assert one.attention_s == pytest.approx(32 * 2 * 32 * 128 / 989e12)
    assert one.context_s == pytest.approx(32 * 2 * 8 * 128 * 2 / 3350e9)
    assert one.communication_s == pytest.approx(32 * 2 * (8 * 4096 + 3 * 14336 + 2 * 48 * 128) / 3350e9)


def test_all_reduces_move_the_activations_twice_a_layer() -> None:
    one, four = (roofline(SMALL, H100, tp, 1, DATA_SHEET) for tp in (1, 4))
    whole, divided = (32 * 2 * n / 3350e9 for n in (8 * 4096, 3 * 14336 + 2 * 48 * 128))
    assert one.communication_s == pytest.approx(whole + divided)
    assert four.communication_s == pytest.approx(whole + divided / 4 + 32 * 2 * 2 * 3 / 4 * 4096 * 2 / 450e9)


def test_more_gpus_than_kv_heads_read_a_head_each() -> None:
    eight, sixteen = (roofline(SMALL, H100, tp, 1, UNMEASURED) for tp in (8, 16))
    assert eight.context_s == sixteen.context_s


@given(models, degrees, kinds)
def test_no_shape_is_faster_than_the_data_sheet(model: Model, tp: int, kind: Efficiencies) -> None:
    best, real = roofline(model, H100, tp, 1, DATA_SHEET), roofline(model, H100, tp, 1, kind)
    assert all(getattr(real, name) >= getattr(best, name) * (1 - 1e-12) for name in TIMES)


@given(models, degrees, kinds)
def test_a_wider_group_does_each_kind_of_work_faster_and_no_more_than_in_proportion(
    model: Model, tp: int, kind: Efficiencies
) -> None:
    one, wide = roofline(model, H100, 1, 1, kind), roofline(model, H100, tp, 1, kind)
    for name in ("token_s", "weights_s", "attention_s", "context_s"):
        assert getattr(wide, name) == pytest.approx(getattr(one, name) / tp)
    assert wide.communication_s >= one.communication_s / tp
    assert wide.fixed_s >= one.fixed_s


@pytest.mark.parametrize("name", BOUNDS)
def test_what_is_not_physical_is_refused(name: str) -> None:
    low, high = BOUNDS[name]
    for value in (low / 1.01, high * 1.01, float("nan"), -low):
        with pytest.raises(ScenarioError, match=f"field '{name}' must be from {low:g} to {high:g}, not"):
            replace(UNMEASURED, **{name: value})
    assert replace(UNMEASURED, **{name: low}) != replace(UNMEASURED, **{name: high})


def test_no_efficiency_is_above_one() -> None:
    assert all(high == 1.0 for name, (_, high) in BOUNDS.items() if not name.endswith("_s"))


@pytest.mark.parametrize("shape", shipped().measured, ids=lambda s: f"{s.gpu}-{s.model}-tp{s.tensor_parallel}")
def test_what_ships_is_within_the_same_bounds(shape: Coefficients) -> None:
    gpu, model = catalog.gpus()[shape.gpu], catalog.model(shape.model)
    worst = Efficiencies(**{name: low if high == 1.0 else high for name, (low, high) in BOUNDS.items()})
    fastest, slowest = (roofline(model, gpu, shape.tensor_parallel, 1, kind) for kind in (DATA_SHEET, worst))
    for name in TIMES:
        assert 0.999 * getattr(fastest, name) <= getattr(shape, name) <= 1.001 * getattr(slowest, name), name
