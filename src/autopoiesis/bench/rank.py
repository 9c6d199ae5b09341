"""`python -m autopoiesis.bench.rank`: whether the fluid model ranks plans as the event kernel does.

For each scenario so many random valid plans; Spearman's ρ of their costs per good request. See `bench.ranking`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from autopoiesis.bench.random_plans import random_plans
from autopoiesis.bench.rank_scenes import SCENES, recorded
from autopoiesis.bench.ranking import Ranking, rank_plans
from autopoiesis.cluster import catalog
from autopoiesis.errors import ScenarioError, TraceError
from autopoiesis.simulate.scenario import Scenario

WORST = 3


def rank(scenario: Scenario, plans: int, seed: int) -> Ranking:
    """The ranking of random plans of the scenario."""
    return rank_plans(scenario, random_plans(scenario, np.random.default_rng([seed, 0x9A12]), plans))


def cases(arguments: argparse.Namespace) -> list[tuple[str, Callable[[], Scenario]]]:
    """Scenarios by name, each made when its turn comes. Raises ScenarioError for arguments that make none."""
    if not arguments.seconds >= 60 or arguments.plans < 2:
        raise ScenarioError("--seconds must be at least 60, a window, and --plans at least 2")
    if not arguments.workload:
        return [
            (scene.name, lambda scene=scene: scene.make(arguments.seconds, arguments.seed))  # type: ignore[misc]
            for scene in SCENES
            if arguments.only is None or arguments.only in scene.name
        ]
    files = {}
    for text in arguments.workload:
        model, equals, path = text.partition("=")
        if not (model and equals and path):
            raise ScenarioError(f"--workload wants MODEL=FILE, not {text!r}")
        files[catalog.model(model).name] = path
    cluster = catalog.cluster(arguments.cluster)
    return [
        (
            f"{' and '.join(files)} on {cluster.name}, load {load:g}",
            lambda load=load: recorded(cluster, files, load, arguments.seed, arguments.seconds / 3600),  # type: ignore[misc]
        )
        for load in arguments.load
    ]


def arguments_of(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m autopoiesis.bench.rank", description=__doc__)
    parser.add_argument("--plans", type=int, default=200, help="random plans per scenario (200)")
    parser.add_argument("--seconds", type=float, default=300.0, help="seconds of load, in whole windows (300)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", metavar="TEXT", help="only the made-up scenarios whose name contains this")
    parser.add_argument("--workload", action="append", metavar="MODEL=FILE", help="a trace instead; once per model")
    parser.add_argument("--cluster", default="homogeneous-32", help="of --workload: a name or a .toml file")
    parser.add_argument(
        "--load",
        type=float,
        action="append",
        help="of --workload: 1 is what the best plan serves; repeatable (0.4, 0.7)",
    )
    parser.add_argument("--worst", action="store_true", help=f"print the {WORST} plans whose ranks differ most")
    arguments = parser.parse_args(words)
    arguments.load = arguments.load or [0.4, 0.7]
    return arguments


def worst(ranking: Ranking) -> list[str]:
    """The plans kept whose places in the two orders differ most."""
    kept = ranking.kept
    event = np.argsort(np.argsort([r.event_cost for r in kept], kind="stable"), kind="stable")
    fluid = np.argsort(np.argsort([r.fluid_cost for r in kept], kind="stable"), kind="stable")
    order = np.argsort(-np.abs(event - fluid), kind="stable")[:WORST]
    return [
        f"{kept[i].plan}: place {event[i] + 1} of {len(kept)} in the event kernel ({kept[i].event_good:.0%} good), "
        f"{fluid[i] + 1} in the fluid model ({kept[i].fluid_good:.0%})"
        for i in order
    ]


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; 0 unless something could not be read or served."""
    arguments = arguments_of(sys.argv[1:] if words is None else words)
    console = Console()
    table = Table(title=f"Spearman's ρ of cost per good request, {arguments.plans} random plans each")
    for heading in ("scenario", "requests", "kept", "ρ", "ρ with ties", "ρ of single windows", "|good|", "s"):
        table.add_column(heading, justify="left" if heading == "scenario" else "right")
    notes = []
    try:
        for name, make in cases(arguments):
            began = time.perf_counter()
            scenario = make()
            ranking = rank(scenario, arguments.plans, arguments.seed)
            table.add_row(
                name,
                str(len(scenario.requests)),
                str(len(ranking.kept)),
                f"{ranking.correlation:.3f}",
                f"{ranking.correlation_with_ties:.3f}",
                f"{ranking.correlation_of_windows:.3f}",
                f"{ranking.error:.3f}",
                f"{time.perf_counter() - began:.0f}",
            )
            notes += [f"{name}: {line}" for line in worst(ranking)] if arguments.worst else []
    except (ScenarioError, TraceError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    console.print(table)
    for note in notes:
        console.print(note, highlight=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
