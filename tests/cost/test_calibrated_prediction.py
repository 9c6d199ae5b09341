"""The whole way without noise: an engine on paper, its telemetry, coefficients, and the latencies of another load.

What is left of an error here is that of the method; what a real engine adds is its own.
"""

from __future__ import annotations

import numpy as np
import pytest
from telemetry_scenes import Terms, serve

from autopoiesis.bench.engine_prediction import Load, engine_options, predict
from autopoiesis.cost.observed_steps import observed_steps
from autopoiesis.cost.step_fit import StepFit, fit_steps
from autopoiesis.cost.telemetry import Stream
from autopoiesis.workload import Requests

BUDGET, SLOTS = 256, 8
CALIBRATION, OTHER = Load(6.0, 64, 16, seconds=30.0), Load(5.0, 32, 48, seconds=30.0)


def served(requests: Requests) -> list[Stream]:
    rows = zip(
        requests.arrival_s.tolist(), requests.input_tokens.tolist(), requests.output_tokens.tolist(), strict=True
    )
    return serve(list(rows), Terms(), batched_tokens=BUDGET, max_sequences=SLOTS)[0]


@pytest.fixture(scope="module")
def fit() -> StepFit:
    return fit_steps(observed_steps(served(CALIBRATION.draw(np.random.default_rng(1))), BUDGET, SLOTS))


@pytest.mark.parametrize("seed", [2, 3])
def test_latencies_of_another_load_are_predicted(fit: StepFit, seed: int) -> None:
    requests = OTHER.draw(np.random.default_rng(seed))
    streams = served(requests)
    predicted = predict(requests, fit, engine_options(SLOTS, BUDGET))
    for measured, said in (
        ([stream.ttft_s for stream in streams], predicted.ttft_s),
        ([stream.e2e_s for stream in streams], predicted.e2e_s),
    ):
        assert np.quantile(said, (0.5, 0.9)) == pytest.approx(np.quantile(measured, (0.5, 0.9)), rel=0.05)


def test_the_engine_s_limits_matter(fit: StepFit) -> None:
    requests = OTHER.draw(np.random.default_rng(2))
    right = predict(requests, fit, engine_options(SLOTS, BUDGET))
    alone = predict(requests, fit, engine_options(1, BUDGET))
    assert np.median(alone.e2e_s) > 2 * np.median(right.e2e_s)
