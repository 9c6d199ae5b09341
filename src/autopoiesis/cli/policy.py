"""`autopoiesis policy`: list, show, check and compare policies, those of the library and those that evolved.

What is asked of evolved ones alone stands in `evolved`.
"""

from __future__ import annotations

import argparse
import difflib
import sys

from autopoiesis.cli import evolved
from autopoiesis.cli.flags import STORE
from autopoiesis.cli.output import emit, printable
from autopoiesis.cli.parser import Commands, Parser, described
from autopoiesis.cli.references import FORMS, checked, existing, resolve, stored


def add(commands: Commands) -> None:
    """Add the command and its sub-commands."""
    policy = commands.add_parser(
        "policy",
        help="list, show, check, compare and trace policies",
        **described(
            "List, show, check and compare policies, and say where those that evolved come from.",
            "autopoiesis policy list",
            "autopoiesis policy diff milp-replan my_policy.py",
            notes=f"A policy is given as {FORMS}.",
        ),
    )
    actions = policy.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="action")
    listing = actions.add_parser(
        "list",
        help="names and summaries",
        **described(
            "List the policies of the library and, with --store, those that evolved.",
            f"autopoiesis policy list --store {STORE}",
        ),
    )
    listing.add_argument("--store", metavar="PATH", help="also list the policies that evolved in this store")
    listing.set_defaults(execute=list_policies, parser=listing)

    show = actions.add_parser(
        "show", help="print a policy's source", **described("Print a policy.", "autopoiesis policy show milp-replan")
    )
    show.add_argument("policy", metavar="POLICY", help=FORMS)
    show.set_defaults(execute=show_policy, parser=show)

    check = actions.add_parser(
        "check",
        help="say what is refused in a policy",
        **described(
            "Say what is refused in a policy, a line each, and exit with 2; or that it may go on, and exit with 0.",
            "autopoiesis policy check my_policy.py",
        ),
    )
    check.add_argument("policy", metavar="POLICY", help=FORMS)
    check.set_defaults(execute=report_refusals, parser=check)

    diff = actions.add_parser(
        "diff",
        help="compare two policies",
        **described("Print how policy B differs from policy A.", "autopoiesis policy diff milp-replan my_policy.py"),
    )
    diff.add_argument("a", metavar="A", help=FORMS)
    diff.add_argument("b", metavar="B", help="likewise")
    diff.set_defaults(execute=print_difference, parser=diff)
    for parser in (show, check, diff):
        _add_store(parser)
    evolved.add(actions)


def _add_store(parser: Parser) -> None:
    parser.add_argument("--store", metavar="PATH", default=STORE, help=f"where evolved policies are (default {STORE})")


def list_policies(arguments: argparse.Namespace) -> int:
    """A line per policy: name or identity, then its summary."""
    from autopoiesis.evolve.store import PolicyRecord
    from autopoiesis.policy.library import library

    if arguments.store is not None:
        existing(arguments.store)
    human = [(name, source.summary) for name, source in library().items()]
    records: tuple[PolicyRecord, ...] = () if arguments.store is None else stored(arguments.store)
    made = [
        (record.id, f"({record.provider}) {record.summary or record.name}")
        for record in records
        if record.provider != "human"
    ]
    width = max(len(name) for name, _ in human + made)
    emit("".join(f"{printable(name):<{width}}  {printable(summary)}\n" for name, summary in human + made))
    return 0


def show_policy(arguments: argparse.Namespace) -> int:
    """The source as it is; on a terminal without its control characters."""
    source = resolve(arguments.policy, arguments.store).text
    if sys.stdout.isatty():
        source = "\n".join(line if line.isprintable() else _visible(line) for line in source.splitlines()) + "\n"
    emit(source)
    return 0


def report_refusals(arguments: argparse.Namespace) -> int:
    """The refusals, one per line, exit code 2; or the identity and the summary."""
    source, refusals = checked(arguments.policy, arguments.store)
    if refusals:
        emit("".join(f"{printable(f'{arguments.policy}: {refusal}')}\n" for refusal in refusals))
        return 2
    emit(printable(f"ok: {source.identity} {source.summary}") + "\n")
    return 0


def print_difference(arguments: argparse.Namespace) -> int:
    """A unified diff; nothing if the texts are equal."""
    a, b = (resolve(reference, arguments.store).text.splitlines() for reference in (arguments.a, arguments.b))
    lines = difflib.unified_diff(a, b, arguments.a, arguments.b, lineterm="")
    emit("".join(f"{_visible(line) if sys.stdout.isatty() else line}\n" for line in lines))
    return 0


def _visible(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line)
