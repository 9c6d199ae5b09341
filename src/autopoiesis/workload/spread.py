"""Arrivals on a coarse clock, spread over its steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autopoiesis.errors import ScenarioError
from autopoiesis.workload.requests import Requests


def spread(requests: Requests, step_s: float, rng: np.random.Generator) -> Requests:
    """Every arrival moved on by a uniform draw from its step of `step_s`, and never beyond the next recorded arrival.

    For a clock that rounds down, and no other. The order of the requests stays as it is; those that were recorded
    together keep it by their draws in order. The first one stays at 0, and think times are what they were. Raises
    ScenarioError for a step that is no positive number.
    """
    if not 0 < step_s < float("inf"):
        raise ScenarioError(f"a step of the clock must be a positive number of seconds, not {step_s!r}")
    if not len(requests):
        return requests
    recorded, group = np.unique(requests.arrival_s, return_inverse=True)
    room_s = np.minimum(np.diff(recorded, append=recorded[-1] + step_s), step_s)[group]
    drawn = rng.uniform(size=len(requests))
    drawn = drawn[np.lexsort((drawn, group))]
    arrival_s = np.maximum.accumulate(requests.arrival_s + drawn * room_s)
    return replace(requests, arrival_s=arrival_s - arrival_s[0])
