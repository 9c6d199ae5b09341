"""How near the presets come to the recordings: medians over seeds beside the numbers of the recordings.

`python -m autopoiesis.workload.presets.acceptance [SEEDS]` prints the table for every preset.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.resources import files

import msgspec
import numpy as np

from autopoiesis.workload import shape
from autopoiesis.workload.presets.generate import generate
from autopoiesis.workload.requests import Requests

DAY_S = 86_400.0


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a recording shows."""

    source: str
    """The recording."""
    hours: float
    """Length of the loads that are compared with it."""
    scale: float
    """Rate of the preset ÷ that of the recording."""
    recorded: dict[str, float]
    """By the names of `MEASURES`; the rate is that of the recording."""


@cache
def targets() -> Mapping[str, Target]:
    """The recording behind each preset."""
    text = (files("autopoiesis.workload.presets") / "targets.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Target])


def _days(requests: Requests) -> int:
    return round(float(requests.arrival_s[-1]) / DAY_S)


def _surges(requests: Requests, times: float) -> shape.SurgeCount:
    return shape.surges(shape.windows(requests.arrival_s, shape.WINDOW_S, _days(requests) * DAY_S), times)


def _uncached(requests: Requests, percent: float) -> float:
    return float(np.percentile(requests.input_tokens - shape.reusable_tokens(requests), percent))


def _growth(requests: Requests, percent: float) -> float:
    later = requests.previous >= 0
    grown = requests.input_tokens[later] - requests.input_tokens[requests.previous[later]]
    return float(np.percentile(grown, percent))


def _gap(requests: Requests, percent: float) -> float:
    later = requests.previous >= 0
    gaps_s = requests.arrival_s[later] - requests.arrival_s[requests.previous[later]]
    return float(np.percentile(gaps_s, percent))


MEASURES: Mapping[str, Callable[[Requests], float]] = {
    "rate_rps": lambda r: shape.mean_rate(r.arrival_s),
    "peak_to_mean_60s": lambda r: shape.peak_to_mean(r.arrival_s, 60.0),
    "peak_to_mean_10s": lambda r: shape.peak_to_mean(r.arrival_s, 10.0),
    "interarrival_cv": lambda r: shape.interarrival_cv(r.arrival_s),
    "iod_1s": lambda r: shape.index_of_dispersion(r.arrival_s, 1.0),
    "iod_10s": lambda r: shape.index_of_dispersion(r.arrival_s, 10.0),
    "iod_60s": lambda r: shape.index_of_dispersion(r.arrival_s, 60.0),
    "input_p50": lambda r: float(np.percentile(r.input_tokens, 50)),
    "input_p90": lambda r: float(np.percentile(r.input_tokens, 90)),
    "output_p50": lambda r: float(np.percentile(r.output_tokens, 50)),
    "output_p90": lambda r: float(np.percentile(r.output_tokens, 90)),
    "liso_share": shape.liso_share,
    "silo_share": shape.silo_share,
    "reusable_share": shape.reusable_share,
    "half_reusable_share": lambda r: float(np.mean(2 * shape.reusable_tokens(r) >= r.input_tokens)),
    "uncached_p50": lambda r: _uncached(r, 50),
    "uncached_p90": lambda r: _uncached(r, 90),
    "growth_p50": lambda r: _growth(r, 50),
    "growth_p90": lambda r: _growth(r, 90),
    "gap_s_p50": lambda r: _gap(r, 50),
    "gap_s_p90": lambda r: _gap(r, 90),
    "daily_ratio": lambda r: shape.daily_ratio(r.arrival_s, _days(r)),
    "surges_1_5_per_day": lambda r: _surges(r, 1.5).per_day,
    "surges_2_per_day": lambda r: _surges(r, 2.0).per_day,
    "surges_2_minutes_p50": lambda r: _surges(r, 2.0).minutes_p50,
    "input_mean": lambda r: shape.wandering(r.arrival_s, r.input_tokens).mean,
    "output_mean": lambda r: shape.wandering(r.arrival_s, r.output_tokens).mean,
    "input_log_sd": lambda r: shape.wandering(r.arrival_s, r.input_tokens).log_sd,
    "output_log_sd": lambda r: shape.wandering(r.arrival_s, r.output_tokens).log_sd,
    "input_ar1": lambda r: shape.wandering(r.arrival_s, r.input_tokens).ar1,
    "output_ar1": lambda r: shape.wandering(r.arrival_s, r.output_tokens).ar1,
}
"""By name what is compared; means, log-sd and AR(1) of lengths are those of 6-hour blocks."""


def target_of(name: str, measure: str) -> float:
    """What a preset's load should show: the recorded value, the rate at the preset's scale."""
    target = targets()[name]
    return target.recorded[measure] * (target.scale if measure == "rate_rps" else 1.0)


def medians(name: str, seeds: range) -> dict[str, float]:
    """The measures of a preset's target, each the median over the loads of these seeds (where it is defined)."""
    target = targets()[name]
    values: dict[str, list[float]] = {measure: [] for measure in target.recorded}
    for seed in seeds:
        requests = generate(name, target.hours, seed)
        for measure, seen in values.items():
            seen.append(MEASURES[measure](requests))
    return {measure: float(np.nanmedian(seen)) for measure, seen in values.items()}


def deviation(target: float, value: float) -> float:
    """Relative to the target; a share that should be 0 is its own deviation."""
    return value / target - 1.0 if target else value


def rows(seeds: range) -> Iterator[tuple[str, str, float, float]]:
    """Preset, measure, target, median over the seeds."""
    for name in targets():
        for measure, median in medians(name, seeds).items():
            yield name, measure, target_of(name, measure), median


def main(seeds: int) -> None:
    """Print the table as Markdown."""
    sys.stdout.write("| preset | measure | recorded | generated | off |\n|---|---|--:|--:|--:|\n")
    for name, measure, target, median in rows(range(seeds)):
        off = f"{100 * deviation(target, median):+.0f} %"
        sys.stdout.write(f"| {name} | {measure} | {target:.4g} | {median:.4g} | {off} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
