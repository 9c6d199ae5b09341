"""JSON, one object a line, as typed records that remember their lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import msgspec

from autopoiesis.workload.source import Source, fault

T = TypeVar("T")

REASON = 160
"""Most characters of what the decoder says, which may quote the line."""


class Lines(Generic[T]):
    """Decodes lines as records of one type, whose constraints say what its fields may hold; other fields are skipped,
    unread."""

    def __init__(self, kind: type[T], what: str) -> None:
        self._decoder = msgspec.json.Decoder(kind)
        self._what = what
        """What a line is, in an error: `a request of Mooncake`."""

    def read(self, source: Source) -> Iterator[tuple[list[T], Sequence[int]]]:
        """Records and their lines, some thousands at a time, none of the blocks empty; blank lines are passed over."""
        for piece in source.pieces():
            lines = piece.data.split(b"\n")
            numbers: Sequence[int] = range(piece.first_line, piece.first_line + len(lines))
            filled = [(line, number) for line, number in zip(lines, numbers, strict=True) if line.strip()]
            if filled:
                numbers = [number for _, number in filled]
                yield [self.one(source, line, number) for line, number in filled], numbers

    def one(self, source: Source, line: bytes, number: int) -> T:
        """The record of a line. Raises TraceError with the field and what is wrong with it."""
        try:
            return self._decoder.decode(line)
        except msgspec.ValidationError as error:
            reason, _, place = str(error).rpartition(" - at `$.")
            reason = f"field {place.rstrip('`')!r}: {reason.lower()}" if reason else str(error)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            nested = isinstance(error, RecursionError)
            reason = "JSON nested too deeply" if nested else f"not JSON ({error})"
        reason = reason if len(reason) <= REASON else reason[: REASON - 3] + "..."
        raise fault(source.path, number, f"{reason}; a line must be {self._what}, so mend or remove it") from None
