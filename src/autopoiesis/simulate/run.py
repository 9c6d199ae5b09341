"""One run: the control loop, a policy and the simulated world, joined in virtual time.

The same loop drives the live system; here its questions to the policy are answered at once and *charged*: the answer
reaches the loop as much later as the meter says that it took. Paper mode lays the same parts out in batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autopoiesis.cost.calibration import Belief
from autopoiesis.loop.control import ControlLoop
from autopoiesis.loop.log import EventLog
from autopoiesis.loop.messages import (
    Apply,
    AskTrigger,
    CancelPlan,
    CapacityChanged,
    CapacityNotice,
    Event,
    PlanFailed,
    PlanReady,
    PolicySwapped,
    Repair,
    ReplicaLost,
    StartPlan,
    Tick,
    TransitionDone,
    TransitionFailed,
    TriggerAnswered,
)
from autopoiesis.loop.state import State
from autopoiesis.plan import ServingPlan
from autopoiesis.plan.capacity import Capacity
from autopoiesis.policy.host import Answer
from autopoiesis.policy.interface import Decision, Observation, PastTransition
from autopoiesis.policy.source import PolicySource
from autopoiesis.simulate import layout
from autopoiesis.simulate.agenda import Agenda
from autopoiesis.simulate.marks import Mark
from autopoiesis.simulate.outcome import Books, PaperTimes, keep_books
from autopoiesis.simulate.scenario import Mode, Scenario
from autopoiesis.simulate.simulation import Routing
from autopoiesis.simulate.views import WindowBook, observe
from autopoiesis.simulate.world import SimulatedWorld
from autopoiesis.workload import Window

INSTANT_S = 1e-9
"""Times this close are one instant: seconds are floats here and picoseconds in the kernel."""
MOVE_LIMIT_S = 86_400.0
"""Additive accounting waits this long for a move to end before it serves on with what there is."""


class Policy(Protocol):
    """What a run asks. Answers carry their charge; a failed call has a value of None."""

    source: PolicySource
    routing: Routing
    failures: int
    last_failure: str | None

    def trigger(self, observation: Observation, belief: bytes) -> Answer[bool]: ...

    def plan(self, observation: Observation, belief: bytes) -> Answer[Decision]: ...

    def adopt(self, memory: dict[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person watching wants a line about."""

    at_s: float
    kind: str
    """`reschedule`, `transition`, `repair`, `swap`, `capacity`, `refusal` or `failure`."""
    text: str


@dataclass(frozen=True, slots=True)
class Point:
    """A monitoring point, as the control plane sees it: everything up to now."""

    run: Run
    now_s: float
    index: int
    """Windows closed so far."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to; `books` in operator mode, `paper` in paper mode."""

    books: Books | None
    paper: PaperTimes | None
    reschedules: int
    """Transitions that changed something."""
    ended_s: float
    failures: int
    """Calls of policies that failed or came too late, and requests that their `route` could not place."""
    charged_s: float
    """Trigger and planner together."""


