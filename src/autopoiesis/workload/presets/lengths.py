"""How long prompts and outputs are: mixtures of lognormals, and means that move over days."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autopoiesis.workload.presets.arrivals import Floats, autoregressive
from autopoiesis.workload.presets.specification import Lengths, Mix, Quantiles, Text

Integers = NDArray[np.int64]


def drawn_lengths(spec: Lengths, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """(count,) prompts and outputs, not yet whole numbers nor cut."""
    modes = spec.modes
    mode = _chosen([mode.share for mode in modes], count, rng)

    def lognormal(medians: Sequence[float], sigmas: Sequence[float]) -> Floats:
        z: Floats = np.array(sigmas)[mode] * rng.standard_normal(count)
        return np.array(medians)[mode] * np.exp(z)

    prompts = lognormal([mode.input_median for mode in modes], [mode.input_sigma for mode in modes])
    outputs = lognormal([mode.output_median for mode in modes], [mode.output_sigma for mode in modes])
    return prompts, outputs


def whole(tokens: Floats, most: int) -> Integers:
    """Whole numbers of tokens, from 1 to `most`."""
    return np.clip(np.rint(tokens), 1, most).astype(np.int64)


def texts(kinds: Sequence[Text], count: int, rng: np.random.Generator) -> Floats:
    """(count,) draws from a mixture of lognormals."""
    kind = _chosen([text.share for text in kinds], count, rng)
    sigma = np.array([text.sigma for text in kinds])[kind]
    drawn: Floats = np.array([text.median for text in kinds])[kind] * np.exp(sigma * rng.standard_normal(count))
    return drawn


def from_quantiles(quantiles: Quantiles, count: int, rng: np.random.Generator) -> Floats:
    """(count,) draws; nothing lies beyond the outermost quantiles."""
    return np.interp(rng.uniform(size=count), [at for at, _ in quantiles], [value for _, value in quantiles])


def moving_means(
    spec: Mix, steps: int, step_s: float, amplitude: float, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """(steps,) factors on the means of prompt and output: logarithms of mean 0 that wander `amplitude` times as far as
    specified."""
    noise = rng.standard_normal((2, steps))
    noise[1] = spec.correlation * noise[0] + math.sqrt(1.0 - spec.correlation**2) * noise[1]
    prompt = autoregressive(noise[0], math.exp(-step_s / (3600.0 * spec.input_tau_h)))
    output = autoregressive(noise[1], math.exp(-step_s / (3600.0 * spec.output_tau_h)))
    return np.exp(amplitude * spec.input_sd * prompt), np.exp(amplitude * spec.output_sd * output)


def _chosen(shares: Sequence[float], count: int, rng: np.random.Generator) -> Integers:
    """(count,) kinds, each with its share."""
    edges = np.cumsum(shares)
    kinds = np.searchsorted(edges / edges[-1], rng.uniform(size=count), side="right")
    return np.minimum(kinds, len(edges) - 1).astype(np.int64)
