"""The scenarios of a suite: what is served where, how hard, and what is varied, as TOML files in this package."""

from __future__ import annotations

import fnmatch
import hashlib
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from autopoiesis.cluster import Cluster, Pool, catalog
from autopoiesis.cluster.spot import Spot, SpotLosses
from autopoiesis.cluster.storage import DRIVES
from autopoiesis.errors import ScenarioError, unknown_name
from autopoiesis.policy.library import library
from autopoiesis.policy.source import PolicySource
from autopoiesis.simulate.scenario import OBJECTIVES
from autopoiesis.workload import SLO
from autopoiesis.workload.presets.specification import preset

SUITES = ("headroom", "quick")
GROUPS = ("controls", "sharing", "disaggregation", "saturation", "scaling", "spot")
DRIVERS = ("window_s", "load", "amplitude", "weight_loading", "planner_cost", "price", "churn")
"""What a sweep varies, one at a time: the monitoring period in seconds; ρ; the amplitude of the mix shift; GB/s at
which nodes read weights, nothing kept in host memory; a factor on what planning takes; a factor on the price of spot
pools; losses per node and hour of spot pools."""


@dataclass(frozen=True, slots=True)
class Load:
    """The day of one model."""

    model: str
    preset: str
    """What the load is like; `autopoiesis trace generate` writes the same."""
    base_rps: float = 6.0
    """Requests/s of the day that is drawn, before it is scaled to the cell's load by resampling."""
    share: float | None = None
    """Of the cluster; the models without one divide the rest equally."""
    amplitude: float | None = None
    """Of the drift of lengths, for presets that have one."""
    then: str | None = None
    """A second preset that takes turns with the first, each scaled to fill the cluster alike."""
    every_s: float = 0.0
    """How long a turn lasts."""


