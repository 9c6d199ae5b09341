"""What only a fresh process can tell: `python -m autopoiesis.bench.probe NAME …` measures itself and prints JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from autopoiesis.bench.process import peak_rss_mb


def fresh(*arguments: str) -> tuple[float, dict[str, float]]:
    """Seconds from the start of a new interpreter to its end, and what it printed."""
    command = [sys.executable, "-m", "autopoiesis.bench.probe", *arguments]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    printed: dict[str, float] = json.loads(done.stdout)
    return seconds, printed


def main(name: str, *arguments: str) -> dict[str, float]:
    """`first`: import everything and simulate four requests. `scene N RATE [TRACE]`: N chat requests through the
    kernel. `run N RATE [TRACE]`: the same as a whole run."""
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
