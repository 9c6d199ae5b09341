"""Step times: the shape of the formula, memory, and a request that is alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.cluster import Hardware, catalog
from autopoiesis.cost import CostModel, StepTimes

SMALL, LARGE = catalog.model("llama-3.1-8b"), catalog.model("llama-3.1-70b")
GPUS = catalog.gpus()
H100 = GPUS["h100"]
COST = CostModel(Hardware(GPUS, catalog.models()))


def times(gpu: str = "h100", tp: int = 1, pp: int = 1, kv: int = 2, slow: float = 1.0) -> StepTimes:
    return COST.with_slow({gpu: slow}).steps(SMALL.name, gpu, tp, pp, kv)


def test_the_weights_of_a_model_are_its_parameters() -> None:
    assert SMALL.parameters == pytest.approx(8.03e9, rel=0.01)
    assert LARGE.parameters == pytest.approx(70.6e9, rel=0.01)
    assert times().weight_bytes == 2 * SMALL.parameters


def test_a_decode_step_of_one_sequence_reads_the_weights_once() -> None:
    seconds = times().step_s(0, 0, 1, 1000)
    read = 2 * (SMALL.parameters - SMALL.vocabulary * SMALL.hidden) / H100.memory_bandwidth
    assert read < seconds < 1.7 * read


def test_a_prefill_of_many_tokens_is_bound_by_compute() -> None:
    seconds = times().step_s(8192, 8192.0**2, 0, 0)
    compute = 2 * 8192 * SMALL.active_layer_parameters / H100.flops
    assert compute < seconds < 2.5 * compute


@given(
    st.sampled_from(sorted(GPUS)),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(0, 8192),
    st.integers(0, 256),
    st.floats(0, 1e6),
)
def test_more_work_takes_no_less_time(gpu: str, tp: int, tokens: int, sequences: int, context: float) -> None:
    one = times(gpu, tp)
    base = one.step_s(tokens, tokens**2, sequences, context)
    assert base > 0
    assert one.step_s(tokens + 1, (tokens + 1) ** 2, sequences, context) >= base
    assert one.step_s(tokens, tokens**2, sequences + 1, context) >= base
    assert one.step_s(tokens, tokens**2, sequences, context + 100) >= base


@given(st.sampled_from(sorted(GPUS)), st.floats(0.5, 2.0), st.integers(0, 4000), st.integers(1, 200))
def test_a_slow_gpu_is_slow_in_every_term(gpu: str, slow: float, tokens: int, sequences: int) -> None:
    usual = times(gpu).step_s(tokens, tokens**2, sequences, 1000.0 * sequences)
    assert times(gpu, slow=slow).step_s(tokens, tokens**2, sequences, 1000.0 * sequences) == pytest.approx(slow * usual)


@pytest.mark.parametrize("gpu", ["h100", "a100", "l40s"])
def test_tensor_parallel_groups_are_quicker_and_less_than_proportionally(gpu: str) -> None:
    decode = [times(gpu, tp).step_s(0, 0, 32, 32 * 1000) for tp in (1, 2, 4)]
    assert decode[0] > decode[1] > decode[2] > decode[0] / 4


def test_a_half_as_wide_cache_holds_twice_as_much_and_is_read_in_half_the_time() -> None:
    wide, narrow = times(kv=2), times(kv=1)
    assert narrow.kv_tokens == pytest.approx(2 * wide.kv_tokens, abs=1)
    assert narrow.context_s == pytest.approx(wide.context_s / 2)


def test_the_cache_takes_what_weights_and_activations_leave() -> None:
    one = times()
    per_token = 2 * SMALL.layers * SMALL.kv_heads * SMALL.head_dim * 2
    assert one.kv_bytes_per_token == per_token
    left = 0.9 * H100.memory_bytes - one.weight_bytes - 5.5 * 2**30 - 0.15 * 2**30
    assert one.kv_tokens == int(left / per_token)
    assert COST.steps(LARGE.name, "h100", 1, 1, 2).kv_tokens <= 0


@given(st.integers(1, 20_000), st.integers(0, 3000))
def test_alone_a_request_takes_its_prefill_and_its_steps_one_by_one(prompt: int, output: int) -> None:
    one = times()
    chunks = -(-prompt // 8192)
    left, prefill = prompt, 0.0
    for chunk in range(chunks):
        tokens = prompt / chunks
        start = tokens * chunk
        prefill += one.step_s(tokens, (start + tokens) ** 2 - start**2, 0, 0)
        left -= int(tokens)
    steps = sum(one.step_s(0, 0, 1, prompt + k + 1) for k in range(max(output - 1, 0)))
    assert one.unloaded_s(prompt, output, 8192) == pytest.approx(prefill + steps, rel=1e-6)


@given(st.sampled_from([2, 4]), st.integers(1, 20_000), st.integers(0, 300))
def test_alone_in_a_pipeline_a_chunk_fills_one_stage_at_a_time(stages: int, prompt: int, output: int) -> None:
    """As long as if no stage had been added, but for the hops and the weights, which no micro-batch shares."""
    piped, single = times(pp=stages), times()
    assert (piped.stages, single.stages) == (stages, 1)
    chunks = -(-prompt // 8192)
    passes = chunks + max(output - 1, 0)
    hop = (stages - 1) * (50e-6 + 2 * SMALL.hidden / H100.network_bandwidth * max(prompt / chunks, 1))
    alone = single.unloaded_s(prompt, output, 8192)
    # measured and derived coefficients of the same layers are a few percent apart
    assert 0.9 * alone < piped.unloaded_s(prompt, output, 8192) < 1.1 * alone + passes * hop


def test_full_stages_share_the_work_and_not_the_weights() -> None:
    one, two = (CostModel(COST.hardware, measured=()).steps(SMALL.name, "h100", 1, pp, 2) for pp in (1, 2))
    for name in ("token_s", "attention_s", "context_s", "sequence_s"):
        assert getattr(two, name) == pytest.approx(getattr(one, name) / 2)
    hop = 2 * SMALL.hidden / H100.network_bandwidth
    assert two.communication_s == pytest.approx((one.communication_s + hop) / 2)
    assert two.weights_s == one.weights_s
    assert two.fixed_s == pytest.approx(one.fixed_s + 50e-6)
