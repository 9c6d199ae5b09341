"""The event log of a run: what the loop was told and what it commanded, enough to run it again.

One line of JSON is one step, `{"now_s": …, "event": {"type": "Tick"}, "commands": […]}`, where `type` names the message
and the other fields are the message's own. Times keep every digit, and an infinite number is written as Python's `json`
writes it (`Infinity`), because a replay that rounds is not a replay.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

import msgspec

from autopoiesis.errors import StoreError, unknown_name
from autopoiesis.loop.control import ControlLoop
from autopoiesis.loop.messages import Command, Event

EVENTS = {kind.__name__: kind for kind in get_args(Event)}
COMMANDS = {kind.__name__: kind for kind in get_args(Command)}


@dataclass(frozen=True, slots=True)
class Record:
    """One step of the loop."""

    now_s: float
    event: Event
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A step that, replayed, did not give the commands that were recorded."""

    step: int
    record: Record
    replayed: tuple[Command, ...]

    def __str__(self) -> str:
        return (
            f"step {self.step} at {self.record.now_s} s, {type(self.record.event).__name__}: "
            f"recorded {list(self.record.commands)}, replayed {list(self.replayed)}"
        )


@dataclass(slots=True)
class EventLog:
    """The steps of one run, in order."""

    records: list[Record] = field(default_factory=list)

    def append(self, now_s: float, event: Event, commands: Iterable[Command]) -> None:
        self.records.append(Record(now_s, event, tuple(commands)))

    def lines(self) -> Iterator[str]:
        """One line of JSON per step, without line ends."""
        return (_line(record) for record in self.records)

    @classmethod
    def from_lines(cls, lines: Iterable[str], where: str = "event log") -> EventLog:
        """The inverse of `lines`; empty lines are skipped. Raises `StoreError`, naming `where` and the line."""
        return cls([_record(line, f"{where}:{number}") for number, line in enumerate(lines, 1) if line.strip()])


def replay(log: EventLog, loop: ControlLoop) -> list[Mismatch]:
    """Feed a log's events to a loop that begins as the recorded one began; no mismatch means identical commands."""
    mismatches = []
    for step, record in enumerate(log.records):
        commands = tuple(loop.step(record.event, record.now_s))
        if commands != record.commands:
            mismatches.append(Mismatch(step, record, commands))
    return mismatches


def _line(record: Record) -> str:
    table = {
        "now_s": record.now_s,
        "event": _tagged(record.event),
        "commands": [_tagged(command) for command in record.commands],
    }
    return json.dumps(table, ensure_ascii=False, separators=(",", ":"))


def _tagged(message: Event | Command) -> dict[str, Any]:
    return {"type": type(message).__name__, **msgspec.to_builtins(message)}


def _record(line: str, where: str) -> Record:
    try:
        table = json.loads(line)
        now_s, event, commands = table["now_s"], table["event"], table["commands"]
        return Record(
            now_s=msgspec.convert(now_s, float),
            event=_message(event, EVENTS, where),
            commands=tuple(_message(command, COMMANDS, where) for command in commands),
        )
    except (ValueError, TypeError, LookupError) as error:
        raise StoreError(
            f"{where}: not a step of a control loop ({error}); the file is damaged or another kind"
        ) from error


def _message(table: dict[str, Any], kinds: dict[str, Any], where: str) -> Any:
    values = dict(table)
    name = values.pop("type")
    if name not in kinds:
        raise StoreError(f"{where}: {unknown_name('message', name, kinds)}")
    return msgspec.convert(values, kinds[name])
