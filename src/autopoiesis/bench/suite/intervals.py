"""Means with Student's interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Two-sided 95 % points of Student's t with 1 to 30 degrees of freedom; any table of the distribution has them."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `n` values and half the width of its 95 % interval; None where there is none."""

    mean: float
    half: float | None
    n: int

    @property
    def low(self) -> float:
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        return self.mean + (self.half or 0.0)


def interval(values: Sequence[float]) -> Interval | None:
    """The mean with Student's interval; None of nothing. Where a value is infinite the mean is, without an interval."""
    n = len(values)
    if not n:
        return None
    mean = math.fsum(values) / n if all(map(math.isfinite, values)) else max(values, key=abs)
    if n == 1 or not math.isfinite(mean):
        return Interval(mean, None, n)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Interval(mean, student_95(n - 1) * deviation / math.sqrt(n), n)


def student_95(freedom: int) -> float:
    """Two-sided 95 % point of Student's t; beyond the table by the first terms of its Cornish-Fisher expansion."""
    if freedom <= len(T_95):
        return T_95[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
