"""The cost model: factors, start times and the way to a policy host and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autopoiesis.cluster import Hardware, catalog
from autopoiesis.cost import CostModel, kv_transfer_s
from autopoiesis.cost.efficiencies import UNMEASURED, roofline
from autopoiesis.cost.fitted import shipped

MODEL, LARGE = "llama-3.1-8b", "llama-3.1-70b"
COST = CostModel(Hardware(catalog.gpus(), catalog.models()))


def test_a_start_is_process_weights_and_warm_up() -> None:
    weights = 2 * catalog.model(MODEL).parameters
    assert COST.start_s(MODEL) == pytest.approx(12.0 + weights / 3.5e9 + 15.0)
    assert COST.with_slow({}, 1.5).start_s(MODEL) == pytest.approx(1.5 * COST.start_s(MODEL))


def test_a_factor_holds_for_its_gpu_kind_alone() -> None:
    slowed = COST.with_slow({"h100": 1.2})
    assert slowed.steps(MODEL, "h100", 1, 1, 2).weights_s == pytest.approx(
        1.2 * COST.steps(MODEL, "h100", 1, 1, 2).weights_s
    )
    assert slowed.steps(MODEL, "a100", 1, 1, 2) == COST.steps(MODEL, "a100", 1, 1, 2)
    assert slowed.start_slow == COST.start_slow


def test_a_factor_changes_times_and_not_memory() -> None:
    slowed, usual = (cost.steps(MODEL, "h100", 1, 1, 2) for cost in (COST.with_slow({"h100": 2.0}), COST))
    assert slowed.kv_tokens == usual.kv_tokens
    assert slowed.weight_bytes == usual.weight_bytes


def test_decoding_is_the_inverse_of_encoding() -> None:
    cost = COST.with_slow({"h100": 1.07, "a100": 0.93}, 1.2)
    assert CostModel.decode(cost.encode()) == cost


def test_a_transfer_takes_its_bytes_over_the_bandwidth() -> None:
    assert kv_transfer_s(0) == pytest.approx(50e-6)
    assert kv_transfer_s(25e9) == pytest.approx(1.0, rel=1e-3)


def test_what_was_measured_comes_before_what_is_derived() -> None:
    own = replace(COST.coefficients(MODEL, "h100", 2, 1), token_s=1.0, context_s=3.0)
    cost = replace(COST, measured=(own, *COST.measured))
    assert cost.coefficients(MODEL, "h100", 2, 1) is own
    assert cost.steps(MODEL, "h100", 2, 1, 2).token_s == 1.0
    for other in ((MODEL, "h100", 1, 1), (MODEL, "h100", 2, 2), (MODEL, "a100", 2, 1), (LARGE, "h100", 2, 1)):
        assert cost.coefficients(*other) == COST.coefficients(*other)


@pytest.mark.parametrize("key", [{"engine": "sglang"}, {"dtype": "fp8"}])
def test_another_engine_and_another_dtype_are_other_measurements(key: dict[str, Any]) -> None:
    theirs = replace(COST.coefficients(MODEL, "l40s", 1, 1), token_s=1.0, **key)
    assert replace(COST, measured=(theirs,)).steps(MODEL, "l40s", 1, 1, 2) == COST.steps(MODEL, "l40s", 1, 1, 2)
    chosen = replace(COST, measured=(theirs,), engine="sglang")
    assert (chosen.steps(MODEL, "l40s", 1, 1, 2).token_s == 1.0) == ("engine" in key)


def test_a_cache_of_another_width_is_read_in_proportion() -> None:
    own = replace(COST.coefficients(MODEL, "h100", 2, 1), context_s=3.0)
    cost = replace(COST, measured=(own,))
    assert [cost.steps(MODEL, "h100", 2, 1, width).context_s for width in (1, 2, 4)] == [1.5, 3.0, 6.0]


def test_a_shape_that_was_not_measured_follows_its_gpu_and_a_gpu_that_was_not_the_default() -> None:
    cost = replace(COST, measured=())
    gpus, model = cost.hardware.gpus, cost.hardware.models[MODEL]
    assert cost.coefficients(MODEL, "h100", 8, 1) == roofline(model, gpus["h100"], 8, 1, COST.efficiencies["h100"])
    assert "l40s" not in COST.efficiencies
    assert cost.coefficients(MODEL, "l40s", 1, 1) == roofline(model, gpus["l40s"], 1, 1, UNMEASURED)


def test_a_new_cost_model_has_what_ships_with_the_package() -> None:
    assert COST.measured == shipped().measured
    assert COST.efficiencies == shipped().efficiencies
