"""Ctrl-C and SIGTERM: one way to end whatever runs, however deep in foreign code the signal finds us."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While entered, the first signal raises KeyboardInterrupt, and is remembered in `received`.

    A compiler or solver that calls back into Python may swallow the exception or turn it into another one. So a loop
    that runs long calls `check` now and then, and an error that follows a signal is to be taken for its consequence.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._hook = sys.unraisablehook

    def check(self) -> None:
        """Raises KeyboardInterrupt if a signal has come."""
        if self.received is not None:
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        # Only the main thread may set signals; embedded elsewhere, the embedding program minds them. A signal that
        # is ignored, as under nohup, stays so.
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        sys.unraisablehook = self._hook

    def _receive(self, number: int, frame: FrameType | None) -> NoReturn:
        self.received = number
        raise KeyboardInterrupt

    def _unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        # What the signal broke in a callback is told by the line that says "interrupted".
        if self.received is None:
            self._hook(unraisable)
