"""The simulated world: a fleet of replicas on nodes that come and go, seen through telemetry.

It carries out the loop's commands with the same `Rollout` as the live world, and answers with the loop's events. What
it really is (the hidden coefficients, the telemetry not yet scraped) stays inside; what may be known leaves through
`statuses`, `take_measurements` and the events.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.cost.calibration import DecodeWork
from autopoiesis.errors import PlanError
from autopoiesis.loop.messages import (
    Apply,
    CancelTransition,
    CapacityChanged,
    CapacityNotice,
    Event,
    Repair,
    ReplicaLost,
    RequestCapacity,
    TransitionDone,
    TransitionFailed,
    TransitionProgress,
)
from autopoiesis.plan import Replica, ServingPlan
from autopoiesis.plan.capacity import Capacity
from autopoiesis.plan.placement import Placed, place
from autopoiesis.plan.rollout import KeepServing, Phase, Rollout, Start, Stop
from autopoiesis.policy.interface import Move
from autopoiesis.simulate import layout
from autopoiesis.simulate.layout import SECOND
from autopoiesis.simulate.scenario import Mode, Scenario
from autopoiesis.simulate.simulation import Simulation
from autopoiesis.simulate.supply import SpotLoss, Supply, draw_spot_losses

SCRAPE_INTERVAL_S = 5.0
SCRAPE_LAG_S = 0.5
DOOMED_DRAIN_S = 30.0
"""How long before a spot loss its replicas stop getting requests."""


@dataclass(slots=True)
class Transit:
    """A transition under way."""

    ticket: int
    rollout: Rollout
    move: Move
    started_s: float
    reported: int = 0
    stopped: int = 0


class SimulatedWorld:
    """Serves a scenario's requests; time is virtual and moves only in `advance`."""

    def __init__(self, scenario: Scenario, plan: ServingPlan, capacity: Capacity, mode: Mode) -> None:
        self.scenario = scenario
        self.mode = mode
        hidden = scenario.hidden
        self.simulation = Simulation(
            scenario.requests,
            scenario.models,
            scenario.slos,
            scenario.truth,
            seed=scenario.seed,
            closed_loop=mode is Mode.OPERATOR,
        )
        self.supply = Supply(scenario.cluster, capacity, scenario.seed)
        self.losses: tuple[SpotLoss, ...] = (
            draw_spot_losses(scenario.cluster, hidden.seed, 2 * scenario.duration_s)
            if hidden.seed or hidden.telemetry_missing
            else ()
        )
        self.fleet: dict[int, Placed] = {}
        self.phases: dict[int, Phase] = {}
        self.plan = plan
        self.continued = 0
        """Requests that were continued on another replica."""
        self._slots: dict[int, int] = {}
        self._transit: Transit | None = None
        self._next_id = 0
        self._agenda: list[tuple[float, int, str, tuple[Any, ...]]] = []
        self._agenda_count = 0
        self._outbox: list[Event] = []
        self._rng = np.random.default_rng([hidden.seed, 0x7E1E])
        self._visible: dict[int, NDArray[np.float64]] = {}
        self._counted: dict[int, NDArray[np.int64]] = {}
        self._works: list[DecodeWork] = []
        self._starts: list[tuple[float, float]] = []
        self._doomed: set[int] = set()
        placement = place(plan, capacity.nodes(), ())
        for replica, gpus in zip(placement.to_start, placement.targets, strict=True):
            self._put(Placed(self._new_id(), replica, gpus), "loading")
            self._serve(self._next_id - 1)
        self._share()
        self._at(SCRAPE_INTERVAL_S, "scrape")
        if mode is Mode.OPERATOR:
            for loss in self.losses:
                self._at(max(loss.at_s - loss.notice_s, 0.0), "notice", loss)

    # --- time ---------------------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        return self.simulation.now_s

    def advance(self, until_s: float) -> list[Event]:
        """Serve until something happens that the loop must know, or until then, or until nothing is unfinished."""
        while True:
            if self._outbox:
                events, self._outbox = self._outbox, []
                return events
            due = self._agenda[0][0] if self._agenda else float("inf")
            answer = self.simulation.advance(min(due, until_s))
            if answer == layout.DRAINED:
                self._drained(self.simulation.drained_slot)
            elif answer == layout.EMPTY:
                return []
            elif due <= until_s:
                self._next_on_agenda()
            else:
                return []

    def skip_to(self, now_s: float) -> None:
        """Let time pass in a simulation without requests (additive accounting)."""
        scalars = self.simulation.state.scalars
        scalars[layout.NOW] = max(int(scalars[layout.NOW]), round(now_s * SECOND))

    def release_batch(self, rows: NDArray[np.int64]) -> None:
        """Paper mode: these requests are available now."""
        state = self.simulation.state
        state.requests["arrival"][rows] = state.scalars[layout.NOW]
        state.scalars[layout.ORDER_END] = rows[-1] + 1 if len(rows) else state.scalars[layout.ORDER_END]
        state.scalars[layout.UNFINISHED] += len(rows)

    def window_began(self, index: int) -> None:
        """Paper mode: capacity events are pinned to window indices."""
        width = self.scenario.window_s
        for loss in self.losses:
            if int(max(loss.at_s - loss.notice_s, 0.0) // width) == index:
                delay = 0.0 if int(loss.at_s // width) == index else float("inf")
                self._notice(loss, self.now_s + (loss.notice_s if delay else 0.0), pinned=True)
            if int(loss.at_s // width) == index:
                self._lose(loss, self.supply.pools[loss.pool].victims(loss))

    # --- commands -----------------------------------------------------------------------------------------------

    def carry_out(self, command: Apply | Repair | CancelTransition | RequestCapacity) -> None:
        """One command of the loop; what comes of it is told by later events."""
        match command:
            case CancelTransition():
                self._transit = None
            case Apply():
                self._set_out(command.ticket, command.plan, command.move)
            case Repair():
                self._set_out(command.ticket, command.plan, Move())
            case RequestCapacity():
                supply = self.supply.pools[command.pool]
                for at, node in supply.ask(command.gpus, self.now_s):
                    self._at(at, "grant", command.pool, node, at)
                self._give_back()

    def _set_out(self, ticket: int, plan: ServingPlan, move: Move) -> None:
        nodes = self.supply.capacity().nodes()
        try:
            rollout = Rollout(
                plan,
                nodes,
                tuple(self.fleet.values()),
                self.phases,
                capacity_kept=move.capacity_kept,
                envelope=self.scenario.envelope,
                next_id=self._next_id,
            )
        except PlanError as error:
            self._outbox.append(TransitionFailed(ticket, str(error), self.running_plan()))
            return
        self._next_id += len(rollout.new)
        self.plan = plan
        self._transit = Transit(ticket, rollout, move, self.now_s)
        self._go_on()

    def _go_on(self) -> None:
        """Carry the transition as far as it goes now."""
        transit = self._transit
        if transit is None:
            return
        while True:
            actions = transit.rollout.actions(self.phases)
            for action in actions:
                match action:
                    case Start():
                        self._put(Placed(action.id, action.replica, action.gpus), "loading")
                    case Stop():
                        transit.stopped += 1
                        self._stop(action.id, transit.move)
                    case KeepServing():
                        self.phases[action.id] = "serving"
                        self.simulation.undrain(self._slots[action.id])
            if not actions:
                break
        ready = sum(self.phases.get(new.id) == "serving" for new in transit.rollout.new)
        if transit.rollout.done(self.phases):
            self._transit = None
            self._share()
            self._outbox.append(TransitionDone(transit.ticket, len(transit.rollout.new), transit.stopped))
        elif ready > transit.reported:
            transit.reported = ready
            self._outbox.append(TransitionProgress(transit.ticket, ready, len(transit.rollout.new)))

    # --- replicas -----------------------------------------------------------------------------------------------

    def running_plan(self) -> ServingPlan:
        """What serves or loads now."""
        ids = [i for i in sorted(self.fleet) if self.phases[i] != "draining"]
        return ServingPlan(tuple(self.fleet[i].replica for i in ids))

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _put(self, placed: Placed, phase: Phase) -> None:
        self.fleet[placed.id] = placed
        self.phases[placed.id] = phase
        if self._next_id > placed.id and self._slots_ready(placed):
            return
        rng = np.random.default_rng([self.scenario.hidden.seed, 0x57A7, placed.id])
        deviation = self.scenario.hidden.start_deviation
        seconds = self.scenario.truth.start_s(placed.replica.model)
        seconds *= float(np.exp(deviation * rng.standard_normal() - deviation**2 / 2))
        self._at(self.now_s + seconds, "ready", placed.id, seconds)

    def _slots_ready(self, placed: Placed) -> bool:
        """The replicas of the first plan serve from the beginning."""
        return self.now_s == 0.0 and self._transit is None and placed.id < len(self.plan.replicas)

    def _serve(self, id: int) -> None:
        placed = self.fleet[id]
        hidden = self.scenario.hidden
        slow = 1.0
        if hidden.straggler_share > 0:
            for node, index in placed.gpus:
                rng = np.random.default_rng([hidden.seed, 0x5106, *node.encode(), index])
                if rng.random() < hidden.straggler_share:
                    slow = max(slow, 1.0 + hidden.straggler_slow * float(rng.random()))
        slot = self.simulation.start(placed.replica, slow, hidden.step_noise, hidden.seed * 1_000_003 + id)
        self._slots[id] = slot
        self.phases[id] = "serving"
        self._visible[id] = np.array([0.0, 0.0, 0.0, self.now_s])
        self._counted[id] = np.zeros(4, dtype=np.int64)

    def _stop(self, id: int, move: Move) -> None:
        if self.phases[id] == "loading":
            self._gone(id)
            return
        self.phases[id] = "draining"
        if self.simulation.drain(self._slots[id]):
            self._end(id, move.migrate)
        else:
            self._at(self.now_s + max(move.drain_cap_s, 0.0), "drain cap", id, move.migrate)

    def _drained(self, slot: int) -> None:
        id = next(i for i, s in self._slots.items() if s == slot)
        if self.phases[id] == "draining":
            self._end(id, False)
            self._go_on()

    def _end(self, id: int, migrate: bool) -> None:
        """Continue elsewhere what is unfinished, and free the GPUs."""
        self._count_work(id)
        self.continued += self.simulation.stop(self._slots[id], transfer=migrate)
        self._gone(id)

    def _gone(self, id: int) -> None:
        del self.fleet[id], self.phases[id]
        self._slots.pop(id, None)
        self._visible.pop(id, None)
        self._counted.pop(id, None)
        self._doomed.discard(id)
        self._give_back()

    def _share(self) -> None:
        """Let the shares of the plan in force weigh its replicas, now that they all serve."""
        waiting = [(i, self.fleet[i].replica) for i in sorted(self.fleet) if i in self._slots]
        slot_of = {}
        for position, replica in enumerate(self.plan.replicas):
            match = next((entry for entry in waiting if entry[1] == replica), None)
            if match is None:
                continue
            waiting.remove(match)
            slot_of[position] = self._slots[match[0]]
        self.simulation.set_shares(self.plan, slot_of)

    # --- what happens by itself ---------------------------------------------------------------------------------

    def _at(self, at_s: float, kind: str, *details: Any) -> None:
        self._agenda_count += 1
        heapq.heappush(self._agenda, (at_s, self._agenda_count, kind, details))

    def _next_on_agenda(self) -> None:
        _, _, kind, details = heapq.heappop(self._agenda)
        match kind:
            case "scrape":
                self._scrape()
            case "visible":
                for id, sample in details[0].items():
                    if id in self._visible:
                        self._visible[id] = sample
                        self.simulation.state.telemetry[self._slots[id]] = sample
            case "ready":
                id, seconds = details
                if self.phases.get(id) == "loading":
                    expected = self.scenario.cost.start_s(self.fleet[id].replica.model)
                    self._starts.append((seconds, expected))
                    self._serve(id)
                    self._go_on()
            case "drain cap":
                id, migrate = details
                if self.phases.get(id) == "draining":
                    self._end(id, migrate)
                    self._go_on()
            case "grant":
                pool, node, at = details
                if self.supply.pools[pool].grant(node, at):
                    self._outbox.append(CapacityChanged(pool, self.supply.pools[pool].gpus))
            case "notice":
                self._notice(details[0], details[0].at_s, pinned=False)
            case "doom":
                self._spare(details[0], details[1])
            case "loss":
                self._lose(details[0], details[1])
            case "reorder":
                for at, node in self.supply.pools[details[0]].order(self.now_s):
                    self._at(at, "grant", details[0], node, at)

    def _notice(self, loss: SpotLoss, at_s: float, *, pinned: bool) -> None:
        supply = self.supply.pools[loss.pool]
        victims = supply.victims(loss)
        if not victims:
            return
        remaining = supply.gpus - len(victims) * supply.pool.gpus_per_node
        self._outbox.append(CapacityNotice(loss.pool, remaining, at_s))
        if not pinned:
            self._at(max(self.now_s, at_s - DOOMED_DRAIN_S), "doom", loss.pool, victims)
            self._at(at_s, "loss", loss, victims)

    def _on_nodes(self, pool: str, nodes: tuple[int, ...]) -> list[int]:
        names = {f"{pool}/{node}" for node in nodes}
        return [id for id in sorted(self.fleet) if any(node in names for node, _ in self.fleet[id].gpus)]

    def _spare(self, pool: str, nodes: tuple[int, ...]) -> None:
        """Send nothing new to replicas about to die, as long as others serve their model."""
        doomed = [id for id in self._on_nodes(pool, nodes) if self.phases[id] == "serving"]
        self._doomed.update(doomed)
        for id in doomed:
            model = self.fleet[id].replica.model
            others = [
                i
                for i, phase in self.phases.items()
                if phase == "serving" and i not in self._doomed and self.fleet[i].replica.model == model
            ]
            if others:
                self.simulation.drain(self._slots[id])

    def _lose(self, loss: SpotLoss, nodes: tuple[int, ...]) -> None:
        supply = self.supply.pools[loss.pool]
        nodes = tuple(node for node in nodes if node in supply.up)
        dead = self._on_nodes(loss.pool, nodes)
        for id in dead:
            if self.phases[id] == "loading":
                self._gone(id)
            else:
                self._end(id, False)
        for node in nodes:
            if node in supply.up:
                supply.release(node, self.now_s)
        if not nodes:
            return
        supply.blocked_until_s = self.now_s + loss.recovery_s
        self._at(supply.blocked_until_s, "reorder", loss.pool)
        self._outbox.append(CapacityChanged(loss.pool, supply.gpus))
        if dead:
            self._outbox.append(ReplicaLost(self.running_plan()))

    def _give_back(self) -> None:
        for name, supply in self.supply.pools.items():
            held = (gpu for placed in self.fleet.values() for gpu in placed.gpus)
            busy = {int(node.rpartition("/")[2]) for node, _ in held if node.startswith(f"{name}/")}
            for node in supply.surplus(busy):
                supply.release(node, self.now_s)
                self._outbox.append(CapacityChanged(name, supply.gpus))

    # --- what can be known --------------------------------------------------------------------------------------

    def _scrape(self) -> None:
        missing = self.scenario.hidden.telemetry_missing
        samples = {}
        for id, slot in self._slots.items():
            if missing == 0 or self._rng.random() >= missing:
                samples[id] = slot
                self._count_work(id)
        taken = self.simulation.sample()
        self._at(self.now_s + SCRAPE_LAG_S, "visible", {id: taken[slot] for id, slot in samples.items()})
        self._at(self.now_s + SCRAPE_INTERVAL_S, "scrape")

    def _count_work(self, id: int) -> None:
        """What the replica's counters have gained since they were last read."""
        record = self.simulation.state.replicas[self._slots[id]]
        counters = np.array(
            [record["pure_steps"], record["pure_sequences"], record["pure_contexts"], record["pure_busy"]]
        )
        steps, sequences, contexts, busy = (counters - self._counted[id]).tolist()
        if steps == 0:
            return
        self._counted[id] = counters
        r = self.fleet[id].replica
        times = self.scenario.cost.steps(r.model, r.gpu, r.tensor_parallel, r.pipeline_parallel, r.kv_dtype_bytes)
        self._works.append(DecodeWork(r.gpu, times, steps, sequences, contexts, busy / SECOND))

    def take_measurements(self) -> tuple[list[DecodeWork], list[tuple[float, float]]]:
        """Decode work and replica starts seen since the last call, for calibration."""
        works, self._works = self._works, []
        starts, self._starts = self._starts, []
        return works, starts

    def statuses(self) -> list[tuple[Replica, Phase, int, int, float, float, float, float]]:
        """Per replica: itself, phase, in flight, their prompt tokens, running, waiting, KV use, age of these three."""
        rows = []
        for id in sorted(self.fleet):
            slot = self._slots.get(id)
            if slot is None:
                rows.append((self.fleet[id].replica, self.phases[id], 0, 0, 0.0, 0.0, 0.0, 0.0))
                continue
            record = self.simulation.state.replicas[slot]
            running, waiting, kv_use, sampled_s = self._visible[id].tolist()
            rows.append(
                (
                    self.fleet[id].replica,
                    self.phases[id],
                    int(record["in_flight"]),
                    int(record["in_flight_tokens"]),
                    running,
                    waiting,
                    kv_use,
                    self.now_s - sampled_s,
                )
            )
        return rows
