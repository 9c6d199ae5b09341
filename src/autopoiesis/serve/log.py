"""The gateway's log: one JSON object a line on stderr, of names and numbers. No prompt, no answer, no key."""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

import msgspec

LEVELS = ("debug", "info", "warning", "error")


class Log:
    """Writes lines of at least one level. A line that cannot be written is dropped: serving does not wait for it."""

    def __init__(
        self, level: str = "info", *, requests: bool = False, worker: int = 0, to: TextIO | None = None
    ) -> None:
        self._least = LEVELS.index(level)
        self._worker = worker
        self._to = sys.stderr if to is None else to
        self.requests = requests
        """Whether each request gets a line."""

    def adopt(self, name: str) -> None:
        """Write what modules say by the standard library's loggers of this name, too."""
        logger = logging.getLogger(name)
        logger.addHandler(_Forward(self))
        logger.setLevel(logging.DEBUG)
        logger.propagate = False

    def debug(self, event: str, **fields: object) -> None:
        self._write(0, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._write(1, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._write(2, event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._write(3, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, object]) -> None:
        if level < self._least:
            return
        line = {"time": round(time.time(), 3), "level": LEVELS[level], "worker": self._worker, "event": event} | fields
        try:
            self._to.write(msgspec.json.encode(line).decode() + "\n")
            self._to.flush()
        except (OSError, ValueError):
            return


class _Forward(logging.Handler):
    """Writes a record as a line of the log."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        write = {logging.DEBUG: self._log.debug, logging.INFO: self._log.info, logging.WARNING: self._log.warning}
        write.get(record.levelno, self._log.error)(record.getMessage())
