"""A real engine, calibrated on one load, answers another about as the simulator says.

The bound is wide because a shared machine may slow the engine down in the middle of it; `make bench-engine` reports
the errors themselves.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from autopoiesis.bench.engine_prediction import Load, compare, engine_options
from autopoiesis.bench.engine_process import running_engine
from autopoiesis.bench.load import Endpoint

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith(("linux", "darwin")), reason="xllamacpp has no wheel for this platform"
)

HERE = Path(__file__).parent
FIRST_WORD, LAST_WORD = 259, 2047
SLOTS, BATCHED_TOKENS = 8, 256
BOUND = 0.5
CALIBRATION, OTHER = Load(3.5, 64, 16, seconds=24.0), Load(2.5, 32, 48, seconds=24.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "random.gguf"
    subprocess.run([sys.executable, HERE / "random_gguf.py", file], check=True, timeout=60)
    return file


def test_latencies_of_another_load_are_predicted(model: Path) -> None:
    command = [sys.executable, str(HERE / "llamacpp_server.py"), str(model)]
    with running_engine([*command, f"--slots={SLOTS}", f"--batched-tokens={BATCHED_TOKENS}"], start_s=60) as engine:
        comparison, _ = compare(
            Endpoint(f"{engine.address}/v1", "random"),
            engine_options(SLOTS, BATCHED_TOKENS),
            CALIBRATION,
            OTHER,
            token_ids=(FIRST_WORD, LAST_WORD),
            parts=8,
            turns=8,
            seed=1,
            group=engine.group,
        )
    assert comparison.failures == ()
    assert comparison.calibration_requests > 50
    assert comparison.fit.steps > 300
    errors = {entry.name: entry.error for entry in comparison.percentiles}
    assert abs(errors["end to end p50"]) < BOUND, errors
    assert abs(errors["TTFT p50"]) < BOUND, errors
