"""Every cell of the table event × state. `docs/architecture.md` holds the same cells in the same words.

`python tests/loop/test_table.py` writes the document's table anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
from loop_scenes import (
    FULL,
    MOVING_STATES,
    NEXT,
    START,
    STILL_STATES,
    UNKNOWN_SHAPE,
    A,
    H,
    Scene,
    canonical,
    scene,
    with_replicas,
)

from autopoiesis.loop import (
    Apply,
    AskTrigger,
    CancelPlan,
    CancelTransition,
    CapacityChanged,
    CapacityNotice,
    Command,
    Event,
    PlanFailed,
    PlanReady,
    PolicySwapped,
    Repair,
    ReplicaLost,
    RequestCapacity,
    StartPlan,
    State,
    Tick,
    TransitionDone,
    TransitionFailed,
    TransitionProgress,
    TriggerAnswered,
)
from autopoiesis.plan import ClassShares, ServingPlan
from autopoiesis.policy import Decision

DOCUMENT = Path(__file__).parents[2] / "docs" / "architecture.md"
HEADING = "## Event × state"
"""The table is the first one under this heading."""
STALE = 99
"""A ticket that nobody waits for."""

IDLE, ASKING, PLANNING = STILL_STATES
IDLE_MOVING, ASKING_MOVING, PLANNING_MOVING = MOVING_STATES
IDLES, ASKINGS, PLANNINGS = (IDLE, IDLE_MOVING), (ASKING, ASKING_MOVING), (PLANNING, PLANNING_MOVING)
STILL_OF = dict(zip(MOVING_STATES, STILL_STATES, strict=True))
MOVING_OF = dict(zip(STILL_STATES, MOVING_STATES, strict=True)) | {state: state for state in MOVING_STATES}
IDLE_OF = {ASKING: IDLE, PLANNING: IDLE, ASKING_MOVING: IDLE_MOVING, PLANNING_MOVING: IDLE_MOVING}
EVENTS: tuple[type[Event], ...] = get_args(Event)


@dataclass(frozen=True)
class Case:
    """One thing that can happen in a cell: an event in a scene, and what must come of it."""

    name: str
    event: Callable[[Scene], Event]
    commands: Callable[[Scene], list[Command]]
    state: State
    counted: str | None = None
    waiting: bool = False
    late_s: float = 0.0
    check: Callable[[Scene], bool] = lambda scene: True


@dataclass(frozen=True)
class Cell:
    text: str
    cases: tuple[Case, ...]


def nothing(scene: Scene) -> list[Command]:
    return []


def cancelled(scene: Scene, *commands: Command) -> list[Command]:
    """The commands, after the cancellation that they need if something is under way."""
    return [CancelTransition(scene.moving), *commands] if scene.moving else list(commands)


def target(scene: Scene) -> ServingPlan:
    return NEXT if scene.moving else START


def ignored(state: State, name: str, event: Callable[[Scene], Event]) -> Case:
    return Case(name, event, nothing, state, "stale_events")


def shared(plan: ServingPlan) -> ServingPlan:
    """The same replicas, with shares that favour the first."""
    count = len(plan.replicas)
    return ServingPlan(plan.replicas, (ClassShares("m/<512", (1.0, *[0.0] * (count - 1))),))


def tick_cell(state: State) -> Cell:
    if state in IDLES:
        asking = ASKING if state is IDLE else ASKING_MOVING
        case = Case("the trigger is asked", lambda s: Tick(), lambda s: [AskTrigger(s.next)], asking, "ticks")
        return Cell("ask the trigger", (case,))
    case = Case("it is counted and ignored", lambda s: Tick(), nothing, state, "ignored_ticks")
    return Cell("count, ignore", (case,))


def trigger_answered_cell(state: State) -> Cell:
    stale = ignored(state, "a stale answer", lambda s: TriggerAnswered(STALE, True))
    if state not in ASKINGS:
        return Cell("ignore (stale)", (stale,))
    planning = PLANNING if state is ASKING else PLANNING_MOVING
    return Cell(
        "yes: start planning; no, failed: idle",
        (
            Case(
                "yes",
                lambda s: TriggerAnswered(s.asking, True),
                lambda s: [StartPlan(s.next, s.now_s + 30.0)],
                planning,
                "triggers",
            ),
            Case("no", lambda s: TriggerAnswered(s.asking, False), nothing, IDLE_OF[state]),
            Case("failed", lambda s: TriggerAnswered(s.asking, None), nothing, IDLE_OF[state], "trigger_failures"),
            stale,
        ),
    )


def plan_ready_cell(state: State) -> Cell:
    stale = ignored(state, "a stale plan", lambda s: PlanReady(STALE, Decision(FULL)))
    if state not in PLANNINGS:
        return Cell("ignore (stale)", (stale,))
    idle = IDLE_OF[state]

    def ready(decision: Callable[[Scene], Decision]) -> Callable[[Scene], Event]:
        return lambda s: PlanReady(s.planning, decision(s))

    cancel = "" if state is PLANNING else "cancel, "
    return Cell(
        f"another deployment: {cancel}apply; the same: idle; refused, late: idle",
        (
            Case(
                "another deployment",
                ready(lambda s: Decision(FULL, memory={"seen": 1})),
                lambda s: cancelled(s, Apply(s.next, FULL)),
                IDLE_MOVING,
                "transitions",
                check=lambda s: s.loop.plan == s.loop.wanted == s.loop.pending == FULL and s.loop.memory == {"seen": 1},
            ),
            Case(
                "the same deployment",
                ready(lambda s: Decision(target(s), memory={"seen": 1})),
                nothing,
                idle,
                "plans",
                check=lambda s: s.loop.memory == {"seen": 1},
            ),
            Case(
                "the same replicas with other shares",
                ready(lambda s: Decision(shared(target(s)))),
                lambda s: cancelled(s, Apply(s.next, shared(target(s)))),
                IDLE_MOVING,
                "transitions",
            ),
            Case(
                "more than there is, requested",
                ready(lambda s: Decision(with_replicas(target(s), A), capacity={"cloud": 2})),
                lambda s: [RequestCapacity("cloud", 2)],
                idle,
                "plans",
                check=lambda s: s.loop.wanted == with_replicas(target(s), A) and s.loop.plan == target(s),
            ),
            Case(
                "more than there is, not requested",
                ready(lambda s: Decision(with_replicas(target(s), A), memory={"seen": 1})),
                nothing,
                idle,
                "plans_rejected",
                check=lambda s: s.loop.plan == target(s) and s.loop.memory == {} and bool(s.loop.last_refusal),
            ),
            Case("an unknown shape", ready(lambda s: Decision(UNKNOWN_SHAPE)), nothing, idle, "plans_rejected"),
            Case("past its deadline", ready(lambda s: Decision(FULL)), nothing, idle, "plan_failures", late_s=30.5),
            stale,
        ),
    )


def plan_failed_cell(state: State) -> Cell:
    stale = ignored(state, "a stale failure", lambda s: PlanFailed(STALE, "deadline"))
    if state not in PLANNINGS:
        return Cell("ignore (stale)", (stale,))
    failed = Case("failed", lambda s: PlanFailed(s.planning, "deadline"), nothing, IDLE_OF[state], "plan_failures")
    return Cell("keep the plan; idle", (failed, stale))


def progress_cell(state: State) -> Cell:
    stale = ignored(state, "a stale report", lambda s: TransitionProgress(STALE, 1, 1))
    if state in STILL_STATES:
        return Cell("ignore (stale)", (stale,))

    def is_shown(s: Scene) -> bool:
        return s.loop.moving is not None and (s.loop.moving.started, s.loop.moving.to_start) == (1, 5)

    case = Case("it is shown", lambda s: TransitionProgress(s.moving, 1, 5), nothing, state, check=is_shown)
    return Cell("show it", (case, stale))


def done_cell(state: State) -> Cell:
    stale = ignored(state, "a stale end", lambda s: TransitionDone(STALE, 1, 0))
    if state in STILL_STATES:
        return Cell("ignore (stale)", (stale,))
    done = Case(
        "done",
        lambda s: TransitionDone(s.moving, 1, 0),
        nothing,
        STILL_OF[state],
        check=lambda s: s.loop.plan == NEXT and s.loop.pending is None,
    )
    return Cell("still; release capacity put off", (done, stale))


def failed_cell(state: State) -> Cell:
    stale = ignored(state, "a stale failure", lambda s: TransitionFailed(STALE, "no", START))
    if state in STILL_STATES:
        return Cell("ignore (stale)", (stale,))
    return Cell(
        "what runs is in force; still; below the minimum: repair",
        (
            Case(
                "enough still runs",
                lambda s: TransitionFailed(s.moving, "no", START),
                nothing,
                STILL_OF[state],
                "transition_failures",
                check=lambda s: s.loop.plan == START,
            ),
            Case(
                "too little runs",
                lambda s: TransitionFailed(s.moving, "no", ServingPlan(())),
                lambda s: [Repair(s.next, ServingPlan((H,)))],
                state,
                "repairs",
            ),
            stale,
        ),
    )


def notice_cell(state: State) -> Cell:
    notice = CapacityNotice("cloud", 0, 60.0)
    noted = Case("it is noted", lambda s: notice, nothing, state, check=lambda s: s.loop.announced == [notice])
    return Cell("note it", (noted,))


def capacity_changed_cell(state: State) -> Cell:
    cancel = "cancel, " if state in MOVING_STATES else ""
    return Cell(
        f"grown and more wanted: {cancel}apply; shrunk and no room: {cancel}repair",
        (
            Case(
                "grown, and more is wanted",
                lambda s: CapacityChanged("cloud", 2),
                lambda s: cancelled(s, Apply(s.next, with_replicas(target(s), A, A))),
                MOVING_OF[state],
                "transitions",
                waiting=True,
            ),
            Case("grown, and nothing is wanted", lambda s: CapacityChanged("cloud", 2), nothing, state),
            Case("shrunk, and the plan still stands", lambda s: CapacityChanged("own", 3), nothing, state),
            Case(
                "shrunk below the plan",
                lambda s: CapacityChanged("own", 1),
                lambda s: cancelled(s, Repair(s.next, ServingPlan((H,)))),
                MOVING_OF[state],
                "repairs",
            ),
            ignored(state, "a pool that there is not", lambda s: CapacityChanged("moon", 2)),
        ),
    )


def lost_cell(state: State) -> Cell:
    cancel = "cancel, " if state in MOVING_STATES else ""
    lost = Case(
        "a replica is lost",
        lambda s: ReplicaLost(ServingPlan((H,))),
        lambda s: cancelled(s, Repair(s.next, target(s))),
        MOVING_OF[state],
        "repairs",
        check=lambda s: s.loop.moving is not None and s.loop.moving.to_start == len(target(s).replicas) - 1,
    )
    return Cell(f"{cancel}repair", (lost,))


def swapped_cell(state: State) -> Cell:
    def swap(scene: Scene) -> Event:
        return PolicySwapped("new", {"kept": True})

    def adopted(scene: Scene) -> bool:
        return scene.loop.memory == {"kept": True} and (scene.loop.pending is not None) == bool(scene.moving)

    if state in PLANNINGS:
        case = Case("planning", swap, lambda s: [CancelPlan(s.planning)], IDLE_OF[state], "swaps", check=adopted)
        return Cell("take its memory; cancel the plan", (case,))
    after = IDLE_OF.get(state, state)
    text = "take its memory; drop the question" if state in ASKINGS else "take its memory"
    return Cell(text, (Case("not planning", swap, nothing, after, "swaps", check=adopted),))


ROWS: dict[type[Event], Callable[[State], Cell]] = {
    Tick: tick_cell,
    TriggerAnswered: trigger_answered_cell,
    PlanReady: plan_ready_cell,
    PlanFailed: plan_failed_cell,
    TransitionProgress: progress_cell,
    TransitionDone: done_cell,
    TransitionFailed: failed_cell,
    CapacityNotice: notice_cell,
    CapacityChanged: capacity_changed_cell,
    ReplicaLost: lost_cell,
    PolicySwapped: swapped_cell,
}
CELLS: dict[tuple[type[Event], State], Cell] = {
    (event, state): row(state) for event, row in ROWS.items() for state in State
}
CASES = [
    pytest.param(state, case, id=f"{event.__name__}-{state.value}-{case.name}")
    for (event, state), cell in CELLS.items()
    for case in cell.cases
]


def table() -> list[str]:
    """The lines of the document's table."""
    rows = [["event", *(state.value for state in State)], ["---"] * (1 + len(State))]
    rows += [[f"`{event.__name__}`", *(CELLS[event, state].text for state in State)] for event in EVENTS]
    return ["| " + " | ".join(row) + " |" for row in rows]


