"""Parsing of arguments with the errors that the other commands give: one line, with the near matches and the mend."""

from __future__ import annotations

import argparse
import difflib
import math
import textwrap
from collections.abc import Callable, Collection
from typing import Any, NoReturn, TypeAlias

from autopoiesis.cli.output import say
from autopoiesis.errors import unknown_name

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""What commands are added to."""

PAGE = 79
"""Columns of the prose in help."""


class Parser(argparse.ArgumentParser):
    """No abbreviations: a flag that is added later must not change what a script means."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As ever, but an unknown flag is named with the nearest flags of the command that it was given to."""
        found, extra = self.parse_known_args(args, namespace)
        if extra:
            command: Parser = getattr(found, "parser", self)
            flag = extra[0].partition("=")[0]
            near = difflib.get_close_matches(flag, command._option_string_actions, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"see {command.prog} --help"
            command.error(f"unexpected argument {flag!r}; {hint}")
        return found

    def error(self, message: str) -> NoReturn:
        say(f"{self.prog}: error: {message}")
        raise SystemExit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            kind = "command" if action.metavar == "COMMAND" else "value"
            raise argparse.ArgumentError(None, unknown_name(kind, str(value), map(str, action.choices)))


def described(text: str, *examples: str, notes: str = "") -> dict[str, Any]:
    """Settings of a parser: what the command does, remarks on it, and examples to copy."""
    lines = [textwrap.fill(notes, PAGE), ""] if notes else []
    lines += ["example:" if len(examples) == 1 else "examples:", *(f"  {example}" for example in examples)]
    return {
        "description": textwrap.fill(text, PAGE),
        "epilog": "\n".join(lines),
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def number(
    unit: str, *, above: float = -math.inf, least: float = -math.inf, most: float = math.inf
) -> Callable[[str], float]:
    """Reads a finite number within bounds; `unit` and the bounds make the error."""
    low = f"above {above:g}" if above > -math.inf else f"at least {least:g}"
    expected = f"must be {unit}, {low}" + (f" and at most {most:g}" if most < math.inf else "")

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > above and least <= value <= most):
            raise argparse.ArgumentTypeError(f"{expected}, got {text!r}")
        return value

    return read


def whole(expected: str, least: int, most: int) -> Callable[[str], int]:
    """Reads a whole number from `least` to `most`."""

    def read(text: str) -> int:
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be {expected} from {least} to {most}, got {text!r}")
        return value

    return read


def one_of(kind: str, names: Callable[[], Collection[str]]) -> Callable[[str], str]:
    """Reads one of the names, which are looked up only when the flag is given."""

    def read(text: str) -> str:
        if text not in names():
            raise argparse.ArgumentTypeError(unknown_name(kind, text, names()))
        return text

    return read


def pair(separator_example: str) -> Callable[[str], tuple[str, str]]:
    """Reads `NAME=VALUE`."""

    def read(text: str) -> tuple[str, str]:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise argparse.ArgumentTypeError(f"must have the form {separator_example}, got {text!r}")
        return name, value

    return read
