"""How much of the machine a command may take: `--jobs` and `--priority`."""

from __future__ import annotations

import argparse
import os

from autopoiesis.cli.parser import one_of, whole

MOST_JOBS = 256
MOST_CORES = 8
"""Rounds of evolution have seldom more than this many candidates to replay at a time."""
PRIORITIES = ("normal", "low", "idle")


def cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def evaluators() -> int:
    """Processes that replay candidates unless somebody says otherwise."""
    return min(cores(), MOST_CORES)


def add_jobs(parser: argparse._ActionsContainer) -> None:
    """How many candidates are replayed at a time, and how they stand against other processes."""
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=whole("a number of processes", 1, MOST_JOBS),
        default=evaluators(),
        help="candidates replayed beside one another; changes how long it takes and no result (default: one a core, "
        f"at most {MOST_CORES})",
    )
    parser.add_argument(
        "--priority",
        metavar="HOW",
        type=one_of("priority", lambda: PRIORITIES),
        default="low",
        help="how these processes stand against others of the machine: normal, low (nice 10) or idle (only what nobody "
        "else wants, where the system knows that) (default low)",
    )
