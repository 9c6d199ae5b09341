"""Single requests: arrivals and lengths without sessions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.workload.presets.arrivals import Floats, cumulative, gamma_arrivals, rate_path
from autopoiesis.workload.presets.clients import WINDOW_S, client_arrivals, crowd, length_factors
from autopoiesis.workload.presets.lengths import drawn_lengths, moving_means, whole
from autopoiesis.workload.presets.specification import Arrivals, Clients, Lengths, Mix
from autopoiesis.workload.presets.streams import Streams


def paced(arrivals: Arrivals, rate_rps: float, end_s: float, drawn: Streams) -> Floats:
    """Sorted arrivals before `end_s`, `rate_rps` of them a second on average, without clients."""
    path = rate_rps * rate_path(arrivals, end_s, drawn)
    return gamma_arrivals(*cumulative(path, arrivals.step_s, end_s), arrivals.shape, drawn.arrivals)


def single_calls(
    arrivals: Arrivals, lengths: Lengths, rate_rps: float, end_s: float, drawn: Streams
) -> dict[str, NDArray[Any]]:
    """Requests of one crowd: arrivals, and lengths independent of them."""
    arrival_s = paced(arrivals, rate_rps, end_s, drawn)
    prompts, outputs = drawn_lengths(lengths, len(arrival_s), drawn.lengths)
    return {
        "arrival_s": arrival_s,
        "input_tokens": whole(prompts, lengths.input_max),
        "output_tokens": whole(outputs, lengths.output_max),
    }


def client_calls(
    arrivals: Arrivals,
    clients: Clients,
    lengths: Lengths,
    mix: Mix,
    rate_rps: float,
    end_s: float,
    amplitude: float,
    drawn: Streams,
) -> dict[str, NDArray[Any]]:
    """Requests of many clients: each has its own arrivals and lengths, and the means over all move with the mix."""
    path = rate_rps * rate_path(arrivals, end_s, drawn)
    who = crowd(clients, end_s, drawn.clients)
    arrival_s, client = client_arrivals(who, path, arrivals.step_s, end_s, drawn.arrivals)
    windows = who.share.shape[1]
    window = np.minimum((arrival_s / WINDOW_S).astype(np.int64), windows - 1)
    of_client = length_factors(who)
    moved = moving_means(mix, windows, WINDOW_S, amplitude, drawn.mix)
    prompts, outputs = drawn_lengths(lengths, len(arrival_s), drawn.lengths)
    prompts *= of_client[0][client, window] * moved[0][window]
    outputs *= of_client[1][client, window] * moved[1][window]
    return {
        "arrival_s": arrival_s,
        "input_tokens": whole(prompts, lengths.input_max),
        "output_tokens": whole(outputs, lengths.output_max),
    }