def table_lines(lines: list[str]) -> range:
    """Where the document's table stands."""
    first = next(i for i, line in enumerate(lines) if i > lines.index(HEADING) and line.startswith("|"))
    last = next((i for i in range(first, len(lines)) if not lines[i].startswith("|")), len(lines))
    return range(first, last)


def document_table() -> list[str]:
    lines = DOCUMENT.read_text().splitlines()
    return [lines[i] for i in table_lines(lines)]


def test_every_cell_has_a_case_of_its_own_event() -> None:
    assert set(CELLS) == {(event, state) for event in EVENTS for state in State}
    assert len(CELLS) == 66
    for (event, state), cell in CELLS.items():
        assert cell.cases
        assert all(isinstance(case.event(scene(state)), event) for case in cell.cases)


@pytest.mark.parametrize(("state", "case"), CASES)
def test_the_loop_does_what_the_table_says(state: State, case: Case) -> None:
    before = scene(state, waiting=case.waiting)
    before.now_s += case.late_s
    counts = before.loop.counts.copy()
    commands = before.loop.step(case.event(before), before.now_s)
    assert canonical(commands) == canonical(case.commands(before))
    assert before.loop.state is case.state
    if case.counted:
        assert before.loop.counts[case.counted] == counts[case.counted] + 1
    if case.counted != "stale_events":
        assert before.loop.counts["stale_events"] == counts["stale_events"]
    assert case.check(before)


def test_a_stale_event_changes_nothing_but_its_count() -> None:
    stale = [
        (state, case) for (_, state), cell in CELLS.items() for case in cell.cases if case.counted == "stale_events"
    ]
    for state, case in stale:
        before, after = scene(state), scene(state)
        after.loop.step(case.event(after), after.now_s)
        after.loop.counts["stale_events"] -= 1
        assert vars(after.loop) == vars(before.loop)


def test_the_document_has_the_same_rows_columns_and_cells() -> None:
    assert document_table() == table(), "run `python tests/loop/test_table.py` to write the document's table anew"


def write_document() -> None:
    """Replace the lines of the document's table, leaving the words around it."""
    lines = DOCUMENT.read_text().splitlines()
    at = table_lines(lines)
    DOCUMENT.write_text("\n".join([*lines[: at.start], *table(), *lines[at.stop :]]) + "\n")


if __name__ == "__main__":
    write_document()
