"""Small configurations that a whole run serves in seconds."""

from __future__ import annotations

from pathlib import Path

from autopoiesis.control.config import EvolutionConfig, RunConfig, ScenarioConfig, WorkloadFile
from autopoiesis.policy.library import starters
from autopoiesis.policy.source import PolicySource
from autopoiesis.simulate.run import Notice

SMALL = "llama-3.1-8b"


class Silent:
    """Watches and remembers."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notices: list[tuple[str, str, Notice]] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def progress(self, row: str, mode: str, fraction: float) -> None:
        pass

    def notice(self, row: str, mode: str, notice: Notice) -> None:
        self.notices.append((row, mode, notice))


def few_starters() -> dict[str, PolicySource]:
    """In the place of `starters`: two fixed policies beside the evolving one, so that a run takes a second or two."""
    return {name: source for name, source in starters().items() if name in ("static", "threshold")}


def write_trace(path: Path, count: int = 300, gap_s: float = 1.0, long_after: float = 1e9) -> str:
    """A trace of one request per `gap_s`; outputs are four times as long after `long_after` seconds."""
    lines = ["arrival_s,input_tokens,output_tokens"]
    for i in range(count):
        t = i * gap_s
        lines.append(f"{t:.3f},{400 + 37 * (i % 29)},{(60 + 11 * (i % 17)) * (4 if t > long_after else 1)}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


TINY = """
[[pool]]
name = "l40s"
gpu = "l40s"
gpus_per_node = {gpus}
minimum = {gpus}
maximum = {gpus}
"""


def tiny_cluster(folder: Path, gpus: int = 2) -> str:
    """Two slow GPUs: a run on them serves a few thousand requests."""
    path = folder / "tiny.toml"
    path.write_text(TINY.format(gpus=gpus))
    return str(path)


def small_run(
    folder: Path,
    *,
    load: float = 0.9,
    paper: bool = False,
    seed: int = 0,
    budget: float = 0.02,
    count: int = 200,
    gpus: int = 2,
) -> RunConfig:
    trace = write_trace(folder / "trace.csv", count)
    cluster = tiny_cluster(folder, gpus)
    return RunConfig(
        scenario=ScenarioConfig((WorkloadFile(SMALL, trace),), cluster, load=load, window_s=10.0, seed=seed),
        evolution=EvolutionConfig(budget=budget),
        paper=paper,
        store=str(folder / "store.db"),
    )
