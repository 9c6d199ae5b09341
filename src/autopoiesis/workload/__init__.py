"""What there is to serve: requests as columns, windows and their statistics, readers, generators, load."""

from autopoiesis.workload.classes import SLO, class_label, class_labels
from autopoiesis.workload.generate import generate_chat
from autopoiesis.workload.load import head, resample
from autopoiesis.workload.readers import read_requests
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
    "Finished",
    "Requests",
    "Status",
    "Window",
    "class_label",
    "class_labels",
    "generate_chat",
    "head",
    "merge",
    "nearest_rank",
    "read_requests",
    "resample",
    "single_requests",
    "stacked",
    "summarise",
]
