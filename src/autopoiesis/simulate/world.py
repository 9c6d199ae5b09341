"""The simulated world: requests served by a fleet of replicas on nodes that come and go.

It carries out the loop's commands with the same `Rollout` as the live world, and answers with the loop's events. What
it really is (the hidden coefficients, the losses to come, the telemetry not yet scraped) stays inside; what may be
known leaves through `statuses`, `take_measurements` and the events.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

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
from autopoiesis.plan.capacity import Capacity, Node
from autopoiesis.plan.placement import Placed, place
from autopoiesis.plan.rollout import KeepServing, Phase, Rollout, Start, Stop
from autopoiesis.policy.interface import Move
from autopoiesis.simulate import layout
from autopoiesis.simulate.agenda import Agenda
from autopoiesis.simulate.fleet import Action, Fleet
from autopoiesis.simulate.lives import End
from autopoiesis.simulate.market import capacity_events
from autopoiesis.simulate.scenario import Mode, Scenario
from autopoiesis.simulate.simulation import Simulation
from autopoiesis.simulate.supply import CapacityEvent, Grant, NodeFailure, SpotLoss, SpotReturn, Supply
from autopoiesis.simulate.telemetry import SCRAPE_INTERVAL_S, SCRAPE_LAG_S, Telemetry

DOOMED_DRAIN_S = 30.0
"""How long before a spot loss its replicas stop getting requests."""
REFUSAL_S = 1.0
"""It takes a moment to find that a plan cannot be placed; so a loop that tries again at once cannot stop time."""


@dataclass(slots=True)
class Transit:
    """A transition under way."""

    ticket: int
    rollout: Rollout
    move: Move
    reported: int = 0
    stopped: int = 0


class SimulatedWorld:
    """Serves a scenario's requests; time is virtual and moves only in `advance`."""

    def __init__(self, scenario: Scenario, plan: ServingPlan, capacity: Capacity, mode: Mode) -> None:
        """Every replica of `plan` serves from the beginning. Raises PlanError if the plan does not pack."""
        hidden = scenario.hidden
        self.scenario = scenario
        self.mode = mode
        self.simulation = Simulation(
            scenario.requests,
            scenario.models,
            scenario.slos,
            scenario.truth,
            seed=scenario.seed,
            closed_loop=mode is Mode.OPERATOR,
            believed=scenario.cost,
            router=scenario.router,
        )
        self.supply = Supply(capacity, hidden.seed)
        self.telemetry = Telemetry(scenario, self.simulation)
        self._agenda: Agenda[Action] = Agenda()
        self._calendar: Agenda[Action] = Agenda()
        """Paper mode: what happens when a window begins, by the recorded time that falls into that window."""
        self.fleet = Fleet(scenario, self.simulation, self.telemetry, self._agenda, self._go_on)
        self.plan = plan
        """The plan last applied."""
        self._in_force = plan
        """The plan last reached."""
        self._transit: Transit | None = None
        self._outbox: list[Event] = []
        self._settled = False
        """Whether the consequences of every change have been drawn."""
        placement = place(plan, self.supply.capacity().nodes(), ())
        for id, (replica, gpus) in enumerate(zip(placement.to_start, placement.targets, strict=True)):
            self.fleet.serve(Placed(id, replica, gpus))
        self._next_id = len(placement.to_start)
        self._agenda.add(SCRAPE_INTERVAL_S, self._scrape)
        self._capacity_events = (
            capacity_events(scenario.cluster, hidden.seed)
            if hidden.losses is None
            else iter(sorted(hidden.losses, key=lambda loss: loss.announced_s))
        )
        self._await_capacity_event()

    # --- time ---------------------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        return self.simulation.now_s

    def advance(self, until_s: float) -> list[Event]:
        """Serve until something happens that the loop must know, or until then, or until nothing is unfinished."""
        while True:
            if events := self.take_events():
                return events
            due_s = self._agenda.due_s
            answer = self.simulation.advance(min(due_s, until_s))
            if answer == layout.DRAINED:
                self.fleet.drained(self.simulation.drained_slot)
                self._settled = False
            elif answer == layout.REACHED and due_s <= until_s:
                self._agenda.pop()()
                self._settled = False
            else:
                return []

    def take_events(self) -> list[Event]:
        """What has happened already and was not yet told."""
        if not self._settled:
            self._settled = True
            self.fleet.settle(self._in_force, self.plan)
            self._give_back()
        events, self._outbox = self._outbox, []
        return events

    def release_batch(self, rows: NDArray[np.int64]) -> None:
        """Paper mode: these requests, consecutive rows, are available now."""
        state = self.simulation.state
        state.requests["arrival"][rows] = state.scalars[layout.NOW]
        if len(rows):
            state.scalars[layout.ORDER_END] = rows[-1] + 1
        state.scalars[layout.UNFINISHED] += len(rows)

    def window_began(self, index: int) -> None:
        """Paper mode: capacity events are pinned to window indices."""
        while self._calendar.due_s < (index + 1) * self.scenario.window_s:
            self._calendar.pop()()
            self._settled = False

    def _at_recorded(self, at_s: float, action: Action) -> None:
        """At that second of the recording: the world's own second in operator mode, in paper mode the beginning of
        the window that it falls into."""
        (self._agenda if self.mode is Mode.OPERATOR else self._calendar).add(at_s, action)

    # --- commands -----------------------------------------------------------------------------------------------

    def carry_out(self, command: Apply | Repair | CancelTransition | RequestCapacity) -> None:
        """One command of the loop; what comes of it is told by later events."""
        self._settled = False
        match command:
            case CancelTransition():
                self._transit = None
            case Apply():
                self._set_out(command.ticket, command.plan, command.move)
            case Repair():
                self._set_out(command.ticket, command.plan, Move())
            case RequestCapacity():
                self._order(command.pool, self.supply.pools[command.pool].ask(command.gpus, self.now_s))

    def _set_out(self, ticket: int, plan: ServingPlan, move: Move) -> None:
        self.plan = plan
        try:
            # a plan that can do without the nodes that are about to be lost does
            try:
                rollout = self._rollout(plan, move, self.supply.capacity(lasting=True).nodes())
            except PlanError:
                rollout = self._rollout(plan, move, self.supply.capacity().nodes())
        except PlanError as error:
            self._agenda.add(self.now_s + REFUSAL_S, partial(self._refuse, ticket, str(error)))
            return
        self._next_id += len(rollout.new)
        self._transit = Transit(ticket, rollout, move)
        self._go_on()

    def _rollout(self, plan: ServingPlan, move: Move, nodes: tuple[Node, ...]) -> Rollout:
        return Rollout(
            plan,
            nodes,
            tuple(self.fleet.replicas.values()),
            self.fleet.phases,
            capacity_kept=move.capacity_kept,
            envelope=self.scenario.envelope,
            next_id=self._next_id,
        )

    def _refuse(self, ticket: int, reason: str) -> None:
        self._outbox.append(TransitionFailed(ticket, reason, self.fleet.running_plan()))

    def _go_on(self) -> None:
        """Carry the transition as far as it goes now."""
        transit = self._transit
        if transit is None:
            return
        rollout, phases = transit.rollout, self.fleet.phases
        while actions := rollout.actions(phases):
            for action in actions:
                match action:
                    case Start():
                        self.fleet.start(Placed(action.id, action.replica, action.gpus))
                    case Stop():
                        transit.stopped += 1
                        self.fleet.stop(action.id, transit.move)
                    case KeepServing():
                        self.fleet.keep_serving(action.id)
        ready = sum(phases.get(new.id) == "serving" for new in rollout.new)
        if rollout.done(phases):
            self._transit = None
            self._in_force = self.plan
            self._outbox.append(TransitionDone(transit.ticket, len(rollout.new), transit.stopped))
        elif ready > transit.reported:
            transit.reported = ready
            self._outbox.append(TransitionProgress(transit.ticket, ready, len(rollout.new)))

    # --- nodes --------------------------------------------------------------------------------------------------

    def _order(self, pool: str, grants: list[Grant]) -> None:
        for grant in grants:
            self._agenda.add(grant[0], partial(self._granted, pool, grant))

    def _granted(self, pool: str, grant: Grant) -> None:
        if self.mode is Mode.ADDITIVE and self.simulation.unfinished:
            # what it sets in motion must not run beside serving: it waits for the next window
            self._calendar.add(0.0, partial(self._granted, pool, grant))
        elif self.supply.pools[pool].grant(grant):
            self.fleet.joined(self.supply.pools[pool].node_id(grant[1]))
            self._outbox.append(CapacityChanged(pool, self.supply.pools[pool].gpus))

    def _give_back(self) -> None:
        """Release what is held beyond what was asked for, as far as nothing is there or is going to be."""
        held = [*self.fleet.replicas.values(), *(self._transit.rollout.new if self._transit else ())]
        busy = {node for placed in held for node, _ in placed.gpus}
        for name, supply in self.supply.pools.items():
            surplus = supply.surplus(busy)
            for node in surplus:
                supply.release(node, self.now_s)
            if surplus:
                self._outbox.append(CapacityChanged(name, supply.gpus))

    def _await_capacity_event(self) -> None:
        event = next(self._capacity_events, None)
        if event is not None:
            self._at_recorded(event.announced_s, partial(self._befall, event))

    def _befall(self, event: CapacityEvent) -> None:
        self._await_capacity_event()
        match event:
            case SpotLoss():
                self._announce(event)
            case SpotReturn():
                self._order(event.pool, self.supply.pools[event.pool].offer(event.which, self.now_s))
            case NodeFailure():
                self._fail(event)

    def _announce(self, loss: SpotLoss) -> None:
        supply = self.supply.pools[loss.pool]
        victims = supply.condemn(loss)
        if not victims:
            return
        at_s = loss.at_s
        if self.mode is Mode.OPERATOR:
            self._agenda.add(max(self.now_s, at_s - DOOMED_DRAIN_S), partial(self._doom, loss.pool, victims))
        else:
            width = self.scenario.window_s
            at_s = self.now_s + (loss.at_s // width - loss.announced_s // width) * width
        self._at_recorded(loss.at_s, partial(self._lose, loss, victims))
        if at_s > self.now_s:
            left = len(supply.up) - len(supply.condemned)
            self._outbox.append(CapacityNotice(loss.pool, left * supply.pool.gpus_per_node, at_s))

    def _doom(self, pool: str, victims: tuple[Grant, ...]) -> None:
        supply = self.supply.pools[pool]
        names = {supply.node_id(node) for since, node in victims if supply.up.get(node) == since}
        self.fleet.doom(self.fleet.on_nodes(names))

    def _lose(self, loss: SpotLoss, victims: tuple[Grant, ...]) -> None:
        supply = self.supply.pools[loss.pool]
        lost = supply.lose(victims, self.now_s, shortage=loss.which is None)
        if not lost:
            return
        self._bury(loss.pool, lost)
        if loss.which is None:
            self._at_recorded(loss.at_s + loss.recovery_s, partial(self._recover, loss.pool))
        else:
            self._order(loss.pool, supply.order(self.now_s))

    def _recover(self, pool: str) -> None:
        self._order(pool, self.supply.pools[pool].recover(self.now_s))

    def _fail(self, failure: NodeFailure) -> None:
        supply = self.supply.pools[failure.pool]
        if supply.fail(failure.node, self.now_s):
            self._bury(failure.pool, (failure.node,))
            self._at_recorded(failure.at_s + failure.repair_s, partial(self._repair, failure))
            self._order(failure.pool, supply.order(self.now_s))

    def _repair(self, failure: NodeFailure) -> None:
        self._order(failure.pool, self.supply.pools[failure.pool].repair(failure.node, self.now_s))

    def _bury(self, pool: str, lost: Collection[int]) -> None:
        """Nodes are gone, and what ran on them with them."""
        supply = self.supply.pools[pool]
        dead = self.fleet.on_nodes({supply.node_id(node) for node in lost})
        # a transition may have been about to use the nodes, whether or not anything ran there
        matters = self._transit is not None or any(self.fleet.phases[id] != "draining" for id in dead)
        for id in dead:
            self.fleet.end(id, End.LOST)
        self._outbox.append(CapacityChanged(pool, supply.gpus))
        if matters:
            self._outbox.append(ReplicaLost(self.fleet.running_plan()))

    # --- what can be known --------------------------------------------------------------------------------------

    def _scrape(self) -> None:
        scrape = self.telemetry.scrape()
        self.fleet.lives.sampled(scrape.gauges)
        self._agenda.add(self.now_s + SCRAPE_LAG_S, partial(self.telemetry.publish, scrape))
        self._agenda.add(self.now_s + SCRAPE_INTERVAL_S, self._scrape)

    def take_measurements(self) -> tuple[list[DecodeWork], list[tuple[float, float]]]:
        """Decode work and replica starts known since the last call, for calibration."""
        return self.telemetry.take_measurements()

    def statuses(self) -> list[tuple[Replica, Phase, int, int, float, float, float, float]]:
        """Per replica: itself, phase, in flight, their prompt tokens, running, waiting, KV use, age of these three."""
        return self.fleet.statuses()
