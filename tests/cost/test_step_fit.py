"""Fitting the terms of a step: exact where the data are, near where they are noisy, never negative."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telemetry_scenes import Terms, serve

from autopoiesis.cost.observed_steps import observed_steps
from autopoiesis.cost.step_fit import StepFit, fit_steps, nonnegative_least_squares
from autopoiesis.cost.telemetry import Stream
from autopoiesis.errors import TraceError

BUDGET = 128
PROBES = ((0, 0, 1, 50), (0, 0, 6, 900), (0, 0, 20, 2000), (60, 3600, 0, 0), (100, 10_000, 5, 500))
"""Steps of each kind: prefill tokens, attention, sequences, contexts."""


def streams(seed: int, noise: float | None, terms: Terms) -> list[Stream]:
    rng = np.random.default_rng(seed)
    n = 150
    sent_s = np.sort(rng.uniform(0, 20, n))
    requests = [(float(t), int(rng.integers(4, 200)), int(rng.integers(2, 60))) for t in sent_s]
    return serve(
        requests,
        terms,
        batched_tokens=BUDGET,
        max_sequences=64,
        rng=None if noise is None else rng,
        noise=noise or 0.0,
    )[0]


def step_s(fit: StepFit, prefill_tokens: int, attention: int, sequences: int, contexts: int) -> float:
    known = {name: value for name, value in asdict(fit).items() if name in Terms.__dataclass_fields__}
    return Terms(**known).step_s(prefill_tokens, attention, sequences, contexts)


def test_steps_without_noise_are_explained() -> None:
    terms = Terms()
    fit = fit_steps(observed_steps(streams(1, None, terms), BUDGET, 64))
    assert fit.error < 0.02
    assert fit.explained == pytest.approx(1.0, abs=0.01)
    assert fit.request_s == pytest.approx(terms.request_s, abs=0.0005)
    for probe in PROBES:
        assert step_s(fit, *probe) == pytest.approx(terms.step_s(*probe), rel=0.05)


def test_interruptions_raise_the_level_and_do_not_bend_the_fit() -> None:
    terms = Terms()
    fit = fit_steps(observed_steps(streams(2, 0.1, terms), BUDGET, 64))
    for probe in PROBES:
        # one step in fifty took ten times as long
        assert step_s(fit, *probe) == pytest.approx(1.18 * terms.step_s(*probe), rel=0.15)


def test_an_engine_twice_as_slow_has_coefficients_twice_as_large() -> None:
    terms = Terms()
    slow = replace(terms, **{name: 2 * value for name, value in asdict(terms).items()})
    one, other = (fit_steps(observed_steps(streams(3, None, each), BUDGET, 64)) for each in (terms, slow))
    for probe in PROBES:
        assert step_s(other, *probe) == pytest.approx(2 * step_s(one, *probe), rel=0.05)


def test_coefficients_carry_the_configuration() -> None:
    fit = fit_steps(observed_steps(streams(1, None, Terms()), BUDGET, 64))
    key = {"model": "m", "gpu": "g", "tensor_parallel": 2, "pipeline_parallel": 1, "engine": "e", "dtype": "bf16"}
    coefficients = fit.coefficients(**key)  # type: ignore[arg-type]
    assert {name: getattr(coefficients, name) for name in key} == key
    assert coefficients.token_s == fit.token_s
    assert coefficients.communication_s == 0.0


def test_too_little_telemetry_is_refused() -> None:
    with pytest.raises(TraceError, match="record a load with at least 50"):
        fit_steps(observed_steps([Stream(0.0, 8, (0.1, 0.2))], BUDGET, 64))
    with pytest.raises(TraceError, match="only one kind of step"):
        fit_steps(observed_steps([Stream(i, 8, (i + 0.1,)) for i in range(60)], BUDGET, 64))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7))
def test_nonnegative_least_squares_is_optimal(seed: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    matrix, target = rng.standard_normal((30, columns)), rng.standard_normal(30)
    x = nonnegative_least_squares(matrix, target)
    gradient = matrix.T @ (matrix @ x - target)
    # the conditions of Karush, Kuhn and Tucker
    assert np.all(x >= 0)
    assert np.all(gradient >= -1e-8)
    assert np.all(np.abs(gradient[x > 0]) < 1e-8)
