"""What a preset is made of, as read from `data/*.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

import msgspec

from autopoiesis.errors import ScenarioError, unknown_name

DATA = files("autopoiesis.workload.presets") / "data"

Quantiles = tuple[tuple[float, float], ...]
"""(probability, value) pairs, ascending in both: a distribution by its quantiles, straight between them."""


class Switch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rate that switches between two levels, as in a two-state Markov-modulated Poisson process (MMPP)."""

    low: float
    high: float
    """Levels in one unit of any size: only their ratio matters."""
    low_s: float
    high_s: float
    """Mean time at a level."""
    regularity: float = 1.0
    """Shape of the Gamma-distributed times at a level; 1 makes them exponential and the process Markov."""


class Drift(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A factor on the rate: exp of a stationary AR(1), e^(-1/`tau_s`) per second, of standard deviation `sd`."""

    sd: float
    tau_s: float


class Wave(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`amplitude` · cos(2π (t - `peak_h`) / `period_h`) on the logarithm of the rate; the load begins at midnight."""

    amplitude: float
    peak_h: float
    period_h: float


class Surges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Times at which the rate is a multiple of what it would be."""

    per_day: float
    height: tuple[float, float]
    """Uniform between these."""
    minutes_median: float
    minutes_sigma: float
    minutes_max: float
    regularity: float = 1.0
    """Shape of the Gamma-distributed times between starts; 1 makes the starts a Poisson process."""


class Arrivals(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rate over time, the product of its parts, and how arrivals follow it."""

    step_s: float
    """The rate is constant within steps of this length."""
    shape: float = 1.0
    """Gamma shape of the inter-arrival times at a constant rate; 1 for Poisson arrivals. Unused with clients."""
    switches: tuple[Switch, ...] = ()
    drifts: tuple[Drift, ...] = ()
    waves: tuple[Wave, ...] = ()
    surges: tuple[Surges, ...] = ()


class Clients(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who sends the requests: many clients of unequal size that come and go, each with a renewal process."""

    count: int
    zipf_exponent: float
    zipf_offset: float
    """Requests of the client of rank r (from 1) are proportional to (r + offset)^-exponent: Zipf–Mandelbrot."""
    active_share: Quantiles
    """Share of the time in which a client is active; the larger, the more."""
    active_h: float
    """Mean length of an active spell."""
    weibull_share: float
    """Share of the clients whose inter-arrival times are Weibull; those of the others are Gamma."""
    gamma_shape: Quantiles
    weibull_shape: Quantiles
    length_sd: float
    """Standard deviation of a client's log mean length around that of all."""


class Mode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of request: independent lognormal lengths of prompt and output."""

    share: float
    input_median: float
    input_sigma: float
    output_median: float
    output_sigma: float


class Lengths(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mixture of kinds of requests; lengths beyond a maximum are cut there, as by the service that was recorded."""

    modes: tuple[Mode, ...]
    input_max: int = 1_000_000
    output_max: int = 100_000


class Mix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The means of prompt and output move: two stationary AR(1) on their logarithms, correlated step by step."""

    input_sd: float
    output_sd: float
    input_tau_h: float
    output_tau_h: float
    correlation: float


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of new text, lognormal."""

    share: float
    median: float
    sigma: float


class Chats(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Conversations over documents, known by prefix blocks."""

    goes_on: tuple[float, ...]
    """Probability of another call after the first, the second, …; the last one holds from there on."""
    opening: Lengths
    """Of first calls of conversations that go on; `Preset.lengths` are those of single ones."""
    answers: tuple[Text, ...]
    """Outputs of later calls."""
    messages: tuple[Text, ...]
    """What a user adds to the history."""
    rewritten: float
    """Share of later calls whose history was rewritten from some point on, more often in long ones."""
    kept: Quantiles
    """Share of the earlier prompt that a rewritten one begins with."""
    gap_median_s: float
    gap_sigma: float
    """Lognormal time between the starts of calls."""
    system_tokens: int
    """Beginning of every prompt, the same in all conversations."""
    lead_s: float
    """How long before the load conversations begin, so that some are under way when it does."""


class Agents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sessions of agents: a context that grows from call to call, with little think time, and is reset at times."""

    wave_sessions: int
    """Sessions of one wave at the preset's rate."""
    wave_gap_s: float
    """Mean time between their starts, exponential."""
    wave_s: float
    """Time from wave to wave."""
    turns: Quantiles
    """Calls of a session."""
    first: tuple[Text, ...]
    """First prompts."""
    growth: tuple[Text, ...]
    """Tokens by which a prompt grows from call to call."""
    context_limits: tuple[Text, ...]
    """Where the context of a session cannot grow any more and is reset."""
    headroom: float
    """The limit is at least so many times the first prompt."""
    pace_sigma: float
    """Sessions differ in pace: a lognormal factor of mean 1 on all think times of one."""
    reset: float
    """Probability of a reset at a call."""
    reset_kept: Quantiles
    """Share of the context that is left by a reset."""
    rewritten: float
    """Probability at a call that the context is the same text in another form, of which only a part can be reused."""
    kept: Quantiles
    """That part."""
    outputs: tuple[Text, ...]
    thinking: tuple[Text, ...]
    """Seconds between the end of a call and the next."""
    think_max_s: float
    block_tokens: int
    """Reuse is counted in blocks of so many tokens."""


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of load."""

    summary: str
    rate_rps: float
    """Mean rate unless another is asked for."""
    arrivals: Arrivals | None = None
    clients: Clients | None = None
    lengths: Lengths | None = None
    mix: Mix | None = None
    chats: Chats | None = None
    agents: Agents | None = None


def names() -> tuple[str, ...]:
    """The presets there are, in alphabetical order."""
    return tuple(sorted(entry.name[: -len(".toml")] for entry in DATA.iterdir() if entry.name.endswith(".toml")))


@cache
def preset(name: str) -> Preset:
    """The preset of a name. Raises ScenarioError for a name that nobody knows."""
    if name not in names():
        raise ScenarioError(unknown_name("preset", name, names()))
    return msgspec.convert(tomllib.loads((DATA / f"{name}.toml").read_text("utf-8")), Preset)
