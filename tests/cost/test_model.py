"""The cost model: factors, start times and the way to a policy host and back."""

from __future__ import annotations

import pytest

from autopoiesis.cluster import Hardware, catalog
from autopoiesis.cost import CostModel, kv_transfer_s

MODEL = "llama-3.1-8b"
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
