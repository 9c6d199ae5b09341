"""Architectures: their sizes against the published ones, and what experts change."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.cluster import Hardware, Model, catalog
from autopoiesis.cost import CostModel
from autopoiesis.cost.efficiencies import TYPICAL_BATCH
from autopoiesis.errors import ScenarioError
from autopoiesis.workload.classes import default_slo

PUBLISHED = {
    "llama-3.1-8b": (8.0, 8.0),
    "llama-3.1-70b": (70.6, 70.6),
    "llama-3.1-405b": (405.9, 405.9),
    "qwen3-32b": (32.8, 32.8),
    "qwen3-30b-a3b": (30.5, 3.3),
    "mixtral-8x7b": (46.7, 12.9),
}
"""Billions of parameters, all and active, by the model cards."""

MIXTURE = catalog.model("qwen3-30b-a3b")
COST = CostModel(Hardware(catalog.gpus(), catalog.models()))

mixtures = st.builds(
    Model,
    name=st.just("m"),
    layers=st.integers(2, 40),
    hidden=st.just(1024),
    ffn=st.just(2048),
    heads=st.just(16),
    kv_heads=st.just(4),
    head_dim=st.just(64),
    vocabulary=st.just(1000),
    context=st.just(4096),
    experts=st.integers(8, 64),
    active_experts=st.integers(1, 8),
    expert_ffn=st.integers(1, 4096),
    shared_ffn=st.integers(0, 4096),
    dense_layers=st.just(1),
)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_model_has_its_published_size(name: str) -> None:
    model = catalog.model(name)
    assert (model.parameters / 1e9, model.active_parameters / 1e9) == pytest.approx(PUBLISHED[name], rel=0.02)


def test_heads_need_not_make_up_the_hidden_size() -> None:
    model = catalog.model("qwen3-32b")
    assert model.heads * model.head_dim == 8192 != model.hidden
    wider = replace(model, head_dim=256)
    assert wider.parameters - model.parameters == model.layers * 2 * model.hidden * (64 + 8) * 128


def test_all_experts_take_memory_and_a_token_computes_with_the_active_ones() -> None:
    fewer = replace(MIXTURE, active_experts=4)
    assert fewer.parameters == MIXTURE.parameters
    assert fewer.active_parameters < MIXTURE.active_parameters
    steps, half = (CostModel(Hardware(catalog.gpus(), {"m": replace(model, name="m")})) for model in (MIXTURE, fewer))
    assert steps.steps("m", "h100", 2, 1, 2).weight_bytes == half.steps("m", "h100", 2, 1, 2).weight_bytes
    assert steps.steps("m", "h100", 2, 1, 2).token_s > half.steps("m", "h100", 2, 1, 2).token_s


@given(mixtures, st.integers(1, 500))
def test_a_step_reads_at_least_what_a_token_passes_and_at_most_everything(model: Model, tokens: int) -> None:
    least = model.active_layer_parameters
    everything = model.parameters - 2 * model.vocabulary * model.hidden
    read = model.layer_parameters_read(tokens)
    assert least * (1 - 1e-12) <= read <= everything * (1 + 1e-12)
    assert read <= model.layer_parameters_read(tokens + 1) * (1 + 1e-12)
    assert model.layer_parameters_read(1) == pytest.approx(least)


def test_a_dense_model_is_read_whole_by_every_step() -> None:
    model = catalog.model("llama-3.1-8b")
    assert model.layer_parameters_read(1) == model.layer_parameters_read(256) == model.active_layer_parameters
    assert model.active_mlp_width == model.ffn
    assert model.active_parameters == model.parameters


def test_the_constant_of_a_mixture_is_as_far_off_as_documented() -> None:
    """docs/clusters.md: what is read at one and at 256 sequences, against what the constant stands for."""
    off = {
        name: [
            catalog.model(name).layer_parameters_read(TYPICAL_BATCH) / catalog.model(name).layer_parameters_read(batch)
            for batch in (1, 8, 256)
        ]
        for name in ("qwen3-30b-a3b", "mixtral-8x7b")
    }
    assert off["qwen3-30b-a3b"] == pytest.approx([9.6, 2.08, 0.88], rel=0.02)
    assert off["mixtral-8x7b"] == pytest.approx([3.7, 1.11, 1.00], rel=0.02)


def test_a_mixture_decodes_faster_than_a_dense_model_of_its_size_and_slower_than_one_of_its_active_size() -> None:
    mixture, dense, small = (
        COST.steps(name, "h100", 2, 1, 2).step_s(0, 0, 64, 64 * 1000)
        for name in ("qwen3-30b-a3b", "qwen3-32b", "llama-3.1-8b")
    )
    assert small < mixture < dense


def test_the_slo_goes_by_active_parameters() -> None:
    assert default_slo(MIXTURE.active_parameters).tpot_s == 0.05
    assert default_slo(catalog.model("mixtral-8x7b").active_parameters).tpot_s == 0.05
    assert default_slo(catalog.model("qwen3-32b").active_parameters).tpot_s == 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 0}, "field 'layers' must be at least 1, got 0"),
        ({"kv_heads": 5}, r"field 'heads' must be a multiple of kv_heads \(5\), got 32"),
        ({"experts": 0}, "field 'experts' is 0, so the other fields"),
        ({"active_experts": 129}, r"field 'active_experts' must be from 1 to experts \(128\)"),
        ({"active_experts": 0}, "field 'active_experts'"),
        ({"expert_ffn": 0}, "field 'expert_ffn' must be at least 1"),
        ({"shared_ffn": -1}, "must not be negative"),
        ({"dense_layers": 49}, r"field 'dense_layers' must be at most layers \(48\)"),
        ({"dense_layers": 1}, "field 'ffn' must be positive"),
        ({"ffn": 6144}, "field 'ffn' must be positive if there are layers without experts, and else 0"),
    ],
)
def test_numbers_that_make_no_architecture_are_refused(changes: dict[str, int], message: str) -> None:
    fields: dict[str, Any] = {**asdict(MIXTURE), **changes}
    with pytest.raises(ScenarioError, match=message):
        Model(**fields)
