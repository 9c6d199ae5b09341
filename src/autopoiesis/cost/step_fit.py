"""Step coefficients of one engine configuration from the steps it was seen to take.

    step = fixed + [prefill fixed] + max(weights, token · T) + attention · Σ(S² − p²) + context · Σctx + sequence · n

with T new tokens, n of them of decoding sequences, plus a constant per request that an idle engine's first step shows:
HTTP, tokenising, the client's connection. Where the batch is so large that computing takes as long as reading the
weights is searched; with that number of tokens given, the rest is linear and solved by non-negative least squares.

A step interrupted by the operating system, or seen late, is an outlier: residuals beyond a few deviations count by
their size only (Huber). Deviations are taken to grow with the square root of the duration, as interruptions that come
at random do. Such a fit runs through the middle of the steps; as small interruptions are part of an engine's life, and
latencies are sums of steps, its level is then set to what steps take on average: the median of the means of blocks
(Nemirovsky and Yudin, 1983), so that a machine that was busy with something else for a while does not count.

One configuration cannot tell communication per token from computing per token: it is in `token_s`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopoiesis.cost.coefficients import Coefficients
from autopoiesis.cost.observed_steps import ObservedSteps
from autopoiesis.errors import TraceError

STEPS_MIN = 50
"""With fewer steps the seven terms are guesses."""
HUBER = 2.0
"""Deviations beyond which a residual is an outlier."""
BLOCKS = 15
"""Of about equal duration, into which steps are cut to set the level."""
NORMAL_MEDIAN = 0.6745
"""Median of |x| in deviations, for normal x."""
SHORTEST = 0.01
"""Of the mean step: no step is weighted as if it were expected to be shorter."""
ROUNDS = 30
BREAKPOINTS = 24

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StepFit:
    """Coefficients in seconds, and how well they explain the steps."""

    fixed_s: float
    prefill_fixed_s: float
    weights_s: float
    token_s: float
    attention_s: float
    context_s: float
    sequence_s: float
    request_s: float
    """Constant per request, outside the engine."""
    steps: int
    explained: float
    """Sum of predicted ÷ sum of observed seconds."""
    error: float
    """Median of |predicted − observed| ÷ predicted."""

    def coefficients(
        self, *, model: str, gpu: str, tensor_parallel: int, pipeline_parallel: int, engine: str, dtype: str
    ) -> Coefficients:
        """What was fitted, under the name of the configuration that it was measured on."""
        return Coefficients(
            model=model,
            gpu=gpu,
            tensor_parallel=tensor_parallel,
            pipeline_parallel=pipeline_parallel,
            engine=engine,
            dtype=dtype,
            fixed_s=self.fixed_s,
            prefill_fixed_s=self.prefill_fixed_s,
            weights_s=self.weights_s,
            token_s=self.token_s,
            communication_s=0.0,
            attention_s=self.attention_s,
            context_s=self.context_s,
            sequence_s=self.sequence_s,
        )


def fit_steps(steps: ObservedSteps) -> StepFit:
    """Fit all terms. Raises TraceError if there are too few steps or none with, or none without, prompt tokens."""
    if len(steps) < STEPS_MIN:
        raise TraceError(f"{len(steps)} steps can be told from the telemetry; record a load with at least {STEPS_MIN}")
    if not np.any(steps.prefill_tokens > 0) or np.all(steps.prefill_tokens > 0):
        raise TraceError("the telemetry shows only one kind of step; record a load in which prompts come and decode")
    tokens = (steps.prefill_tokens + steps.sequences).astype(np.float64)
    best: tuple[float, float, Vector] | None = None
    for breakpoint_ in _breakpoints(tokens):
        columns = np.stack(
            [
                np.ones(len(steps)),
                steps.prefill_tokens > 0,
                np.maximum(tokens, breakpoint_),
                steps.attention,
                steps.contexts,
                steps.sequences,
                steps.after_idle,
            ],
            axis=1,
        ).astype(np.float64)
        loss, solution = _huber(columns, steps.seconds)
        if best is None or loss < best[0] * (1 - 1e-6):
            best = loss, breakpoint_, solution
    assert best is not None
    _, breakpoint_, x = best
    predicted = _predicted(x, breakpoint_, steps, tokens)
    level = _level(steps.seconds, predicted)
    x, predicted = level * x, level * predicted
    return StepFit(
        fixed_s=float(x[0]),
        prefill_fixed_s=float(x[1]),
        weights_s=float(x[2] * breakpoint_),
        token_s=float(x[2]),
        attention_s=float(x[3]),
        context_s=float(x[4]),
        sequence_s=float(x[5]),
        request_s=float(x[6]),
        steps=len(steps),
        explained=float(predicted.sum() / steps.seconds.sum()),
        error=float(np.median(np.abs(predicted - steps.seconds) / predicted)),
    )


def _predicted(x: Vector, breakpoint_: float, steps: ObservedSteps, tokens: Vector) -> Vector:
    linear = np.maximum(tokens, breakpoint_)
    predicted = x[0] + x[1] * (steps.prefill_tokens > 0) + x[2] * linear + x[3] * steps.attention
    return np.asarray(predicted + x[4] * steps.contexts + x[5] * steps.sequences + x[6] * steps.after_idle)


def _level(seconds: Vector, predicted: Vector) -> float:
    """Observed ÷ predicted seconds, median of the blocks."""
    ends = np.cumsum(predicted)
    block = np.minimum((ends / ends[-1] * BLOCKS).astype(np.int64), BLOCKS - 1)
    expected = np.bincount(block, weights=predicted, minlength=BLOCKS)
    observed = np.bincount(block, weights=seconds, minlength=BLOCKS)
    return float(np.median(observed[expected > 0] / expected[expected > 0]))


def _breakpoints(tokens: Vector) -> list[float]:
    """Candidates for weights ÷ token, from none (computing always takes longer) to as large as any step."""
    return [0.0, *np.geomspace(1.0, max(tokens.max(), 2.0), BREAKPOINTS).tolist()]


def _huber(columns: Vector, seconds: Vector) -> tuple[float, Vector]:
    """Loss and solution of the non-negative Huber regression, by reweighting."""
    solution = nonnegative_least_squares(columns, seconds)
    loss = np.inf
    for _ in range(ROUNDS):
        # by what is predicted: weights that follow what was observed would favour steps that seem short
        expected = np.maximum(columns @ solution, SHORTEST * float(seconds.mean()))
        residual = np.abs(seconds - columns @ solution) / np.sqrt(expected)
        deviation = max(float(np.median(residual)) / NORMAL_MEDIAN, 1e-9)
        by = np.sqrt(np.minimum(1.0, HUBER * deviation / np.maximum(residual, 1e-300)) / expected)
        before, solution = solution, nonnegative_least_squares(columns * by[:, None], seconds * by)
        # judged by one norm for all breakpoints: the deviation differs between them
        loss = float((np.abs(seconds - columns @ solution) / np.sqrt(expected)).sum())
        if np.allclose(solution, before, rtol=1e-4, atol=0.0):
            break
    return loss, solution


def nonnegative_least_squares(matrix: Vector, target: Vector) -> Vector:
    """x ≥ 0 that minimises |matrix·x − target| (Lawson and Hanson, Solving Least Squares Problems, 1974, ch. 23)."""
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1.0
    matrix = matrix / scale
    n = matrix.shape[1]
    x = np.zeros(n)
    free = np.zeros(n, dtype=bool)
    tolerance = 1e-10 * max(float(np.abs(matrix.T @ target).max(initial=0.0)), 1e-300)
    for _ in range(10 * n):
        gradient = matrix.T @ (target - matrix @ x)
        gradient[free] = -np.inf
        if free.all() or gradient.max() <= tolerance:
            break
        free[int(np.argmax(gradient))] = True
        while True:
            trial = np.zeros(n)
            trial[free] = np.linalg.lstsq(matrix[:, free], target, rcond=None)[0]
            if trial[free].min() > 0:
                x = trial
                break
            bad = free & (trial <= 0)
            step = float(np.min(x[bad] / np.maximum(x[bad] - trial[bad], 1e-300)))
            x = x + step * (trial - x)
            free &= x > 1e-14
            x[~free] = 0.0
            if not free.any():
                break
    return np.asarray(x / scale)
