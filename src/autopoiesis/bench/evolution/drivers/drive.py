"""Run one peer: `PYTHON drive.py NAME --iterations N --jobs J --port PORT [--hang]`, PYTHON being the peer's.

The working folder holds `program.py`, where evolution starts, and takes what the peer writes. The model is at
`http://127.0.0.1:PORT/v1`. Prints one line `RESULT {json}`: iterations, seconds of the loop, iterations per second,
programs that were stopped for their time, programs with the right score, CPU seconds before the loop.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

LIMIT_S = 3
"""Of a program, where every fifth hangs."""


@dataclass(frozen=True)
class Job:
    """What a peer is to do."""

    iterations: int
    jobs: int
    """Programs evaluated at a time."""
    url: str
    """Of the model, with `/v1`."""
    model: str
    limit_s: int | None
    """Seconds that a program may run; None is the peer's default."""
    seed: Path
    """The program that evolution starts from."""
    folder: Path

    def beside(self, name: str) -> str:
        """A file of this package."""
        return str(Path(__file__).with_name(name))


class Evolution(Protocol):
    """A peer that is ready."""

    def run(self) -> None: ...

    def scored(self) -> list[tuple[str, float | None]]:
        """Programs that the model wrote, as the peer recorded them, with their scores; None where time was up."""
        ...


def is_score(value: float, program: str) -> bool:
    """Whether a value is what a program must score."""
    line = next(line for line in program.splitlines() if line.startswith("CONST = "))
    return abs(value - (1.0 - (float(line.removeprefix("CONST = ")) - 0.7) ** 2)) < 1e-9


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--hang", action="store_true")
    arguments = parser.parse_args()
    job = Job(
        iterations=arguments.iterations,
        jobs=arguments.jobs,
        url=f"http://127.0.0.1:{arguments.port}/v1",
        model="hang" if arguments.hang else "full",
        limit_s=LIMIT_S if arguments.hang else None,
        seed=Path("program.py").resolve(),
        folder=Path.cwd(),
    )
    prepare: Callable[[Job], Evolution] = import_module(f"{arguments.name}_run").prepare
    evolution = prepare(job)
    start_cpu_s = time.process_time()
    began = time.perf_counter()
    evolution.run()
    run_s = time.perf_counter() - began
    # the model writes no program twice; one that is there again was copied to another island
    scored = list(dict(evolution.scored()).items())
    result = {
        "iterations": job.iterations,
        "run_s": run_s,
        "per_s": job.iterations / run_s,
        "timeouts": sum(score is None for _, score in scored),
        "correct": sum(score is not None and is_score(score, program) for program, score in scored),
        "start_cpu_s": start_cpu_s,
    }
    sys.stdout.write(f"RESULT {json.dumps(result)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
