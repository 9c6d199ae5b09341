"""Fitting coefficients to measured steps, and how far predictions are off.

A GPU kind's `Efficiencies` are fitted to all its steps, so that they carry over to shapes that were not measured; then
each shape's are fitted to its own steps, starting from the kind's, and kept as that shape's `Coefficients`. Both
minimise relative errors within `BOUNDS`:

    Σ weight · √(error² + (1 %)²)  +  RIDGE · Σ ln²(efficiency / prior)

Errors well above one percent count by their size and not by their square, so a kernel that is off in one corner does
not bend the rest. The ridge keeps what the steps do not determine where the prior has it: all-reduces in a file without
tensor parallel groups, decode in a file of prefills.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from autopoiesis.cluster import Hardware
from autopoiesis.cost.coefficients import KV_DTYPE_BYTES, Coefficients
from autopoiesis.cost.efficiencies import BOUNDS, UNMEASURED, Efficiencies, roofline
from autopoiesis.cost.fitted import Fitted, rounded_coefficients, rounded_efficiencies
from autopoiesis.cost.measurements import DECODE, MIXED, PHASES, PREFILL, MeasuredShape, MeasuredSteps
from autopoiesis.cost.model import CostModel
from autopoiesis.cost.step import StepTimes

PHASE_WEIGHTS = {PREFILL: 1.0, DECODE: 1.0, MIXED: 0.5}
"""Whatever the number of their steps; how a mixed step was made up is known only on average."""
KNEE = 0.01
RIDGE = 0.003
"""Against weights that sum to 2.5: a factor of two on one efficiency counts as much as 0.06 % of error everywhere."""
ITERATIONS = 60
SMALL_STEP = 1e-4
"""Of a logarithm, for derivatives."""

Floats = NDArray[np.float64]


def fit(steps: MeasuredSteps, hardware: Hardware) -> Fitted:
    """Both levels, as a file would keep them. Deterministic."""
    efficiencies: dict[str, Efficiencies] = {}
    measured: list[Coefficients] = []
    for gpu in sorted({shape.gpu for shape in steps.shapes}):
        shapes = [shape for shape in steps.shapes if shape.gpu == gpu]
        efficiencies[gpu] = rounded_efficiencies(fit_efficiencies(steps.of(*shapes), hardware, UNMEASURED))
        for shape in shapes:
            own = fit_efficiencies(steps.of(shape), hardware, efficiencies[gpu])
            measured.append(rounded_coefficients(_coefficients(shape, hardware, own)))
    return Fitted(efficiencies, tuple(measured))


def predicted_s(cost: CostModel, steps: MeasuredSteps) -> Floats:
    """(n,) seconds of each step by the cost model."""
    seconds = np.empty(len(steps))
    for number, shape in enumerate(steps.shapes):
        times = cost.steps(shape.model, shape.gpu, shape.tensor_parallel, 1, KV_DTYPE_BYTES)
        rows = steps.shape == number
        seconds[rows] = step_seconds(times, steps.where(rows))
    return seconds


def mape(cost: CostModel, steps: MeasuredSteps) -> dict[str, float | None]:
    """Mean absolute error relative to the measurement, by phase; None where no step is of the phase."""
    off = np.abs(predicted_s(cost, steps) / steps.seconds - 1)
    return {
        name: float(off[steps.phase == phase].mean()) if np.any(steps.phase == phase) else None
        for phase, name in enumerate(PHASES)
    }


def step_seconds(times: StepTimes | Coefficients, steps: MeasuredSteps) -> Floats:
    """(n,) `StepTimes.step_s` of every step, whatever shape it was measured on."""
    tokens = steps.prefill_tokens + steps.sequences
    return np.asarray(
        times.fixed_s
        + times.prefill_fixed_s * (steps.prefill_tokens > 0)
        + np.maximum(times.weights_s, times.token_s * tokens)
        + times.communication_s * tokens
        + times.attention_s * steps.attention
        + times.context_s * steps.context
        + times.sequence_s * steps.sequences
    )


def fit_efficiencies(steps: MeasuredSteps, hardware: Hardware, prior: Efficiencies) -> Efficiencies:
    """The efficiencies of one GPU kind that explain its steps best: damped Gauss–Newton on their logarithms, with
    errors reweighted at every step (Holland and Welsch 1977) and bounds kept by projection."""
    names = [field.name for field in fields(Efficiencies)]
    low, high = np.log(np.array([BOUNDS[name] for name in names])).T
    start = np.log(np.array([getattr(prior, name) for name in names]))
    weights = np.zeros(len(steps))
    for phase, weight in PHASE_WEIGHTS.items():
        rows = steps.phase == phase
        weights[rows] = weight / max(int(rows.sum()), 1)

    def errors(point: Floats) -> Floats:
        own = _efficiencies(names, np.clip(point, low, high))
        seconds = np.empty(len(steps))
        for number, shape in enumerate(steps.shapes):
            rows = steps.shape == number
            seconds[rows] = step_seconds(_coefficients(shape, hardware, own), steps)[rows]
        return seconds / steps.seconds - 1

    def loss(off: Floats, point: Floats) -> float:
        return float(weights @ np.sqrt(off**2 + KNEE**2) + RIDGE * np.sum((point - start) ** 2))

    point, off, damping = start, errors(start), 1e-3
    best = loss(off, point)
    for _ in range(ITERATIONS):
        slopes = _slopes(errors, point, off, high)
        reweighted = weights / np.sqrt(off**2 + KNEE**2)
        gradient = slopes.T @ (reweighted * off) + 2 * RIDGE * (point - start)
        curvature = slopes.T @ (reweighted[:, None] * slopes) + 2 * RIDGE * np.eye(len(point))
        free = ~((point <= low) & (gradient > 0) | (point >= high) & (gradient < 0))
        before = best
        while damping < 1e6:
            damped = curvature + damping * np.diag(np.diag(curvature))
            move = np.zeros(len(point))
            move[free] = -np.linalg.solve(damped[np.ix_(free, free)], gradient[free])
            candidate = np.clip(point + np.clip(move, -1.0, 1.0), low, high)
            candidate_off = errors(candidate)
            candidate_loss = loss(candidate_off, candidate)
            if candidate_loss < best:
                point, off, best = candidate, candidate_off, candidate_loss
                damping = max(damping / 5, 1e-9)
                break
            damping *= 4
        if before - best < 1e-7 * before:
            break
    return _efficiencies(names, point)


def _slopes(errors: Callable[[Floats], Floats], point: Floats, off: Floats, high: Floats) -> Floats:
    """(n, efficiencies) derivatives of the errors, by differences that stay within the bounds."""
    columns = []
    for i in range(len(point)):
        moved = point.copy()
        moved[i] += SMALL_STEP if point[i] + SMALL_STEP <= high[i] else -SMALL_STEP
        columns.append((errors(moved) - off) / (moved[i] - point[i]))
    return np.stack(columns, axis=1)


def _efficiencies(names: list[str], point: Floats) -> Efficiencies:
    # The exponential of a bound's logarithm may lie a hair beyond the bound.
    return Efficiencies(
        **{
            name: min(max(float(value), BOUNDS[name][0]), BOUNDS[name][1])
            for name, value in zip(names, np.exp(point), strict=True)
        }
    )


def _coefficients(shape: MeasuredShape, hardware: Hardware, efficiencies: Efficiencies) -> Coefficients:
    # Not through the cache: a fit tries thousands of efficiencies once each.
    model, gpu = hardware.models[shape.model], hardware.gpus[shape.gpu]
    return roofline.__wrapped__(model, gpu, shape.tensor_parallel, 1, efficiencies)
