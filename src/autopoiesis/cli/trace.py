"""`autopoiesis trace`: say what a trace is like, convert it, fetch a public one, generate one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from autopoiesis.cli import trace_generate
from autopoiesis.cli.flags import check_output
from autopoiesis.cli.output import dumps, emit, printable, say, write_whole
from autopoiesis.cli.parser import Commands, Parser, described, number, one_of, whole
from autopoiesis.errors import ScenarioError

if TYPE_CHECKING:
    from autopoiesis.workload.description import Description, Lengths
    from autopoiesis.workload.readers import Draw, Trace
    from autopoiesis.workload.source import Progress

CURVE_COLUMNS = 72
SPREAD_BY_FORMAT = 0.0
SCALED = "ServeGen windows"
NONE = "-"

NOTES = (
    "Formats are recognised by content: normalised CSV, Azure 2023, 2024 and 2025, BurstGPT, Mooncake, results of the "
    "serving benchmarks of vLLM and SGLang, ServeGen windows, the gateway's request log. See docs/traces.md."
)


def add(commands: Commands) -> None:
    """Add the command and its sub-commands."""
    trace = commands.add_parser(
        "trace",
        help="look at, convert, fetch and generate traces",
        **described(
            "Look at, convert, fetch and generate traces of requests.",
            "autopoiesis trace fetch azure-2023 --out azure.csv",
            "autopoiesis trace info azure.csv",
            notes=NOTES,
        ),
    )
    actions = trace.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="action")
    add_info(actions)
    add_convert(actions)
    add_fetch(actions)
    trace_generate.add(actions)


def add_info(actions: Commands) -> None:
    """Add `trace info`."""
    info = actions.add_parser(
        "info",
        help="statistics and plots of a trace",
        **described(
            "Say what a trace is like: rates, burstiness, lengths, sessions, reusable prefixes.",
            "autopoiesis trace info trace.csv.gz --json info.json",
            notes=NOTES,
        ),
    )
    info.add_argument("file", metavar="FILE", help="the trace, plain or gzipped")
    info.add_argument("--json", metavar="FILE", help="write the statistics here as JSON")
    add_reading(info)
    info.set_defaults(execute=show_info, parser=info)


def add_convert(actions: Commands) -> None:
    """Add `trace convert`."""
    convert = actions.add_parser(
        "convert",
        help="write a trace as normalised CSV",
        **described(
            "Write a trace as normalised CSV, from which the same requests are read.",
            "autopoiesis trace convert conversation_trace.jsonl mooncake.csv.gz --spread",
            "autopoiesis trace convert windows.csv day.csv.gz --hours 24 --scale 0.01 --seed 7",
            notes=NOTES,
        ),
    )
    convert.add_argument("file", metavar="FILE", help="the trace, plain or gzipped")
    convert.add_argument("out", metavar="OUT", help="where to write; gzipped if it ends in .gz")
    convert.add_argument(
        "--format",
        metavar="NAME",
        type=one_of("format", lambda: ("normalised",)),
        default="normalised",
        help="normalised, which is the default and the only one",
    )
    convert.add_argument(
        "--spread",
        metavar="S",
        nargs="?",
        type=number("seconds", above=0, most=3600),
        const=SPREAD_BY_FORMAT,
        help="spread arrivals uniformly, by the seed, over the steps of a coarse clock, S seconds each (default: the "
        "step of the format, 3 for Mooncake and 1 for BurstGPT)",
    )
    add_reading(convert)
    convert.set_defaults(execute=convert_trace, parser=convert)


def add_fetch(actions: Commands) -> None:
    """Add `trace fetch`."""
    fetch = actions.add_parser(
        "fetch",
        help="download a public trace",
        **described(
            "Download a public trace from where it is published, check it, and say under what terms it stands. A "
            "download that broke off goes on from there.",
            "autopoiesis trace fetch burstgpt --out burstgpt.csv",
        ),
    )
    fetch.add_argument(
        "name",
        metavar="NAME",
        type=one_of("trace", _source_names),
        help="azure-2023, azure-2023-code, azure-2024, azure-2024-code, burstgpt or mooncake",
    )
    fetch.add_argument("--out", metavar="FILE", required=True, help="where to write it")
    fetch.add_argument("--url", metavar="URL", help="another address of the same file")
    fetch.add_argument("--sha256", metavar="HEX", help="the checksum to expect, in place of the one that is known")
    fetch.add_argument("--quiet", action="store_true", help="print no progress")
    fetch.set_defaults(execute=fetch_trace, parser=fetch)


def add_reading(parser: Parser) -> None:
    """What every command that reads a trace takes."""
    parser.add_argument(
        "--hours", metavar="H", type=number("hours", above=0), help="only the first H hours (default: all of it)"
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=whole("a whole number", 0, 2**63 - 1),
        default=0,
        help="seed of what is drawn: arrivals of a file that records only rates, and --spread (default 0)",
    )
    parser.add_argument(
        "--scale",
        metavar="X",
        type=number("a factor", above=0, most=1e6),
        default=1.0,
        help="times the rates of ServeGen windows (default 1)",
    )
    parser.add_argument("--quiet", action="store_true", help="print no progress")


def show_info(arguments: argparse.Namespace) -> int:
    """Read, write the JSON, print statistics and plots."""
    if arguments.json is not None:
        check_output("--json", arguments.json, {"FILE": [arguments.file]})
    from autopoiesis.workload.description import describe

    trace = read(arguments)
    description = describe(trace)
    if arguments.json is not None:
        write_whole(arguments.json, dumps(asdict(description)))
    emit(summary(description) + "\n" + plots(trace))
    return 0


def convert_trace(arguments: argparse.Namespace) -> int:
    """Read, spread if asked, write."""
    check_output("OUT", arguments.out, {"FILE": [arguments.file]})
    import numpy as np

    from autopoiesis.workload.normalised_csv import write_normalised
    from autopoiesis.workload.spread import spread

    trace = read(arguments)
    if arguments.spread is not None:
        step_s = arguments.spread or trace.step_s
        if not step_s:
            raise ScenarioError(f"--spread: a clock of {trace.format} has no known step; give it, as in --spread 1")
        rng = np.random.default_rng(arguments.seed)
        trace = replace(trace, requests=spread(trace.requests, step_s, rng))
    write_normalised(trace, arguments.out)
    drawn = f"; {trace.drawn}" if trace.drawn else ""
    left_out = f"; {trace.left_out} without a prompt left out" if trace.left_out else ""
    emit(f"{printable(arguments.out)}: {len(trace.requests)} requests, format {trace.format}{left_out}{drawn}\n")
    return 0


def fetch_trace(arguments: argparse.Namespace) -> int:
    """Show the terms, download, check."""
    check_output("--out", arguments.out, {})
    from autopoiesis.workload.fetch import BYTES_MAX, fetch, sources

    source = sources()[arguments.name]
    url = arguments.url or source.url
    known = f"SHA-256 according to {source.sha256_from}" if arguments.sha256 is None else "SHA-256 as given"
    for line in (source.what, f"licence: {source.licence}", f"attribution: {source.attribution}", f"from: {url}"):
        say(line)
    most = source.most_bytes if arguments.sha256 is None else BYTES_MAX
    with watched(arguments, f"fetching {arguments.name}") as progress:
        size = fetch(url, arguments.out, arguments.sha256 or source.sha256, most, progress)
    emit(f"{printable(arguments.out)}: {size} bytes, {known}\n")
    return 0


def read(arguments: argparse.Namespace) -> Trace:
    """The trace that the flags of `add_reading` ask for, with a bar while it is read."""
    from autopoiesis.workload.readers import read_trace

    with watched(arguments, "reading") as progress:
        trace = read_trace(arguments.file, hours=arguments.hours, draw=_draw(arguments), progress=progress)
    if arguments.scale != 1.0 and trace.format != SCALED:
        raise ScenarioError(f"--scale: only {SCALED} are read at another rate, not {trace.format}; leave it out")
    return trace


@contextmanager
def watched(arguments: argparse.Namespace, what: str) -> Iterator[Progress]:
    """A bar of bytes on a terminal, nothing elsewhere; being told anything, it also looks whether a signal has come."""
    if arguments.quiet or not sys.stderr.isatty():
        yield lambda done, total: arguments.interrupts.check()
        return
    from rich import progress
    from rich.console import Console

    columns = (progress.TextColumn("{task.description}", markup=False), progress.BarColumn(), progress.DownloadColumn())
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def show(done: int, total: int) -> None:
            arguments.interrupts.check()
            bar.update(task, completed=done, total=total or None)

        yield show


def summary(description: Description) -> str:
    """The statistics, a line each."""
    d = description
    lines = [("format", d.format), ("requests", f"{d.rows}")]
    if d.left_out:
        lines.append(("left out", f"{d.left_out} without a prompt"))
    if d.drawn:
        lines.append(("drawn", d.drawn))
    lines.append(("span", _span(d.span_s)))
    if d.models:
        lines.append(("models", ", ".join(f"{printable(name)} {count}" for name, count in d.models.items())))
    dispersion = " / ".join(NONE if value is None else f"{value:.2g}" for value in d.dispersion.values())
    lines += [
        ("input tokens", _tokens(d.input_tokens)),
        ("output tokens", _tokens(d.output_tokens)),
        ("requests/s", f"mean {d.rate_rps:.3g}, peak {d.peak_rps['60']:.3g} (60 s), {d.peak_rps['10']:.3g} (10 s)"),
        ("CV of gaps", NONE if d.iat_cv is None else f"{d.iat_cv:.3g}"),
        ("dispersion", f"{dispersion}  (variance / mean of arrivals per 1 / 10 / 60 s)"),
        ("LISO / SILO", f"{100 * d.liso_share:.1f} % / {100 * d.silo_share:.1f} %  (long in, short out / the reverse)"),
        ("sessions", f"{d.sessions} of two calls or more, with {100 * d.session_share:.1f} % of the requests"),
        ("reusable", f"{100 * d.reusable_prefix_share:.1f} % of the prompt tokens, with an unbounded cache"),
    ]
    return "".join(f"{name:<14} {text}\n" for name, text in lines)


def plots(trace: Trace) -> str:
    """The rate over time, and how long prompts and answers are."""
    import numpy as np

    from autopoiesis.cli import plots as drawing

    requests = trace.requests
    end_s = float(requests.arrival_s[-1])
    parts = []
    if end_s > 0:
        counts, _ = np.histogram(requests.arrival_s, bins=CURVE_COLUMNS, range=(0.0, end_s))
        rates = (counts / (end_s / CURVE_COLUMNS)).tolist()
        parts.append(drawing.curve("requests/s over time", rates, _span(end_s)))
    for title, tokens in (("input tokens", requests.input_tokens), ("output tokens", requests.output_tokens)):
        limits = drawing.doubling_bins(float(tokens.max()))
        counts, _ = np.histogram(tokens, bins=limits)
        labels = [f"< {limit}" for limit in limits[1:]]
        first = int(np.flatnonzero(counts)[0])
        parts.append(drawing.bars(title, labels[first:], (counts / len(requests)).tolist()[first:]))
    return "\n".join(parts)


def _source_names() -> tuple[str, ...]:
    from autopoiesis.workload.fetch import sources

    return tuple(sources())


def _draw(arguments: argparse.Namespace) -> Draw:
    from autopoiesis.workload.readers import Draw

    return Draw(arguments.seed, arguments.scale)


def _tokens(lengths: Lengths) -> str:
    shown = (lengths.p50, lengths.p90, lengths.p99)
    percentiles = " / ".join(f"{value:.0f}" for value in shown)
    return f"mean {lengths.mean:.0f}, p50 / p90 / p99 {percentiles}, max {lengths.maximum:.0f}"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
