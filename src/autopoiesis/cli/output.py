"""What leaves the program: text on stdout and stderr, and JSON files that are there whole or not at all."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopoiesis.errors import AutopoiesisError, ScenarioError

if TYPE_CHECKING:
    from autopoiesis.control.config import Report, SimulateReport

DIGITS = 9
"""Significant digits of every float in JSON: what makes equal runs equal bytes across machines."""


def open_streams() -> None:
    """A stream that was closed before we started takes what is written to it and drops it."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 -- open until the process ends


def printable(text: str) -> str:
    """The text on one line, without control characters: a policy's summary is somebody else's text on our terminal."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text).strip()


def say(message: str) -> None:
    """One line on stderr, whatever the message."""
    lines = (printable(line) for line in message.splitlines())
    print("; ".join(line for line in lines if line), file=sys.stderr, flush=True)


def emit(text: str) -> None:
    """Text on stdout, at once; characters that it cannot show are replaced. Raises as `flush` does."""
    encoding = sys.stdout.encoding or "utf-8"
    with _written():
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()


def flush() -> None:
    """See to it that stdout has been written.

    Raises BrokenPipeError if nobody reads it any more, and AutopoiesisError if it cannot be written otherwise.
    """
    with _written():
        sys.stdout.flush()


@contextmanager
def _written() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # The interpreter would try once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise AutopoiesisError(f"standard output cannot be written: {error.strerror}; send it elsewhere") from error


def report_json(report: Report) -> dict[str, Any]:
    """The keys of `run --json`, in order."""
    return asdict(report)


def simulate_json(report: SimulateReport) -> dict[str, Any]:
    """The keys of `simulate --json`: those of its row, then how fast it was."""
    tables = asdict(report)
    return {**tables.pop("row"), **tables}


def dumps(value: Any) -> str:
    """JSON with two spaces of indentation, keys in the order given and floats of nine significant digits.

    JSON has no infinity and no NaN; both are written as null.
    """
    return "".join(_parts(value, "\n")) + "\n"


def _parts(value: Any, newline: str) -> Iterator[str]:
    inner = newline + "  "
    match value:
        case dict() if value:
            for position, (key, item) in enumerate(value.items()):
                yield ("," if position else "{") + inner + json.dumps(str(key)) + ": "
                yield from _parts(item, inner)
            yield newline + "}"
        case list() | tuple() if value:
            for position, item in enumerate(value):
                yield ("," if position else "[") + inner
                yield from _parts(item, inner)
            yield newline + "]"
        case dict():
            yield "{}"
        case list() | tuple():
            yield "[]"
        case None | bool() | str():
            yield json.dumps(value)
        case Integral():
            yield str(int(value))
        case Real():
            yield _float(float(value))
        case _:
            raise TypeError(f"no JSON for {type(value).__name__}")


def _float(value: float) -> str:
    if not math.isfinite(value):
        return "null"
    # Adding zero takes the sign off a negative zero.
    text = f"{value + 0.0:.{DIGITS}g}"
    return text if any(c in text for c in ".e") else text + ".0"


def check_writable(path: str, flag: str) -> None:
    """Before anything runs: ScenarioError if a file cannot be written at `path`."""
    target = Path(path)
    folder = target.parent
    if target.is_dir():
        raise ScenarioError(f"{flag} {path}: is a folder; give the path of a file in it")
    if not folder.is_dir():
        raise ScenarioError(f"{flag} {path}: folder {str(folder)!r} does not exist; create it or name another file")
    if not os.access(target if target.exists() else folder, os.W_OK):
        raise ScenarioError(f"{flag} {path}: no permission to write there; name another file")


def write_whole(path: str, text: str, flag: str = "--json") -> None:
    """Write a file in one step: a reader sees the old content or the new, never a part. Raises ScenarioError."""
    with WholeFile(path, flag) as file:
        file.write(text.encode())


class WholeFile:
    """A file that takes the place of the old one at the end of a `with` block, and never if the block fails.

    Where it cannot be written its methods raise ScenarioError, which names the flag; what else the block raises passes.
    """

    def __init__(self, path: str, flag: str) -> None:
        self._path, self._flag = path, flag
        self._target = Path(os.path.realpath(path))
        # A device or a pipe, such as /dev/stdout, is written and not replaced.
        replaces = self._target.is_file() or not self._target.exists()
        draft = self._target.with_name(f".{self._target.name}.{os.getpid()}.part")
        self._draft = draft if replaces else None
        with self._fault():
            self._file = open(draft if replaces else self._target, "wb")  # noqa: SIM115 -- closed by `__exit__`

    def write(self, data: bytes) -> int:
        """Put more bytes at the end."""
        with self._fault():
            return self._file.write(data)

    def __enter__(self) -> WholeFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            with self._fault():
                self._file.close()
                if kind is None and self._draft is not None:
                    self._draft.replace(self._target)
        finally:
            if self._draft is not None:
                self._draft.unlink(missing_ok=True)

    @contextmanager
    def _fault(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            text = f"{self._path}: cannot be written: {error.strerror}; name another file with {self._flag}"
            raise ScenarioError(text) from error
