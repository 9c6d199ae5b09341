"""A small run, killed again and again at random moments: a program of its own, which forks for every run.

`python killed_runs.py FOLDER KILLS JOBS` prints as JSON what an uninterrupted run gave, what every run that came to an
end after kills gave, and how often one was killed. Exits with 1 if a store was damaged or had lost what was finished.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import msgspec
from control_configs import Silent, few_starters, small_run

import autopoiesis.control.run as control
from autopoiesis.control.config import RunConfig
from autopoiesis.evolve.store import Store

LOAD, BUDGET, REQUESTS = 1.3, 0.02, 100


def report(config: RunConfig) -> str:
    """Of a whole run, in the process that asks."""
    return msgspec.json.encode(control.run(config, Silent())).decode()


def forked(config: RunConfig, result: Path) -> int:
    """The process in which the run goes on; it writes what it gave to `result` in one step."""
    child = os.fork()
    if child == 0:
        try:
            text = report(config)
            result.with_suffix(".part").write_text(text)
            result.with_suffix(".part").rename(result)
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    return child


def finished(config: RunConfig) -> set[tuple[str, str]]:
    """What a store holds that must not be lost: rows that have ended, and completions. Raises StoreError."""
    if not Path(config.store).exists():
        return set()
    with Store(config.store) as store:
        store.check()
        keys = [run.key for run in store.runs()]
        rows = {
            ("row", name)
            for key in keys
            for name in ("evolving", "static", "threshold")
            if store.recall(f"leg:{key}:{name}:operator")
        }
        return rows | {("completion", record.request_id) for key in keys for record in store.completions(key)}


def main(folder: Path, wanted: int, jobs: int) -> int:
    setattr(control, "starters", few_starters)  # noqa: B010 -- a name that the module only imports
    expected = report(configured(folder / "whole", 1))
    began = time.monotonic()
    report(configured(folder / "again", jobs))
    took = time.monotonic() - began
    rng = random.Random(7)
    kills, ended = 0, list[object]()
    while kills < wanted:
        life = folder / f"life-{len(ended)}"
        config, result, before = configured(life, jobs), life / "report.json", set[tuple[str, str]]()
        while not result.exists():
            child = forked(config, result)
            killed = kills < wanted
            if killed:
                time.sleep(rng.uniform(0, took))
                killed = not result.exists()
            if killed:
                os.kill(child, signal.SIGKILL)
                kills += 1
            os.waitpid(child, 0)
            after = finished(config)
            if not before <= after or not (killed or result.exists()):
                sys.stderr.write(f"lost: {sorted(before - after)}; came to an end: {result.exists()}\n")
                return 1
            before = after
        ended.append(json.loads(result.read_text()))
    json.dump({"expected": json.loads(expected), "ended": ended, "kills": kills}, sys.stdout)
    return 0


def configured(folder: Path, jobs: int) -> RunConfig:
    folder.mkdir(exist_ok=True)
    return replace(small_run(folder, load=LOAD, budget=BUDGET, count=REQUESTS), jobs=jobs)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
