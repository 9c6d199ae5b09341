"""What an operator asks for, and what comes back: the configuration of a run and its report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from autopoiesis.cost import Fitted
from autopoiesis.cost.coefficients import ENGINE
from autopoiesis.evolve.retention import LIMIT_BYTES
from autopoiesis.evolve.worker_messages import Priority
from autopoiesis.plan import Envelope
from autopoiesis.simulate.outcome import Books, PaperTimes
from autopoiesis.simulate.run import Notice
from autopoiesis.workload import SLO


@dataclass(frozen=True, slots=True)
class WorkloadFile:
    """The load of one model: a trace, or `None` for the generated one of the demo."""

    model: str
    path: str | None


@dataclass(frozen=True, slots=True)
class ScenarioConfig:
    """What is served, on what, how hard, and to what end."""

    workloads: tuple[WorkloadFile, ...]
    cluster: str
    load: float = 0.9
    """ρ: 1 is the largest load that the best fixed plan serves with 99 % good."""
    shares: dict[str, float] = field(default_factory=dict)
    """Model → share of the cluster's GPUs that its load is scaled to; the others divide the rest equally."""
    window_s: float = 60.0
    objective: str = "cost_per_good"
    slos: dict[str, SLO] = field(default_factory=dict)
    """By model, where the default does not hold."""
    envelope: Envelope = field(default_factory=Envelope)
    hours: float | None = None
    """Use only the first hours of every trace."""
    seed: int = 0
    router: str = "balanced"
    """The built-in router (`simulate.routers.ROUTERS`) for policies without a `route`. The load and the static plan are
    the same under every one."""
    coefficients: Fitted = field(default_factory=Fitted)
    """Step times that come before those of the package."""
    engine: str = ENGINE
    """Whose measured step times count."""


@dataclass(frozen=True, slots=True)
class EvolutionConfig:
    """Who writes policies, and how much that may cost."""

    provider: str = "structural"
    provider_command: str | None = None
    model_name: str | None = None
    budget: float = 0.02
    """CPU-seconds of evolution per second of serving."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    scenario: ScenarioConfig
    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    paper: bool = False
    store: str = "./autopoiesis.db"
    store_limit_bytes: int = LIMIT_BYTES
    """What the store is trimmed to, as far as the run can do without (`evolve.retention`)."""
    record: str | None = None
    """A file that every completion is written to as it arrives."""
    replay: str | None = None
    """Such a file, which answers instead of a provider; it also says in whose name."""
    jobs: int = 1
    """Candidates replayed beside one another, each in a process of its own; 1 replays in the process of the run. No
    result depends on it."""
    priority: Priority = Priority.LOW
    """Of these processes."""


@dataclass(frozen=True, slots=True)
class PaperPair:
    overlapped: PaperTimes
    additive: PaperTimes


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    kind: str
    """`evolving`, `baseline` or `bound`."""
    operator: Books
    paper: PaperPair | None
    reschedules: int


@dataclass(frozen=True, slots=True)
class SwapEntry:
    """A policy took over."""

    t: float
    mode: str
    policy: str
    parent: str | None
    provider: str
    evidence: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """What `run` prints and writes."""

    rows: tuple[Row, ...]
    swaps: tuple[SwapEntry, ...]
    seed: int
    wall_s: float


@dataclass(frozen=True, slots=True)
class SimulateReport:
    """What `simulate` prints and writes: one row, and how fast it was."""

    row: Row
    wall_s: float
    simulated_requests_per_s: float
    """Requests ÷ time inside the simulation, after warm-up."""
    peak_rss_mb: float


class Watch(Protocol):
    """Who is told how a run goes. Called from the thread that runs; must not block."""

    def stage(self, text: str) -> None:
        """What is being done now: reading, finding the load, …"""
        ...

    def progress(self, row: str, mode: str, fraction: float) -> None:
        """How much of one row has been served, 0 to 1."""
        ...

    def notice(self, row: str, mode: str, notice: Notice) -> None:
        """Something happened that deserves a line."""
        ...
