"""What a load consists of: a trace, a preset or a rate with lengths."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autopoiesis.errors import ScenarioError
from autopoiesis.workload import Requests
from autopoiesis.workload.requests import single_requests

TOKENS_MAX = 10_000_000
REQUESTS_MAX = 1_000_000
"""Of one load: all that came of them is held in memory."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long prompts or answers are, in tokens: `N`, `uniform:LOW:HIGH` or `lognormal:MEDIAN:SIGMA`."""

    distribution: str
    first: float
    """The length, the lowest one or the median."""
    second: float = 0.0
    """The highest one, or the deviation of the logarithm."""

    @staticmethod
    def parse(text: str) -> Lengths:
        """Raises ValueError, with the mend, for text that is none of the forms."""
        name, *numbers = text.split(":") if ":" in text else ("fixed", text)
        try:
            values = [float(number) for number in numbers]
        except ValueError:
            values = []
        wanted = {"fixed": 1, "uniform": 2, "lognormal": 2}.get(name)
        if wanted != len(values) or not all(map(math.isfinite, values)) or not 1 <= values[0] <= TOKENS_MAX:
            raise ValueError("must be tokens, as in 512, uniform:100:900 or lognormal:512:0.6")
        if name == "uniform" and not values[0] <= values[1] <= TOKENS_MAX:
            raise ValueError("must be uniform:LOW:HIGH with HIGH not below LOW")
        if name == "lognormal" and not 0 <= values[1] <= 5:
            raise ValueError("must be lognormal:MEDIAN:SIGMA with SIGMA from 0 to 5")
        return Lengths(name, *values)

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """(count,) tokens, each 1 or more."""
        if self.distribution == "uniform":
            drawn = rng.uniform(self.first - 0.5, self.second + 0.5, count)
        else:
            drawn = self.first * np.exp(self.second * rng.standard_normal(count))
        return np.clip(np.rint(drawn), 1, TOKENS_MAX).astype(np.int64)


def steady(
    rng: np.random.Generator, rate_rps: float, seconds: float, cv: float, prompts: Lengths, answers: Lengths
) -> Requests:
    """Single requests at a rate; `cv` is the coefficient of variation of the gaps between them: 1 of a Poisson process,
    0 evenly spaced, above 1 in bursts. Raises ScenarioError for more requests than a load may have."""
    expected = rate_rps * seconds
    if expected > REQUESTS_MAX:
        raise ScenarioError(f"about {expected:.0f} requests are more than {REQUESTS_MAX}; shorten the load")
    if cv == 0:
        arrival_s = np.arange(math.ceil(expected - 1e-9)) / rate_rps
    else:
        shape = cv**-2
        count = math.ceil(expected + 10 * max(cv, 1.0) * math.sqrt(expected + 1)) + 10
        arrival_s = np.cumsum(rng.gamma(shape, 1 / (rate_rps * shape), count))
        arrival_s = arrival_s[arrival_s < seconds]
    return single_requests(arrival_s, prompts.draw(rng, len(arrival_s)), answers.draw(rng, len(arrival_s)))


def cut(requests: Requests, seconds: float | None, count: int | None) -> Requests:
    """The requests of the first `seconds`, and of these the first `count`. Raises ScenarioError if none is left, or too
    many are."""
    end = len(requests) if seconds is None else int(np.searchsorted(requests.arrival_s, seconds, side="left"))
    end = min(end, len(requests) if count is None else count)
    if not 0 < end <= REQUESTS_MAX:
        raise ScenarioError(
            f"a load must have from 1 to {REQUESTS_MAX} requests, not {end}; change --duration or --rate"
        )
    return requests if end == len(requests) else requests.take(np.arange(end, dtype=np.int64))


def stretched(requests: Requests, factor: float) -> Requests:
    """The same with all times, arrivals and thinking, `factor` times as long."""
    if factor == 1.0:
        return requests
    return replace(requests, arrival_s=requests.arrival_s * factor, think_s=requests.think_s * factor)
