"""The control loop: events in, commands out, one object for both worlds; and the log by which a run is replayed."""

from autopoiesis.loop.control import ControlLoop
from autopoiesis.loop.decisions import same_deployment
from autopoiesis.loop.log import EventLog, Mismatch, Record, replay
from autopoiesis.loop.messages import (
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
    Tick,
    TransitionDone,
    TransitionFailed,
    TransitionProgress,
    TriggerAnswered,
)
from autopoiesis.loop.state import State

__all__ = [
    "Apply",
    "AskTrigger",
    "CancelPlan",
    "CancelTransition",
    "CapacityChanged",
    "CapacityNotice",
    "Command",
    "ControlLoop",
    "Event",
    "EventLog",
    "Mismatch",
    "PlanFailed",
    "PlanReady",
    "PolicySwapped",
    "Record",
    "Repair",
    "ReplicaLost",
    "RequestCapacity",
    "StartPlan",
    "State",
    "Tick",
    "TransitionDone",
    "TransitionFailed",
    "TransitionProgress",
    "TriggerAnswered",
    "replay",
    "same_deployment",
]
