"""vLLM on a CPU, calibrated on one load, answers another about as the simulator says (bound: see the llama.cpp test).

`VLLM_PYTHON` names the interpreter of an environment with vLLM; `make test-slow` makes one and sets it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autopoiesis.bench.engine_prediction import Load, compare, engine_options
from autopoiesis.bench.engine_process import running_engine
from autopoiesis.bench.load import Endpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("VLLM_PYTHON" not in os.environ, reason="needs vLLM; run it by `make test-slow`"),
]

SLOTS, BATCHED_TOKENS = 8, 256
BOUND = 0.5


def test_latencies_of_another_load_are_predicted() -> None:
    command = [os.environ["VLLM_PYTHON"], str(Path(__file__).parent / "vllm_server.py")]
    with running_engine([*command, f"--slots={SLOTS}", f"--batched-tokens={BATCHED_TOKENS}"], start_s=300) as engine:
        comparison, _ = compare(
            Endpoint(f"{engine.address}/v1", "random"),
            engine_options(SLOTS, BATCHED_TOKENS),
            Load(2.5, 64, 16, seconds=32.0),
            Load(1.5, 32, 40, seconds=32.0),
            token_ids=(3, 2047),
            parts=8,
            turns=8,
            seed=1,
            group=engine.group,
        )
    assert comparison.failures == ()
    assert comparison.fit.steps > 300
    errors = {entry.name: entry.error for entry in comparison.percentiles}
    assert abs(errors["end to end p50"]) < BOUND, errors
