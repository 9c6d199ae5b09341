"""The flags of `autopoiesis load` that say what is sent and how."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from autopoiesis.cli.parser import Parser, number, whole

if TYPE_CHECKING:
    from autopoiesis.bench.load import Lengths


def add_what(parser: Parser) -> None:
    """Which requests, and when."""
    what = parser.add_argument_group("what is sent")
    what.add_argument("--workload", metavar="FILE|PRESET", help="a trace, or a preset of autopoiesis trace generate")
    what.add_argument(
        "--rate",
        metavar="RPS",
        type=number("requests per second", above=0, most=100_000),
        help="without a trace: mean requests per second",
    )
    for flag, whose in (("--input", "prompts"), ("--output", "answers")):
        what.add_argument(
            flag,
            metavar="N",
            type=_lengths,
            help=f"with --rate: tokens of {whose}: N, uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA",
        )
    what.add_argument(
        "--cv",
        metavar="X",
        type=number("a coefficient of variation", least=0, most=20),
        default=1.0,
        help="with --rate: of the gaps between requests: 1 is a Poisson process, 0 is even (default 1)",
    )
    what.add_argument(
        "--duration",
        metavar="S",
        type=number("seconds", above=0, most=864_000),
        help="seconds of arrivals (default: the whole trace; 60 for a rate or a preset)",
    )
    what.add_argument(
        "--requests", metavar="N", type=whole("requests", 1, 10**9), help="no more than the first N requests"
    )
    what.add_argument(
        "--time-scale",
        metavar="X",
        type=number("a factor", above=0, most=1000),
        default=1.0,
        help="times all arrivals and think times; below 1 the load is heavier than it was recorded (default 1)",
    )
    loop = what.add_mutually_exclusive_group()
    loop.add_argument(
        "--sessions",
        action="store_true",
        help="a conversation's next call follows the end of the one before it plus its think time (the default)",
    )
    loop.add_argument("--open", action="store_true", help="all calls arrive as recorded, whatever the endpoint does")
    what.add_argument(
        "--seed",
        metavar="N",
        type=whole("a whole number", 0, 2**63 - 1),
        default=0,
        help="seed of prompts and of what is drawn (default 0)",
    )


def add_how(parser: Parser) -> None:
    """In what form, and on what terms."""
    how = parser.add_argument_group("how it is sent")
    how.add_argument(
        "--endpoint",
        choices=("completions", "chat"),
        default="completions",
        help="completions takes prompts as token ids, whose lengths are exact; chat takes words, of which two short "
        "requests before the load say how many tokens they are (default completions)",
    )
    how.add_argument(
        "--token-ids",
        metavar="LOW-HIGH",
        type=_token_ids,
        default=(1000, 9999),
        help="prompts of completions are drawn from these (default 1000-9999)",
    )
    how.add_argument(
        "--ignore-eos",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="ask with ignore_eos, a field of vLLM, SGLang and llama.cpp, that answers get as long as the trace says "
        "(default: yes)",
    )
    how.add_argument("--min-tokens", action="store_true", help="the same with the field min_tokens")
    how.add_argument(
        "--running-usage",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="ask for the number of tokens with every event, a field of vLLM and SGLang (default: yes)",
    )
    how.add_argument(
        "--concurrency-limit",
        metavar="N",
        type=whole("requests", 1, 1_000_000),
        help="no more than N requests under way; what is due beyond them waits at the client",
    )
    how.add_argument(
        "--timeout",
        metavar="S",
        type=number("seconds", above=0, most=86_400),
        default=600.0,
        help="seconds that an answer may take (default 600)",
    )
    how.add_argument(
        "--keep-alive",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="use connections again; --no-keep-alive suits llama.cpp, which has a thread for each (default: yes)",
    )
    how.add_argument("--api-key-env", metavar="VAR", help="environment variable whose value is sent as bearer token")
    how.add_argument("--allow-remote", action="store_true", help="allow an address that is not this machine's own")


def add_slo(parser: Parser) -> None:
    """The SLO by which goodput counts."""
    slo = parser.add_argument_group("what counts as good")
    for flag, default, what in (
        ("--slo-ttft", 1.0, "seconds to the first token ..."),
        ("--slo-ttft-per-token", 0.0005, "... and for every prompt token more"),
        ("--slo-tpot", 0.05, "seconds per output token after the first, mean of a request"),
    ):
        slo.add_argument(
            flag,
            metavar="S",
            type=number("seconds", least=0, most=1e6),
            default=default,
            help=f"{what} (default {default:g})",
        )


def _lengths(text: str) -> Lengths:
    from autopoiesis.bench.load import Lengths

    try:
        return Lengths.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, got {text!r}") from None


def _token_ids(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and len(text) < 16 and int(first) < int(last)):
        raise argparse.ArgumentTypeError(f"must be two token ids, LOW-HIGH, as in 1000-9999, got {text!r}")
    return int(first), int(last)
