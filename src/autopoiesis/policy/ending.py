"""How processes end, in words."""

from __future__ import annotations


def ending(status: int | None) -> str:
    """How a process ended, in words, by its exit code or minus the signal."""
    return f"signal {-status}" if status is not None and status < 0 else f"exit code {status}"
