"""What there is to serve: requests as columns, windows and their statistics, readers, generators, load."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from autopoiesis.workload.classes import SLO, class_label, class_labels
from autopoiesis.workload.requests import PREFIX_BLOCK_TOKENS, Requests, merge, single_requests, stacked
from autopoiesis.workload.status import Status
from autopoiesis.workload.synopsis import Arrived, Backlog, Finished, nearest_rank, summarise
from autopoiesis.workload.windows import ClassWindow, Window

if TYPE_CHECKING:
    from autopoiesis.workload.generate import generate_chat
    from autopoiesis.workload.load import head, resample
    from autopoiesis.workload.readers import Draw, Trace, read_requests, read_trace

__all__ = [
    "PREFIX_BLOCK_TOKENS",
    "SLO",
    "Arrived",
    "Backlog",
    "ClassWindow",
    "Draw",
    "Finished",
    "Requests",
    "Status",
    "Trace",
    "Window",
    "class_label",
    "class_labels",
    "generate_chat",
    "head",
    "merge",
    "nearest_rank",
    "read_requests",
    "read_trace",
    "resample",
    "single_requests",
    "stacked",
    "summarise",
]

_IN = {
    "generate_chat": "generate",
    "head": "load",
    "resample": "load",
    "Draw": "readers",
    "Trace": "readers",
    "read_requests": "readers",
    "read_trace": "readers",
}
"""Imported when first asked for. A policy needs windows and no readers, and processes for policies are forked by the
hundred: what they have imported they pay for at every fork."""


def __getattr__(name: str) -> Any:
    if name not in _IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_IN[name]}"), name)
