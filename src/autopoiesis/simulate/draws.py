"""Random numbers of the kernel: words mixed from counters, so that no order of events can disturb them."""

from __future__ import annotations

from typing import Any

import numpy as np

from autopoiesis.simulate.jit import inlined
from autopoiesis.simulate.layout import NOISE_BITS, Whole


@inlined
def hash64(x: Whole) -> Whole:
    """SplitMix64: a well-mixed word from a counter."""
    z = np.uint64(x) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@inlined
def uniform(seed: Whole, counter: Whole) -> float:
    """The draw of this number, uniform in [0, 1)."""
    return np.float64(hash64(np.uint64(seed) ^ hash64(np.uint64(counter))) >> np.uint64(11)) * (1.0 / (1 << 53))


@inlined
def noise_factor(replica: Any) -> Whole:
    """The factor of this batch's steps, drawn once per change of the batch: 1 + noise · N(0, 1), from four uniforms."""
    if replica.noise == 0:
        return np.int64(1 << NOISE_BITS)
    word = hash64(np.uint64(replica.seed) ^ hash64(np.uint64(replica.epoch)))
    total = np.int64(word & np.uint64(0xFFFF)) + np.int64((word >> np.uint64(16)) & np.uint64(0xFFFF))
    total += np.int64((word >> np.uint64(32)) & np.uint64(0xFFFF)) + np.int64(word >> np.uint64(48))
    # four uniforms on [0, 2^16) have mean 2^17 and standard deviation 2^16 / sqrt(3)
    deviation = (total - 131072) * replica.noise * 1774 // (65536 * 1024)
    return max(np.int64(1 << NOISE_BITS) + deviation, np.int64(1 << (NOISE_BITS - 2)))
