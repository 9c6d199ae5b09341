"""`autopoiesis trace generate`: write a load with the statistics of a recorded one."""

from __future__ import annotations

import argparse

from autopoiesis.cli.output import check_writable, say
from autopoiesis.cli.parser import Commands, described, number, one_of, whole
from autopoiesis.errors import ScenarioError

CONTEXT = 131_072
"""The context of --context without a number."""
SEED_MAX = 2**63 - 1


def add(subcommands: Commands) -> None:
    """Add `generate` to the sub-commands of `trace`."""
    parser = subcommands.add_parser(
        "generate",
        help="write a load with the statistics of a recorded one",
        **described(
            "Write requests drawn from a preset as a trace file: arrivals, lengths and sessions with the statistics of "
            "a public recording. The same preset, hours, seed and version give the same bytes.",
            "autopoiesis trace generate --preset conversation --hours 1 --seed 7 --out chat.csv.gz",
            "autopoiesis trace generate --preset mix-shift --hours 336 --amplitude 1.5 --out drift.csv.gz",
            notes=f"presets: {', '.join(_names())}. What each reproduces, and how closely: docs/generator.md.",
        ),
    )
    parser.add_argument(
        "--preset", metavar="NAME", required=True, type=one_of("preset", _names), help="what load it is"
    )
    parser.add_argument(
        "--hours",
        metavar="H",
        type=number("hours", least=0.001, most=10_000),
        default=1.0,
        help="length of the load (default: 1)",
    )
    parser.add_argument(
        "--seed", metavar="N", type=whole("a whole number", 0, SEED_MAX), default=0, help="another load (default: 0)"
    )
    parser.add_argument(
        "--rate",
        metavar="RPS",
        type=number("requests per second", above=0, most=100_000),
        help="mean requests per second (default: the preset's)",
    )
    parser.add_argument(
        "--amplitude",
        metavar="A",
        type=number("a factor", least=0, most=5),
        default=1.0,
        help="stretch the drift of mean lengths, of presets that have one (default: 1)",
    )
    parser.add_argument(
        "--context",
        metavar="TOKENS",
        nargs="?",
        const=CONTEXT,
        type=whole("tokens", 16, 1_000_000_000),
        help=f"cut prompts and outputs to a model's context, {CONTEXT} without a number (default: leave them)",
    )
    parser.add_argument("--out", metavar="FILE", required=True, help="where to: .csv, or .csv.gz to have it gzipped")
    parser.set_defaults(execute=generate, parser=parser)


def generate(arguments: argparse.Namespace) -> int:
    """Draw the load, write the file and say on stderr what is in it."""
    path: str = arguments.out
    if not path.endswith((".csv", ".csv.gz")):
        raise ScenarioError(f"--out {path}: must end with .csv or .csv.gz; name another file")
    check_writable(path, "--out")

    from autopoiesis.workload import presets
    from autopoiesis.workload.normalised_csv import write_requests

    requests = presets.generate(
        arguments.preset, arguments.hours, arguments.seed, rate=arguments.rate, amplitude=arguments.amplitude
    )
    if not len(requests):
        raise ScenarioError("no request falls into the load; raise --rate or --hours")
    remark = ""
    if arguments.context is not None:
        requests, cut = presets.cut_to_context(requests, arguments.context)
        remark = f", {cut} of them cut to a context of {arguments.context} tokens"
    write_requests(requests, path)
    say(f"{path}: {len(requests)} requests over {arguments.hours:g} h{remark}")
    return 0


def _names() -> tuple[str, ...]:
    from autopoiesis.workload import presets

    return presets.names()
