"""What a suite has measured so far: one store, asked by everything that determines a measurement."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from autopoiesis.bench.suite.cells import Cell, Suite
from autopoiesis.bench.suite.day import Day, Settled, day_of, digest_of, settle
from autopoiesis.bench.suite.jobs import TRAINING_SEEDS
from autopoiesis.bench.suite.results import Measured
from autopoiesis.bench.suite.tuning import Tuned, spaces
from autopoiesis.evolve.store import Store
from autopoiesis.evolve.versions import fingerprint
from autopoiesis.plan import ServingPlan
from autopoiesis.policy.host_template import HostTemplate

WITHIN = (
    "cluster/", "workload/", "cost/", "plan/", "policy/", "loop/", "simulate/", "evolve/", "control/",
    "bench/suite/bounds", "bench/suite/candidates", "bench/suite/day", "bench/suite/refine", "bench/suite/rows",
    "bench/suite/search", "bench/suite/sequence", "bench/suite/steps", "bench/suite/switching", "bench/suite/tuning.py",
    "bench/suite/values",
)  # fmt: skip
WITHOUT = ("policy/library/",)
"""Sources that bear on a measurement; policies are part of its key by their text."""

Kind = TypeVar("Kind")


class Entry(msgspec.Struct, frozen=True):
    """One policy in operator mode."""

    policy: str
    measured: Measured
    detail: dict[str, Any] = {}


class Times(msgspec.Struct, frozen=True):
    """One policy in paper mode."""

    policy: str
    accounting: str
    total_s: float
    scheduling_s: float
    reconfiguration_s: float
    serving_s: float


class Found(msgspec.Struct, frozen=True):
    """What one step of a job measured."""

    entries: list[Entry] = []
    times: list[Times] = []
    plans: list[ServingPlan] = []
    """That were in force, for those who look for the best."""


class Bench:
    """What a worker has: the store, the traces, and the processes that policies run in."""

    def __init__(self, suite: Suite, store: Store, folder: str | None, template: HostTemplate | None = None) -> None:
        """Without a template, what is in the store can be read and nothing be measured."""
        self.suite = suite
        self.store = store
        self.folder = folder
        self._template = template
        self._traces = "" if folder is None else digest_of(folder)
        self.human = suite.human()
        self.tunable = [name for name in spaces() if name in self.human]

    @property
    def template(self) -> HostTemplate:
        assert self._template is not None, "nothing is measured without a host"
        return self._template

    def recalled(self, kind: type[Kind], parts: tuple[object, ...]) -> Kind | None:
        """What the store has under these parts."""
        known = self.store.recall(self._key(parts))
        return None if known is None else msgspec.msgpack.decode(known, type=kind)

    def kept(self, kind: type[Kind], parts: tuple[object, ...], make: Callable[[], Kind]) -> Kind:
        """What the store has under these parts, else made and kept. As read back either way, so that a resumed run and
        an uninterrupted one go on from the same bytes."""
        found = self.recalled(kind, parts)
        if found is None:
            made = msgspec.msgpack.encode(make())
            self.store.remember(self._key(parts), made)
            found = msgspec.msgpack.decode(made, type=kind)
        return found

    def day(self, cell: Cell, seed: int, settled_as: Cell | None = None) -> tuple[Day, Settled]:
        """A day of a cell with its load and first plan, or with those of another cell of the same day."""
        settled_as = settled_as or cell
        return day_of(cell, seed, self.folder), self.kept(
            Settled, ("settled", settled_as.digest(), seed), lambda: settle(day_of(settled_as, seed, self.folder))
        )

    def search_parts(self, cell: Cell, name: str) -> tuple[object, ...]:
        """What identifies the search for a policy's best setting."""
        terms = (self.suite.trials, self.suite.finalists, self.suite.training_share, TRAINING_SEEDS)
        return "tuned", cell.digest(), name, self.human[name].text, sorted(spaces()[name].items()), terms

    def tuned(self, cell: Cell) -> dict[str, Tuned]:
        """The best settings for a cell, of the policies for which they have been searched."""
        recalled = {name: self.recalled(Tuned, self.search_parts(cell, name)) for name in self.tunable}
        return {name: found for name, found in recalled.items() if found is not None}

    def digest(self, *parts: object) -> str:
        """Of these and of everything that has a bearing on every measurement."""
        return hashlib.sha256(repr((parts, self._traces, fingerprint(WITHIN, WITHOUT))).encode()).hexdigest()

    def _key(self, parts: tuple[object, ...]) -> str:
        return "bench:" + self.digest(parts)
