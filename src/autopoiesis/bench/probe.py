"""What only a fresh process can tell: `python -m autopoiesis.bench.probe NAME …` measures itself and prints JSON."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass

from autopoiesis.bench.process import peak_rss_mb


@dataclass(frozen=True, slots=True)
class Fresh:
    """A process from the start of its interpreter to its end."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def fresh(*arguments: str) -> Fresh:
    """Measure a probe in a process of its own."""
    command = [sys.executable, "-m", "autopoiesis.bench.probe", *arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall_s = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Fresh(wall_s, cpu_s, json.loads(done.stdout)["peak_mb"])


def main(name: str, *arguments: str) -> dict[str, float]:
    """`first`: import everything and simulate four requests. `scene N RATE [TRACE]`: N chat requests through the
    kernel. `run N RATE [TRACE]`: the same as a whole run. `read FILE`: read a trace."""
    if name == "read":
        from autopoiesis.workload import read_requests

        read_requests(arguments[0])
        return {"peak_mb": peak_rss_mb()}

    from autopoiesis.bench import scenes

    if name == "first":
        scenes.play(scenes.Scene(scenes.chat_requests(4, 1.0, scenes.Lengths()), scenes.FLEET))
        return {"peak_mb": peak_rss_mb()}
    count, rate_rps, trace = int(arguments[0]), float(arguments[1]), (*arguments[2:], None)[0]
    requests = scenes.chat_requests(count, rate_rps, scenes.lengths_of(trace))
    if name == "scene":
        scenes.play(scenes.Scene(requests, scenes.FLEET))
    else:
        from autopoiesis.bench.runs import Runs

        with Runs() as runs:
            runs.serve(requests)
    return {"peak_mb": peak_rss_mb()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])) + "\n")
