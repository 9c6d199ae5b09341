"""A run's event log is enough to run it again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from loop_scenes import FULL, new_loop
from loop_stories import LATEST, Story, envelopes, stories, tell

from autopoiesis.errors import StoreError
from autopoiesis.loop import AskTrigger, EventLog, PlanReady, Tick, TriggerAnswered, replay
from autopoiesis.plan import Envelope
from autopoiesis.policy import Decision

PLAIN: Story = [(60.0, (Tick(), TriggerAnswered(LATEST, True), PlanReady(LATEST, Decision(FULL))))]


def logged(story: Story, envelope: Envelope | None = None) -> EventLog:
    log = EventLog()
    for told in tell(story, new_loop(envelope=envelope)):
        log.append(told.now_s, told.event, told.commands)
    return log


@settings(max_examples=150, deadline=None)
@given(stories, envelopes)
def test_a_log_written_read_and_replayed_gives_identical_commands(story: Story, envelope: Envelope) -> None:
    log = logged(story, envelope)
    lines = list(log.lines())
    read = EventLog.from_lines(lines)
    assert read == log
    assert list(read.lines()) == lines
    assert replay(read, new_loop(envelope=envelope)) == []


def test_a_line_is_json_with_the_type_of_each_message() -> None:
    (first, *_) = logged(PLAIN).lines()
    assert "\n" not in first
    assert json.loads(first) == {
        "now_s": 60.0,
        "event": {"type": "Tick"},
        "commands": [{"type": "AskTrigger", "ticket": 1}],
    }


def test_times_keep_every_digit() -> None:
    log = EventLog()
    log.append(0.1 + 0.2, Tick(), [AskTrigger(1)])
    assert EventLog.from_lines(log.lines()).records[0].now_s == 0.1 + 0.2


def test_replaying_on_another_beginning_reports_every_step_that_differs() -> None:
    log = logged(PLAIN)
    mismatches = replay(log, new_loop(plan=FULL))
    assert [mismatch.step for mismatch in mismatches] == [2]
    assert mismatches[0].record == log.records[2]
    assert mismatches[0].replayed == ()
    assert "step 2 at 60.0 s, PlanReady" in str(mismatches[0])


def test_a_log_that_was_tampered_with_does_not_replay() -> None:
    log = logged(PLAIN)
    log.records[0] = replace(log.records[0], commands=())
    assert [mismatch.step for mismatch in replay(log, new_loop())] == [0]


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[]",
        "{}",
        '{"now_s": 0.0, "event": {"type": "Tick"}}',
        '{"now_s": "soon", "event": {"type": "Tick"}, "commands": []}',
        '{"now_s": 0.0, "event": {}, "commands": []}',
        '{"now_s": 0.0, "event": {"type": "Tick"}, "commands": [7]}',
        '{"now_s": 0.0, "event": {"type": "TransitionDone", "ticket": "x"}, "commands": []}',
    ],
)
def test_a_damaged_line_is_named(line: str) -> None:
    good = next(logged(PLAIN).lines())
    with pytest.raises(StoreError, match=r"^events\.jsonl:3: "):
        EventLog.from_lines([good, "", line], where="events.jsonl")


def test_an_unknown_message_is_named_with_its_near_matches() -> None:
    line = '{"now_s": 0.0, "event": {"type": "Tock"}, "commands": []}'
    with pytest.raises(StoreError, match="event log:1: unknown message 'Tock'; did you mean Tick"):
        EventLog.from_lines([line])
