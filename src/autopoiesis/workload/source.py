"""The bytes of a trace, plain or gzipped, in pieces of whole lines.

Traces come from strangers: cut off downloads, wrong encodings, a bomb in place of an archive. What can go wrong below
the level of a line goes wrong here, as a `TraceError` that names file and line. One piece is held at a time, whatever
the size of the file.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from autopoiesis.errors import TraceError

PIECE_BYTES = 1 << 19
LINE_BYTES = 1_000_000
"""A longer line is no row of a trace; the limit keeps a file without line breaks from filling the memory. Above
`PIECE_BYTES`, so that only the first line of a piece can be too long."""
INFLATED_FREE, INFLATED_RATIO = 16 << 20, 200
"""Traces compress threefold to thirtyfold. What has grown beyond the first number of bytes and by
the second is a bomb."""

GZIP_MAGIC = b"\x1f\x8b"

Progress: TypeAlias = Callable[[int, int], None]
"""Is told the bytes of the file that have been read, and all there are (0 if that is not known)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some consecutive lines in UTF-8, each with its line feed, and the number (from 1) of the first."""

    data: bytes
    first_line: int


class Source:
    """An open file whose pieces can be walked once; `head` may be looked at before."""

    def __init__(self, path: str, raw: io.BufferedReader, progress: Progress | None) -> None:
        self.path = path
        self._raw = raw
        self._stream: io.BufferedReader | gzip.GzipFile = raw
        self._total = os.fstat(raw.fileno()).st_size
        self._progress = progress
        self._lines = 0
        self._inflated = 0
        self._begun = b""
        self._packed = self._peek() == GZIP_MAGIC
        if self._packed:
            self._stream = gzip.GzipFile(fileobj=raw)

    def head(self) -> bytes:
        """The first bytes, at most `PIECE_BYTES` of them, without a byte order mark."""
        while len(self._begun) < PIECE_BYTES and (data := self._read(PIECE_BYTES - len(self._begun))):
            self._begun += data
        self._begun = self._begun.removeprefix(codecs.BOM_UTF8)
        return self._begun

    def pieces(self, line_bytes: int = LINE_BYTES) -> Iterator[Piece]:
        """Raises TraceError for what is truncated, corrupt or not UTF-8, and for a longer line than `line_bytes`."""
        data = self.head()
        line: list[bytes] = []
        held = 0
        while data:
            end = data.rfind(b"\n") + 1
            first = (data.find(b"\n") if end else len(data)) + held
            if first >= line_bytes:
                text = f"longer than {line_bytes} bytes; this is not a file with one request a line"
                raise fault(self.path, self._lines + 1, text)
            if end:
                yield self._piece(b"".join([*line, data[:end]]))
                line, held = [], 0
            line.append(data[end:])
            held += len(data) - end
            data = self._read(PIECE_BYTES)
        if held:
            yield self._piece(b"".join([*line, b"\n"]))

    def whole(self, most: int) -> bytes:
        """All the bytes of a file that is one document. Raises TraceError as `pieces`, and beyond `most` bytes."""
        parts = [self.head()]
        size = len(parts[0])
        while data := self._read(PIECE_BYTES):
            parts.append(data)
            size += len(data)
            if size > most:
                raise fault(self.path, None, f"more than {most >> 20} MiB; a benchmark of so many requests is no trace")
        return self._piece(b"".join(parts)).data

    def _piece(self, data: bytes) -> Piece:
        first = self._lines + 1
        if not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError as error:
                line = first + data.count(b"\n", 0, error.start)
                text = "not UTF-8 text; save the file in UTF-8, plain or gzipped"
                raise fault(self.path, line, text) from None
        self._lines += data.count(b"\n")
        return Piece(data, first)

    def _read(self, size: int) -> bytes:
        with self._told():
            data = self._stream.read(size)
        read = self._raw.tell() if self._raw.seekable() else 0
        if self._packed:
            self._inflated += len(data)
            if self._inflated > INFLATED_FREE and read and self._inflated > INFLATED_RATIO * read:
                text = f"the gzip data grow more than {INFLATED_RATIO}-fold; unpack the file yourself if you trust it"
                raise fault(self.path, self._lines + 1, text)
        if self._progress is not None:
            self._progress(min(read, self._total), self._total)
        return data

    def _peek(self) -> bytes:
        with self._told():
            return self._raw.peek(len(GZIP_MAGIC))[: len(GZIP_MAGIC)]

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raises TraceError for what the operating system and gzip raise."""
        line = self._lines + 1
        try:
            yield
        except EOFError:
            raise fault(self.path, line, "the gzip data end early; fetch or write the file again") from None
        except (zlib.error, gzip.BadGzipFile) as error:
            text = f"the gzip data are corrupt ({error}); fetch or write the file again"
            raise fault(self.path, line, text) from None
        except OSError as error:
            raise fault(self.path, line, f"cannot be read ({error.strerror or error}); check the file") from None


@contextmanager
def open_source(path: str, progress: Progress | None = None) -> Iterator[Source]:
    """Open a file; whether it is gzipped is seen from its first bytes, not from its name.

    Raises TraceError for a file that is missing, a directory or unreadable.
    """
    try:
        raw = open(path, "rb")  # noqa: SIM115 - closed below; only the opening may fail with these words
    except FileNotFoundError:
        raise fault(path, None, "no such file; check the path") from None
    except IsADirectoryError:
        raise fault(path, None, "is a directory; name one file in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise fault(path, None, f"cannot be opened ({reason}); name a readable file") from None
    with raw:
        yield Source(path, raw, progress)


def fault(path: str, line: int | None, message: str) -> TraceError:
    """The one-line error for a place in a file."""
    name = path if path.isprintable() else repr(path)
    return TraceError(f"{name}: {message}" if line is None else f"{name}: line {line}: {message}")


def shown(cell: str) -> str:
    """A cell as an error quotes it: escaped, and cut where it is long."""
    return repr(cell if len(cell) <= 40 else cell[:37] + "...")
