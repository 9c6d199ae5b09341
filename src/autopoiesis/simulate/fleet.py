"""The replicas of the simulated world: which are there, in which phase, on which slot of the simulation.

A replica starts (its process, its weights over what it shares with other loads, its graphs and warm-up), serves, drains
and is gone. One that is *doomed*, because its node is about to be lost, is *spared* new
requests for as long as others can serve in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import partial

import numpy as np

from autopoiesis.cost import Stage, Starts
from autopoiesis.plan import Replica, Role, ServingPlan
from autopoiesis.plan.placement import Placed
from autopoiesis.plan.rollout import Phase
from autopoiesis.policy.interface import Move
from autopoiesis.simulate.agenda import Agenda
from autopoiesis.simulate.fleet_shares import fleet_shares
from autopoiesis.simulate.lives import End, Lives
from autopoiesis.simulate.scenario import Scenario
from autopoiesis.simulate.simulation import Simulation
from autopoiesis.simulate.telemetry import Telemetry

Action = Callable[[], None]


class Fleet:
    """Replicas on slots. `go_on` is called when a replica came up, or a drain ended, by itself."""

    def __init__(
        self,
        scenario: Scenario,
        simulation: Simulation,
        telemetry: Telemetry,
        agenda: Agenda[Action],
        go_on: Action,
    ) -> None:
        self.replicas: dict[int, Placed] = {}
        self.phases: dict[int, Phase] = {}
        self.lives = Lives(simulation)
        """Of all replicas of the run, those that are gone included."""
        self.continued = 0
        """Requests that were continued on another replica."""
        self._scenario = scenario
        self._simulation = simulation
        self._telemetry = telemetry
        self._agenda = agenda
        self._go_on = go_on
        self._starts = Starts(scenario.truth)
        self._come_up_s = math.inf
        """When the next stage of a start ends, as the agenda has it; earlier entries are void."""
        self._slots: dict[int, int] = {}
        self._links: dict[str, int] = {}
        """The link by which a node's KV caches leave it."""
        self._drains: dict[int, float] = {}
        """Replica → when its drain ends at the latest."""
        self._doomed: set[int] = set()
        self._spared: set[int] = set()

    # --- phases -------------------------------------------------------------------------------------------------

    def start(self, placed: Placed) -> None:
        """It loads, and serves when it is ready."""
        hidden = self._scenario.hidden
        self.replicas[placed.id] = placed
        self.phases[placed.id] = "loading"
        self.lives.launched(placed)
        rng = np.random.default_rng([hidden.seed, 0x57A7, placed.id])
        slow = float(np.exp(hidden.start_deviation * rng.standard_normal() - hidden.start_deviation**2 / 2))
        replica = placed.replica
        self._starts.begin(placed.id, replica.model, replica.gpu, placed.gpus, self._simulation.now_s, slow)
        self._await_start()

    def joined(self, node: str) -> None:
        """A node has come, with the weights that a new node has."""
        self._starts.joined(node)

    def stage(self, id: int) -> Stage:
        """Of a replica that loads; raises KeyError for another."""
        return self._starts.stage(id)

    def serve(self, placed: Placed) -> None:
        """It serves from now on."""
        hidden, replica = self._scenario.hidden, placed.replica
        slow = 1.0
        if hidden.straggler_share > 0:
            for node, index in placed.gpus:
                rng = np.random.default_rng([hidden.seed, 0x5106, *node.encode(), index])
                if rng.random() < hidden.straggler_share:
                    slow = max(slow, 1.0 + hidden.straggler_slow * float(rng.random()))
        noise_seed = int(np.random.default_rng([hidden.seed, 0x2015E, placed.id]).integers(2**63))
        # a replica on several nodes sends its KV caches over the first one's link
        link = self._links.setdefault(placed.gpus[0][0], len(self._links))
        slot = self._simulation.start(replica, slow, hidden.step_noise, noise_seed, link)
        self.replicas[placed.id] = placed
        self.phases[placed.id] = "serving"
        self._slots[placed.id] = slot
        self.lives.serving(placed, slot)
        self._telemetry.begin(placed.id, replica, slot)
        self._starts.serves(placed.id, replica.model, replica.gpu, placed.gpus)

    def stop(self, id: int, move: Move) -> None:
        """It drains, or is gone at once if it still loads or has nothing to do."""
        if self.phases[id] == "loading":
            self.end(id, End.CANCELLED)
            return
        self.phases[id] = "draining"
        self.lives.draining(id)
        self._spared.discard(id)
        if self._simulation.drain(self._slots[id]):
            self.end(id, End.DRAINED)
        else:
            self._drains[id] = self._simulation.now_s + move.drain_cap_s
            self._agenda.add(self._drains[id], partial(self._drain_cap, id, self._drains[id], move.migrate))

    def keep_serving(self, id: int) -> None:
        """Its drain is undone."""
        self.phases[id] = "serving"
        self.lives.kept(id)
        del self._drains[id]
        self._simulation.undrain(self._slots[id])

    def end(self, id: int, end: End, migrate: bool = False) -> None:
        """It is gone; what it has not finished is continued elsewhere."""
        continued = 0
        if id in self._slots:
            continued = self._simulation.stop(self._slots.pop(id), transfer=migrate)
        self.continued += continued
        self.lives.ended(id, end, continued)
        del self.replicas[id], self.phases[id]
        self._starts.end(id, self._simulation.now_s)
        self._await_start()
        self._drains.pop(id, None)
        self._doomed.discard(id)
        self._spared.discard(id)
        self._telemetry.end(id)

    def drained(self, slot: int) -> None:
        """The simulation says that nothing is left on a slot that takes no requests."""
        id = next(i for i, s in self._slots.items() if s == slot)
        if self.phases[id] == "draining":
            self.end(id, End.DRAINED)
            self._go_on()

    def _await_start(self) -> None:
        """Come back when the next stage of a start ends."""
        due_s = self._starts.due_s
        if due_s != self._come_up_s:
            self._come_up_s = due_s
            if due_s < math.inf:
                self._agenda.add(due_s, partial(self._come_up, due_s))

    def _come_up(self, at_s: float) -> None:
        if at_s != self._come_up_s:
            return
        for up in self._starts.advance(at_s):
            # what comes of one that is up may have ended another
            if self.phases.get(up.id) == "loading":
                self._telemetry.started(up)
                self.serve(self.replicas[up.id])
                self._go_on()
        self._await_start()

    def _drain_cap(self, id: int, end_s: float, migrate: bool) -> None:
        # a drain that was undone, or done, has another end or none
        if self._drains.get(id) == end_s:
            self.end(id, End.CUT_OFF, migrate)
            self._go_on()

    # --- requests -----------------------------------------------------------------------------------------------

    def doom(self, ids: Collection[int]) -> None:
        """These will be lost soon."""
        self._doomed.update(ids)

    def settle(self, in_force: ServingPlan, to_come: ServingPlan) -> None:
        """After any change: spare whom can be spared, and divide the classes among those that serve."""
        for id in sorted(self._doomed):
            if self.phases[id] != "serving" or self._has_substitutes(id) == (id in self._spared):
                continue
            if id in self._spared:
                self._spared.discard(id)
                self._simulation.undrain(self._slots[id])
            else:
                self._spared.add(id)
                self._simulation.drain(self._slots[id])
        serving = {
            self._slots[id]: self.replicas[id].replica
            for id in sorted(self._slots)
            if self.phases[id] == "serving" and id not in self._spared
        }
        self._simulation.set_shares(*fleet_shares(serving, in_force, to_come))

    def _has_substitutes(self, id: int) -> bool:
        """Whether replicas that stay can do for this one's model what it does."""
        mine = self.replicas[id].replica
        staying = [
            self.replicas[other].replica
            for other, phase in self.phases.items()
            if phase == "serving" and other not in self._doomed and self.replicas[other].replica.model == mine.model
        ]
        return all(
            any(replica.role is not other for replica in staying)
            for other in (Role.PREFILL, Role.DECODE)
            if mine.role is not other
        )

    # --- what can be seen ---------------------------------------------------------------------------------------

    def running_plan(self) -> ServingPlan:
        """What serves or loads now."""
        ids = [id for id in sorted(self.replicas) if self.phases[id] != "draining"]
        return ServingPlan(tuple(self.replicas[id].replica for id in ids))

    def on_nodes(self, names: Collection[str]) -> list[int]:
        """Replicas with a GPU on one of these nodes."""
        return [id for id in sorted(self.replicas) if any(node in names for node, _ in self.replicas[id].gpus)]

    def statuses(self) -> list[tuple[Replica, Phase, int, int, float, float, float, float]]:
        """Per replica: itself, phase, in flight, their prompt tokens, running, waiting, KV use, age of these three."""
        rows = []
        for id in sorted(self.replicas):
            replica, phase, slot = self.replicas[id].replica, self.phases[id], self._slots.get(id)
            if slot is None:
                rows.append((replica, phase, 0, 0, 0.0, 0.0, 0.0, 0.0))
                continue
            record = self._simulation.state.replicas[slot]
            flight, tokens = int(record["in_flight"]), int(record["in_flight_tokens"])
            running, waiting, kv_use, sampled_s = self._telemetry.gauges(id)
            rows.append((replica, phase, flight, tokens, running, waiting, kv_use, self._simulation.now_s - sampled_s))
        return rows
