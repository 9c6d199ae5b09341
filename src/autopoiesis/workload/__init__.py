"""What there is to serve: requests as columns, windows and their statistics, readers, generators, load."""

from autopoiesis.workload.classes import SLO, class_label, class_labels
from autopoiesis.workload.generate import generate_chat
from autopoiesis.workload.load import head, resample
from autopoiesis.workload.readers import Draw, Trace, read_requests, read_trace
from autopoiesis.workload.requests import PREFIX_BLOCK_TOKENS, Requests, merge, single_requests, stacked
from autopoiesis.workload.status import Status
from autopoiesis.workload.synopsis import Arrived, Backlog, Finished, nearest_rank, summarise
from autopoiesis.workload.windows import ClassWindow, Window

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
