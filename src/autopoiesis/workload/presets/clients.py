"""Who sends the requests: clients of unequal size that come and go."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopoiesis.workload.presets.arrivals import Floats, cumulative, gamma_arrivals, weibull_arrivals
from autopoiesis.workload.presets.lengths import Integers, from_quantiles
from autopoiesis.workload.presets.specification import Clients

WINDOW_S = 600.0
"""A client comes and goes between windows of this length, as in the statistics that the presets come from."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """The clients of one load."""

    share: Floats
    """(clients, windows) of the requests of a window, 0 for a client that is away; the largest client comes first."""
    weibull: NDArray[np.bool_]
    shape: Floats
    """(clients,) of the inter-arrival times: Weibull or else Gamma."""
    input_factor: Floats
    output_factor: Floats
    """(clients,) a client's mean lengths relative to those of all."""


def crowd(spec: Clients, end_s: float, rng: np.random.Generator) -> Crowd:
    """Draw the clients and when each is there, until `end_s`."""
    rank = np.arange(1, spec.count + 1)
    size = (rank + spec.zipf_offset) ** -spec.zipf_exponent
    active = np.sort(from_quantiles(spec.active_share, spec.count, rng))[::-1]
    # Somebody is always there to send what the rate says.
    active[0] = 1.0
    windows = max(math.ceil(end_s / WINDOW_S), 1)
    present = _present(active, spec.active_h * 3600.0 / WINDOW_S, windows, rng)
    share = present * (size / active)[:, None]
    weibull = rng.uniform(size=spec.count) < spec.weibull_share
    shapes = [from_quantiles(quantiles, spec.count, rng) for quantiles in (spec.weibull_shape, spec.gamma_shape)]
    factors = np.exp(spec.length_sd * rng.standard_normal((2, spec.count)))
    return Crowd(share / share.sum(axis=0), weibull, np.where(weibull, *shapes), factors[0], factors[1])


def _present(active: Floats, spell: float, windows: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(clients, windows) who is there: stationary two-state Markov chains whose mean active spell is `spell` windows
    (longer where a client that is nearly always there could not keep its share otherwise)."""
    leave = np.minimum(1.0 / spell, (1.0 - active) / active)
    come = np.where(active < 1.0, leave * active / np.maximum(1.0 - active, 1e-9), 1.0)
    draws = rng.uniform(size=(windows, len(active)))
    present = np.empty((windows, len(active)), dtype=np.bool_)
    present[0] = draws[0] < active
    for window in range(1, windows):
        present[window] = np.where(present[window - 1], draws[window] >= leave, draws[window] < come)
    return present.T


def client_arrivals(
    who: Crowd, rate_rps: Floats, step_s: float, end_s: float, rng: np.random.Generator
) -> tuple[Floats, Integers]:
    """Sorted arrivals of all clients and the client of each: of each a renewal process whose clock runs with its share
    of the rate."""
    window = np.minimum((np.arange(len(rate_rps)) * step_s / WINDOW_S).astype(np.int64), who.share.shape[1] - 1)
    arrivals = []
    for share, weibull, shape in zip(who.share, who.weibull.tolist(), who.shape.tolist(), strict=True):
        edges_s, expected = cumulative(rate_rps * share[window], step_s, end_s)
        draw = weibull_arrivals if weibull else gamma_arrivals
        arrivals.append(draw(edges_s, expected, shape, rng))
    arrival_s = np.concatenate(arrivals)
    client = np.repeat(np.arange(len(arrivals)), [len(part) for part in arrivals])
    order = np.argsort(arrival_s, kind="stable")
    return arrival_s[order], client[order]


def length_factors(who: Crowd) -> tuple[Floats, Floats]:
    """(clients, windows) factors on the mean prompt and output of each client, such that their mean over the requests
    of a window is 1 whoever is there."""
    prompt = who.input_factor[:, None] / (who.input_factor @ who.share)
    output = who.output_factor[:, None] / (who.output_factor @ who.share)
    return prompt, output