@dataclass(frozen=True, slots=True)
class Swing:
    """A load that moves between two values of ρ as a sine does, from the lower one on."""

    low: float
    high: float
    period_s: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One scenario: a load on a cluster and what is wanted. A day of 24 hours is drawn for every seed; policies serve a
    slice of it."""

    name: str
    group: str
    cluster: str
    """A cluster of this suite (`clusters/`) or of the package."""
    loads: tuple[Load, ...]
    load: float = 0.85
    """ρ: 1 is what the best fixed plan serves at most with 99 % good: all day, no losses, all of every pool."""
    swing: Swing | None = None
    """Instead of a constant ρ."""
    objective: str = "cost_per_good"
    window_s: float = 60.0
    slice_hours: float = 0.75
    slice_starts_h: tuple[float, ...] = (7.0, 13.0, 19.0)
    """Where the slice begins: the first for seed 0, and so on, over again."""
    lively: bool = False
    """Instead, the slice is where each day's load moves most, after its first quarter."""
    shift_s: float | None = None
    """Copies of recorded requests are moved by up to half of this either way; `None`: of the window."""
    slos: dict[str, SLO] = field(default_factory=dict)
    colocated: bool = False
    """Whether the best sequence of plans without replicas of one phase is looked for, too, as a reference."""
    paper: bool = False
    """Whether the cell is served in paper mode, too."""
    sweeps: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Driver → values, the cell's own among them or not."""
    weight_loading: float | None = None
    """GB/s; `None` for the storage of the cluster's file."""
    planner_cost: float = 1.0
    price: float = 1.0
    churn: float | None = None

    def __post_init__(self) -> None:
        def bad(name: str, why: str) -> ScenarioError:
            return ScenarioError(f"cell {self.name!r}: field {name!r} {why}")

        if self.group not in GROUPS:
            raise bad("group", unknown_name("group", self.group, GROUPS))
        if self.objective not in OBJECTIVES or self.objective == "total_time":
            raise bad("objective", "must be cost_per_good, goodput or delay; paper = true adds paper mode")
        if not self.loads:
            raise bad("loads", "is empty; name the models that are served")
        for load in self.loads:
            preset(load.preset)
            if load.then is not None:
                preset(load.then)
                if not load.every_s > 0:
                    raise bad("loads", "every_s must be above 0 where two presets take turns")
        for driver in self.sweeps:
            if driver not in DRIVERS:
                raise bad("sweeps", unknown_name("driver", driver, DRIVERS))
        if not 0 < self.slice_hours <= 24 or not self.slice_starts_h:
            raise bad("slice_hours", "must be above 0 and at most 24, and slice_starts_h must name a start")
        if max(self.slice_starts_h) + self.slice_hours > 24 or min(self.slice_starts_h) < 0:
            raise bad("slice_starts_h", "must leave the slice within the day")

    def own(self, driver: str) -> float | None:
        """The cell's own value of a driver; None where it has none in the driver's terms."""
        return 1.0 if driver == "amplitude" else getattr(self, driver)

    def with_driver(self, driver: str, value: float) -> Cell:
        """The cell with one thing changed; for its own value the cell as it is. Neither is varied any further."""
        if value == self.own(driver):
            return replace(self, sweeps={})
        if driver == "window_s":
            # the same requests at the same times, whatever the window
            return replace(self, window_s=value, shift_s=self.shift_s or self.window_s, sweeps={})
        if driver == "amplitude":
            loads = tuple(
                load if load.amplitude is None else replace(load, amplitude=load.amplitude * value)
                for load in self.loads
            )
            return replace(self, loads=loads, sweeps={})
        changed: dict[str, Any] = {driver: value, "sweeps": {}}
        return replace(self, **changed)

    def digest(self) -> str:
        """Identifies what the cell says of one measurement, and what its cluster's file does."""
        one = replace(self, sweeps={}, paper=False)
        return hashlib.sha256(repr((one, cluster_of(self))).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Suite:
    """Cells and how much is made of each."""

    name: str
    cells: tuple[Cell, ...]
    seeds: int
    """Days and worlds that policies are measured on: 0, 1, …"""
    trials: int
    """Settings tried of every human policy that has parameters."""
    finalists: int
    """Of these, the best on the first training day that are compared on the second one, too."""
    training_share: float
    """Of a slice: how much of a training day is served under every setting."""
    bound_runs: int
    """Runs in the event model that the search for the best plan sequence may take."""
    sweep_bound_runs: int
    """The same where one thing is varied."""
    policies: tuple[str, ...] = ()
    """Human policies that are measured; none named: all of the library."""

    def human(self) -> dict[str, PolicySource]:
        """The human policies that are measured, by name."""
        known = library()
        return known if not self.policies else {name: known[name] for name in sorted(self.policies)}

    def only(self, pattern: str) -> Suite:
        """The cells whose name or group matches a shell pattern; ScenarioError if none does."""
        cells = tuple(
            cell for cell in self.cells if fnmatch.fnmatch(cell.name, pattern) or fnmatch.fnmatch(cell.group, pattern)
        )
        if not cells:
            raise ScenarioError(
                f"--cells {pattern}: matches no cell of suite {self.name!r}; it has "
                + ", ".join(cell.name for cell in self.cells)
            )
        return replace(self, cells=cells)


@dataclass(frozen=True, slots=True)
class _Terms:
    """A suite's own file."""

    seeds: int
    trials: int
    finalists: int
    training_share: float
    bound_runs: int
    sweep_bound_runs: int
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _CellFile:
    cell: tuple[Cell, ...]


def suite(name: str) -> Suite:
    """A suite of the package. Raises ScenarioError for an unknown name, naming those there are."""
    if name not in SUITES:
        raise ScenarioError(f"--suite: {unknown_name('suite', name, SUITES)}")
    folder = files(__package__) / "scenarios" / name
    terms = catalog.convert(_tables(folder / "suite.toml"), _Terms, "suite.toml")
    cells: list[Cell] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml") and entry.name != "suite.toml":
            cells += catalog.convert(_tables(entry), _CellFile, f"{name}/{entry.name}").cell
    cells.sort(key=lambda cell: GROUPS.index(cell.group))
    names = [cell.name for cell in cells]
    if len(set(names)) < len(names):
        raise ScenarioError(f"suite {name!r}: two cells share one name; give each its own")
    return Suite(name, tuple(cells), **{f.name: getattr(terms, f.name) for f in fields(_Terms)})


def cluster_of(cell: Cell) -> Cluster:
    """The cell's cluster with what the cell changes about it."""
    own = files(__package__) / "clusters" / f"{cell.cluster}.toml"
    if own.is_file():
        cluster = catalog.read_cluster(own.read_text("utf-8"), f"{cell.cluster}.toml", cell.cluster)
    else:
        cluster = catalog.cluster(cell.cluster)
    pools = cluster.pools
    if cell.weight_loading is not None:
        drives = {bandwidth / 1e9: name for name, bandwidth in DRIVES.items()}
        if cell.weight_loading not in drives:
            raise ScenarioError(f"cell {cell.name!r}: field 'weight_loading' must be one of {sorted(drives)} GB/s")
        drive = drives[cell.weight_loading]
        pools = tuple(replace(pool, storage=replace(pool.storage, drive=drive, page_cache_bytes=0.0)) for pool in pools)
    if cell.price != 1.0:
        pools = tuple(
            pool if pool.spot is None else replace(pool, price_per_hour=pool.price_per_hour * cell.price)
            for pool in pools
        )
    if cell.churn is not None:
        pools = tuple(
            pool if pool.spot is None else replace(pool, spot=_churning(cell.churn, pool, pool.spot)) for pool in pools
        )
    return replace(cluster, pools=pools)


def _churning(per_node_hour: float, pool: Pool, spot: Spot) -> SpotLosses:
    """Losses without memory in a pool whose notice stays. Batches of 2.4 nodes, back after 18 minutes: Bamboo's spot
    history of g4dn in us-east-1c."""
    nodes, each = pool.maximum // pool.gpus_per_node, 2.4
    return SpotLosses(per_node_hour * nodes / each, nodes_per_loss=each, notice_s=spot.notice_s, recovery_s=1080.0)


def _tables(file: Traversable) -> dict[str, Any]:
    return catalog.parse_toml(file.read_text("utf-8"), file.name)
