"""How fast the simulator is: `python -m autopoiesis.bench.simulate`, or `make bench-simulate`.

Everything is measured in one go on one core. What a figure includes is said in its row: the *kernel* rows go through
`Simulation` (arrivals, routing, engines, percentiles of the latencies), the *run* rows through a whole `Run` (policy
process, windows, telemetry, books as well).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from autopoiesis.bench import fluid, scenes, vidur
from autopoiesis.bench.environment import Unavailable
from autopoiesis.bench.figures import Figure, drawn
from autopoiesis.bench.probe import fresh
from autopoiesis.bench.process import machine, pin, timed
from autopoiesis.bench.runs import LARGE_FLEET, Runs
from autopoiesis.bench.scenes import FLEET, KV_PART, LOAD, SPLIT_FLEET, Scene, Served
from autopoiesis.errors import AutopoiesisError, ScenarioError
from autopoiesis.evolve.routers import ROUTERS
from autopoiesis.simulate import layout
from autopoiesis.simulate.hosted import routing_of
from autopoiesis.workload import Requests

SIZES = (10_000, 100_000, 200_000, 1_000_000)
"""Requests of the rows that show how cost grows."""
CANDIDATE = 10_000
CANDIDATE_WINDOWS = 6


@dataclass(frozen=True)
class Settings:
    """How large a benchmark is."""

    requests: int = 200_000
    sizes: tuple[int, ...] = SIZES
    repeats: int = 5
    trace: str | None = None
    vidur_venv: Path | None = None
    """None leaves Vidur out."""
    vidur_requests: int = 2_000


class Bench:
    """All rows; each method returns its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lengths = scenes.lengths_of(settings.trace)
        # the first call of everything compiled loads it, and the load of a fleet is a property of the fleet
        sample = scenes.chat_requests(scenes.SAMPLE, 1.0, self._lengths, seed=1)
        self.rate_rps = LOAD * scenes.saturation_rps(Scene(sample, FLEET))

    def chat(self, count: int, replicas: int = scenes.REPLICAS) -> Requests:
        return scenes.chat_requests(count, self.rate_rps * replicas / scenes.REPLICAS, self._lengths)

    def kernel(self) -> list[Figure]:
        """Simulated requests per second on eight replicas."""
        count, repeats = self._settings.requests, self._settings.repeats
        plain = Scene(self.chat(count), FLEET)
        router = "least-tokens"
        routed = replace(plain, routing=routing_of(ROUTERS[router]))
        scenes.play(replace(routed, requests=self.chat(1_000)))
        mixed = self._mixed()
        served: list[Served] = []
        exercising: list[Served] = []
        speed, routed_speed, mixed_speed = timed(
            repeats,
            lambda: served.append(scenes.play(plain)),
            lambda: scenes.play(routed),
            lambda: exercising.append(scenes.play(mixed)),
        )
        alone = [_advance_alone(plain) for _ in range(repeats)]
        shown = exercised(exercising[-1])
        everything = (
            f"{shown.hit_tokens / shown.prompt_tokens:.0%} of prompt tokens hit the prefix cache, "
            f"{shown.transfers} KV transfers, {shown.preemptions} preemptions"
        )
        loaded = f"8 replicas, TTFT p99 {served[-1].ttft_s.p99:.2f} s"
        bare = "without making its memory and the percentiles"
        unit = "requests/s"
        return [
            Figure("kernel, plain", unit, _rates(count, speed), 500_000, note=loaded),
            Figure("kernel, compiled route", unit, _rates(count, routed_speed), 400_000, note=router),
            Figure("kernel, everything exercised", unit, _rates(count, mixed_speed), 150_000, note=everything),
            Figure("kernel, plain, advancing alone", unit, _rates(count, alone), note=bare),
        ]

    def _mixed(self) -> Scene:
        """Prompts by blocks, prefill and decode apart with KV transfers, preemption, a compiled route."""
        count = self._settings.requests
        sample = scenes.block_requests(min(count, scenes.SAMPLE), 1.0, self._lengths)
        scene = Scene(sample, SPLIT_FLEET, routing_of(ROUTERS["weighted"]), KV_PART)
        rate_rps = LOAD * scenes.saturation_rps(scene)
        return replace(scene, requests=scenes.block_requests(count, rate_rps, self._lengths))

    def growth(self) -> list[Figure]:
        """Cost per request against the number of requests; the same work a second at every size."""
        sizes = self._settings.sizes
        acts = [partial(scenes.play, Scene(self.chat(count), FLEET)) for count in sizes]
        figures = [
            Figure(
                f"kernel, {count} requests", "µs/request", tuple(1e6 * second / count for second in seconds), more=False
            )
            for count, seconds in zip(sizes, timed(self._settings.repeats, *acts), strict=True)
        ]
        if len(figures) < 2:
            return figures
        costs = [figure.best for figure in figures if figure.best is not None]
        ratio = costs[-1] / costs[0]
        name = f"cost per request, {sizes[-1]} ÷ {sizes[0]} requests"
        return [*figures, Figure(name, "", (ratio,), 1.5, more=False, note="flat is 1")]

    def process(self) -> list[Figure]:
        """Memory and start, in fresh processes."""
        settings = self._settings
        arguments = [str(settings.requests), repr(self.rate_rps), *([settings.trace] if settings.trace else [])]
        few = min(settings.repeats, 3)
        first = [fresh("first") for _ in range(settings.repeats)]
        first_s = tuple(process.wall_s for process in first)
        cpu = f"{min(process.cpu_s for process in first):.2f} s of it computing"
        scene = tuple(fresh("scene", *arguments).peak_mb for _ in range(few))
        run = tuple(fresh("run", *arguments).peak_mb for _ in range(few))
        thousands = f"{settings.requests} requests, fresh process"
        return [
            Figure("peak memory, kernel", "MB", scene, 300.0, more=False, note=thousands),
            Figure("peak memory, run", "MB", run, more=False, note=thousands),
            Figure("import and first kernel", "s", first_s, 1.5, more=False, note=f"fresh process, code cached; {cpu}"),
        ]

    def runs(self) -> list[Figure]:
        """Whole runs, and what evolution asks for on 32 GPUs."""
        count, repeats = self._settings.requests, self._settings.repeats
        requests = self.chat(count)
        candidate = self.chat(CANDIDATE, len(LARGE_FLEET))
        window_s = float(np.ceil(candidate.arrival_s[-1] / CANDIDATE_WINDOWS))
        replayed = f"{CANDIDATE} requests, 32 GPUs, {CANDIDATE_WINDOWS} windows, hosted"
        with Runs() as runs:
            runs.serve(self.chat(1_000))
            (run,) = timed(repeats, lambda: runs.serve(requests))
            router, planner = timed(
                repeats, *(partial(runs.replay, name, candidate, window_s) for name in ("round-robin", "threshold"))
            )
        return [
            Figure("run, scenario to books", "requests/s", _rates(count, run), note="static, hosted; 60 s windows"),
            *(
                Figure(row.what, "ms", (row.milliseconds,), row.goal_ms, more=False, note=row.how)
                for row in fluid.rows()
            ),
            Figure(
                "candidate replayed, a router", "ms", _ms(router), 100.0, more=False, note=f"round-robin, {replayed}"
            ),
            Figure(
                "candidate replayed, a planner",
                "ms",
                _ms(planner),
                100.0,
                more=False,
                note=f"threshold, {replayed}; most of it is the policy's own computing",
            ),
        ]

    def vidur(self) -> list[Figure]:
        """Vidur, if it was asked for and can be had, and the kernel on the same requests."""
        settings = self._settings
        if settings.vidur_venv is None:
            return []
        requests = self.chat(settings.vidur_requests)
        longest = scenes.LONGEST - requests.output_tokens
        requests = replace(requests, input_tokens=np.clip(requests.input_tokens, 1, np.maximum(longest, 1)))
        count = len(requests)
        (ours,) = timed(max(settings.repeats, 10), lambda: scenes.play(Scene(requests, FLEET)))
        name, note = f"Vidur {vidur.VERSION}", f"{count} requests, 8 replicas"
        figures = [Figure("kernel, requests of Vidur's rows", "requests/s", _rates(count, ours), note=note)]
        try:
            python = vidur.install(settings.vidur_venv)
            measured = vidur.simulate(python, requests)
        except Unavailable as error:
            return [*figures, Figure(name, "requests/s", (), note=f"not measured: {error}")]
        speed = (count / measured["simulating_s"],)
        served = f"{note}, in {measured['virtual_s']:.0f} simulated s; profile not in the package, so made of ours"
        return [
            *figures,
            Figure(name, "requests/s", speed, note=served),
            Figure(f"peak memory, {name}", "MB", (measured["peak_mb"],), more=False, note=note),
        ]