class Run:
    """Serves a whole scenario under a policy. `finish` runs it to its end."""

    def __init__(
        self,
        scenario: Scenario,
        policy: Policy,
        plan: ServingPlan,
        capacity: Capacity,
        mode: Mode,
        *,
        on_point: Callable[[Point], Policy | None] | None = None,
        notify: Callable[[Notice], None] = lambda notice: None,
        memory: dict[str, Any] | None = None,
        log: EventLog | None = None,
    ) -> None:
        self.scenario = scenario
        self.policy = policy
        self.mode = mode
        self.world = SimulatedWorld(scenario, plan, capacity, mode)
        self.loop = ControlLoop(
            scenario.cluster,
            scenario.envelope,
            scenario.models,
            scenario.shapes,
            plan,
            capacity,
            scenario.planner_deadline_s,
            memory,
        )
        self.belief = Belief(scenario.cost)
        self.book = WindowBook(scenario, self.world.simulation, batches=mode is not Mode.OPERATOR)
        self.windows: list[Window] = []
        self.past: tuple[PastTransition, ...] = ()
        self.marks: list[Mark] = []
        """The end of every window, the last one that the run's end cuts short included."""
        self.reschedules = 0
        self.charged_s = 0.0
        self.log = log
        self._shown: list[Window] = self.windows
        self._on_point = on_point
        self._notify = notify
        self._answers: Agenda[Event] = Agenda()
        """What the policy has answered and the loop will know when the time for it has passed."""
        self._began: dict[int, float] = {}
        self._attributed_s = 0.0
        self._spent = {"scheduling": 0.0, "reconfiguration": 0.0, "serving": 0.0}
        self._failures = 0
        self._failures_told: set[str] = set()
        simulation = self.world.simulation
        simulation.set_routing(policy.routing)
        simulation.state.scalars[layout.STOP_EMPTY] = 1
        if mode is not Mode.OPERATOR:
            # the total time of a batch is that of all its requests
            simulation.state.scalars[layout.SERVES_ALL] = 1
            simulation.state.scalars[layout.UNFINISHED] = 0
            simulation.state.scalars[layout.ORDER_END] = 0

    @property
    def now_s(self) -> float:
        return self.world.now_s

    @property
    def progress(self) -> float:
        """Fraction of the requests that have ended."""
        total = len(self.scenario.requests)
        return int(self.world.simulation.state.scalars[layout.FINISHED]) / total if total else 1.0

    def finish(self, each: Callable[[float], None] = lambda fraction: None) -> Outcome:
        """Serve everything; `each` is told the progress at every monitoring point."""
        if self.mode is Mode.OPERATOR:
            self._serve_open(each)
        else:
            self._serve_batches(each)
        self.world.fleet.lives.close()
        cost_usd, gpu_hours = self.world.supply.books(self.now_s)
        operator = self.mode is Mode.OPERATOR
        return Outcome(
            books=keep_books(self.scenario, self.world.simulation, cost_usd, gpu_hours) if operator else None,
            paper=None
            if operator
            else PaperTimes(
                sum(self._spent.values()),
                self._spent["scheduling"],
                self._spent["reconfiguration"],
                self._spent["serving"],
            ),
            reschedules=self.reschedules,
            ended_s=self.now_s,
            failures=self._failures + self.world.simulation.route_faults,
            charged_s=self.charged_s,
        )

    # --- the two layouts of time --------------------------------------------------------------------------------

    def _serve_open(self, each: Callable[[float], None]) -> None:
        width = self.scenario.window_s
        simulation = self.world.simulation
        index = 0
        while simulation.unfinished:
            end = (index + 1) * width
            self._serve(until_s=end)
            self._mark()
            if not simulation.unfinished:
                return
            self.windows.append(self.book.close(index, index * width, end))
            index += 1
            each(self.progress)
            self._monitor(index)

    def _serve_batches(self, each: Callable[[float], None]) -> None:
        width = self.scenario.window_s
        batch_of = (self.scenario.requests.arrival_s // width).astype(np.int64)
        count = int(batch_of[-1]) + 1 if len(batch_of) else 0
        edges = np.searchsorted(batch_of, np.arange(count + 1))
        for index in range(count):
            rows: NDArray[np.int64] = np.arange(edges[index], edges[index + 1])
            if self.mode is Mode.OVERLAPPED:
                self.world.release_batch(rows)
            self.world.window_began(index)
            while events := self.world.take_events():
                for event in events:
                    self._step(event)
            # a batch of nothing takes no time, so there is nothing to decide for it
            if index and len(rows):
                self._shown = [*self.windows, self.book.at_hand(index, rows, self.windows)]
                self._monitor(index)
            if self.mode is Mode.ADDITIVE:
                self._serve(until_s=self.now_s + MOVE_LIMIT_S, empty=True)
                self.world.release_batch(rows)
            self._serve(until_s=float("inf"))
            self._mark()
            self.windows.append(self.book.close(index, index * width, (index + 1) * width))
            each(self.progress)

    def _mark(self) -> None:
        """A window ends now."""
        scalars = self.world.simulation.state.scalars
        cost_usd, gpu_hours = self.world.supply.books(self.now_s)
        self.marks.append(
            Mark(
                at=int(scalars[layout.NOW]),
                arrived=int(scalars[layout.ARRIVED]),
                finished=int(scalars[layout.FINISHED]),
                cost_usd=cost_usd,
                gpu_hours=gpu_hours,
                scheduling_s=self._spent["scheduling"],
                reconfiguration_s=self._spent["reconfiguration"],
                reschedules=self.reschedules,
                plan=self.loop.plan,
                policy=self.policy.source.identity,
                replicas=self.world.fleet.lives.snapshot(),
            )
        )

    def _monitor(self, index: int) -> None:
        """A monitoring point: calibrate, let the control plane swap, ask the trigger."""
        works, starts = self.world.take_measurements()
        self.belief.observe(works, starts)
        if self._on_point is not None:
            successor = self._on_point(Point(self, self.now_s, index))
            if successor is not None:
                self.swap(successor)
        self._step(Tick())

    def swap(self, successor: Policy) -> None:
        """The successor takes over now; requests that are placed stay where they are."""
        before = successor.failures
        memory = successor.adopt(self.loop.memory)
        self._failures += successor.failures - before
        self.policy = successor
        self.world.simulation.set_routing(successor.routing)
        # nobody waits any more for what the predecessor was asked, nor pays for the rest of it
        self.charged_s -= sum(at_s - self.now_s for at_s in self._answers.clear())
        self._step(PolicySwapped(successor.source.identity, memory))

    # --- time ---------------------------------------------------------------------------------------------------

    def _serve(self, until_s: float, empty: bool = False) -> None:
        """Serve until then, or until nothing is unfinished. With `empty` until then or until the loop is idle."""
        simulation, answers = self.world.simulation, self._answers
        while (answers or self.loop.state is not State.IDLE) if empty else simulation.unfinished:
            events = self.world.advance(min(answers.due_s, until_s))
            self._attribute()
            if events:
                for event in events:
                    self._step(event)
            elif answers.due_s <= self.now_s + INSTANT_S:
                self._step(answers.pop())
            elif self.now_s >= until_s - INSTANT_S:
                return

    def _attribute(self) -> None:
        """Every instant counts once: as reconfiguration while a transition is under way, else as scheduling while the
        policy computes, else as serving."""
        passed = self.now_s - self._attributed_s
        self._attributed_s = self.now_s
        if self.loop.moving is not None:
            self._spent["reconfiguration"] += passed
        elif self.loop.state is not State.IDLE:
            self._spent["scheduling"] += passed
        else:
            self._spent["serving"] += passed

    # --- the loop -----------------------------------------------------------------------------------------------

    def _step(self, event: Event) -> None:
        now_s = self.now_s
        refused, stale = self.loop.counts["plans_rejected"], self.loop.counts["stale_events"]
        commands = self.loop.step(event, now_s)
        if self.log is not None:
            self.log.append(now_s, event, commands)
        if self.loop.counts["stale_events"] == stale:
            self._tell(event, refused)
        for command in commands:
            match command:
                case AskTrigger():
                    answer = self.policy.trigger(self._observation(), self.belief.cost.encode())
                    self._later(
                        answer, TriggerAnswered(command.ticket, answer.value), TriggerAnswered(command.ticket, None)
                    )
                case StartPlan():
                    planned = self.policy.plan(self._observation(), self.belief.cost.encode())
                    if planned.value is None:
                        message: Event = PlanFailed(command.ticket, planned.failure or "no answer")
                    else:
                        message = PlanReady(command.ticket, planned.value)
                    self._later(planned, message, PlanFailed(command.ticket, "deadline"))
                case CancelPlan():
                    pass  # `swap`, the only cause, has withdrawn the question
                case _:
                    if isinstance(command, Repair):
                        self._say("repair", f"capacity is short; moving to {command.plan}")
                    if isinstance(command, Apply | Repair):
                        self._began[command.ticket] = now_s
                    self.world.carry_out(command)

    def _later(self, answer: Answer[Any], message: Event, late: Event) -> None:
        """The answer reaches the loop when its metered time has passed, or `late` does at the deadline."""
        deadline_s = self.scenario.planner_deadline_s
        seconds = answer.charge.seconds * self.scenario.planner_cost
        if answer.failure is not None:
            self._failures += 1
            if answer.charge.seconds == 0:
                # its counters died with it: it hung until the deadline or might as well have
                seconds = deadline_s
        elif seconds >= deadline_s:
            self._failures += 1
            message = late
        seconds = min(seconds, deadline_s)
        self.charged_s += seconds
        self._answers.add(self.now_s + seconds, message)

    def _observation(self) -> Observation:
        shown = self._shown if self.mode is not Mode.OPERATOR else self.windows
        return observe(self.scenario, self.world, self.loop, shown, self.past, self.now_s)

    def observation(self) -> Observation:
        """What a policy would be shown now; for gates that try a policy without letting it act."""
        return self._observation()

    def _tell(self, event: Event, refused: int) -> None:
        match event:
            case TransitionDone():
                seconds = self.now_s - self._began.get(event.ticket, self.now_s)
                if event.started or event.stopped:
                    self.reschedules += 1
                    self.past = (*self.past, PastTransition(self.now_s, seconds, event.started, event.stopped))[-16:]
                    self._say(
                        "transition",
                        f"done in {seconds:.0f} s: {event.started} started, {event.stopped} stopped; {self.loop.plan}",
                    )
            case TransitionFailed():
                self._say("transition", f"failed: {event.reason}")
            case TriggerAnswered(reschedule=None):
                self._fail(f"the trigger failed: {self.policy.last_failure}")
            case PlanFailed():
                self._fail(f"the planner failed: {event.reason}")
            case PlanReady() if self.loop.counts["plans_rejected"] > refused:
                self._say("refusal", f"plan refused: {self.loop.last_refusal}")
            case PlanReady() if self.loop.moving is not None:
                self._say("reschedule", f"to {self.loop.plan}")
            case CapacityNotice():
                self._say("capacity", f"{event.pool} will have {event.gpus} GPUs at {event.at_s:.0f} s")
            case CapacityChanged():
                self._say("capacity", f"{event.pool} has {event.gpus} GPUs")
            case ReplicaLost():
                self._say("capacity", f"replicas lost; {event.plan} remains")
            case PolicySwapped():
                self._say("swap", f"policy {event.policy} takes over: {self.policy.source.summary}")

    def _fail(self, text: str) -> None:
        """One line for each way in which a policy fails, however often it does."""
        if text not in self._failures_told:
            self._failures_told.add(text)
            self._say("failure", text)

    def _say(self, kind: str, text: str) -> None:
        self._notify(Notice(self.now_s, kind, text))


def with_mode_objective(scenario: Scenario, mode: Mode) -> Scenario:
    """Paper mode has one objective, the total time."""
    return scenario if mode is Mode.OPERATOR else replace(scenario, objective="total_time")