@dataclass(frozen=True)
class Exercised:
    """What happened in a scene on a split fleet."""

    prompt_tokens: int
    hit_tokens: int
    """Of these, found in the prefix cache of the replica."""
    transfers: int
    """Of KV caches from a prefill to a decode replica."""
    preemptions: int


def exercised(served: Served) -> Exercised:
    """Counted from the kernel's memory."""
    state = served.simulation.state
    slots = state.requests["slot"]
    return Exercised(
        prompt_tokens=int(state.requests["input"].sum()),
        hit_tokens=int(state.requests["cached"].sum()),
        transfers=int((state.replicas["role"][slots[slots >= 0]] == layout.DECODE).sum()),
        preemptions=int(state.requests["preemptions"].sum()),
    )


def _advance_alone(scene: Scene) -> float:
    simulation = scenes.start(scene)
    return timed(1, lambda: simulation.advance(float("inf")))[0][0]


def _rates(count: int, seconds: Sequence[float]) -> tuple[float, ...]:
    return tuple(count / second for second in seconds)


def _ms(seconds: Sequence[float]) -> tuple[float, ...]:
    return tuple(1e3 * second for second in seconds)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 with one line on stderr for what is to be mended."""
    arguments = _parser().parse_args(argv)
    pin()
    settings = Settings(
        requests=arguments.requests,
        sizes=tuple(size for size in SIZES if size <= max(arguments.requests, arguments.largest)),
        repeats=arguments.repeats,
        trace=arguments.workload,
        vidur_venv=arguments.vidur_venv or (vidur.default_venv() if arguments.vidur else None),
        vidur_requests=arguments.vidur_requests,
    )
    console = Console(width=None if sys.stdout.isatty() else 140)
    figures: list[Figure] = []
    try:
        if arguments.json is not None and not Path(arguments.json).parent.is_dir():
            raise ScenarioError(f"--json {arguments.json}: folder {str(Path(arguments.json).parent)!r} does not exist")
        bench = Bench(settings)
        parts: tuple[tuple[str, Callable[[], list[Figure]]], ...] = (
            ("Speed", bench.kernel),
            ("Growth", bench.growth),
            ("Processes", bench.process),
            ("Runs", bench.runs),
            ("Others", bench.vidur),
        )
        for title, part in parts:
            measured = part()
            figures += measured
            if measured:
                console.print(drawn(title, measured), "")
        if arguments.json is not None:
            text = json.dumps({"machine": machine(), "figures": [f.as_json() for f in figures]}, indent=2)
            Path(arguments.json).write_text(text + "\n", encoding="utf-8")
    except (AutopoiesisError, OSError) as error:
        sys.stderr.write(f"autopoiesis.bench.simulate: error: {error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m autopoiesis.bench.simulate", description=__doc__.split("\n")[0])
    parser.add_argument("--workload", metavar="FILE", help="draw lengths from this trace (default: lognormals)")
    parser.add_argument("--requests", metavar="N", type=_positive, default=200_000, help="of most rows (200000)")
    parser.add_argument(
        "--largest", metavar="N", type=_positive, default=SIZES[-1], help="of the growth rows (1000000)"
    )
    parser.add_argument("--repeats", metavar="N", type=_positive, default=5, help="of every measurement (5)")
    parser.add_argument(
        "--vidur", action="store_true", help=f"also measure Vidur {vidur.VERSION} from the package index"
    )
    parser.add_argument(
        "--vidur-venv", metavar="DIR", type=Path, help="its environment, made if need be (user's cache)"
    )
    parser.add_argument("--vidur-requests", metavar="N", type=_positive, default=2_000, help="of its rows (2000)")
    parser.add_argument("--json", metavar="FILE", help="write the figures here, too")
    return parser


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
