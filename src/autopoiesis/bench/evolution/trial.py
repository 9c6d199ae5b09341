"""What is asked of the trivial evaluator; apart from it, so that asking costs no import of a policy host."""

from __future__ import annotations

import msgspec


class Trial(msgspec.Struct, frozen=True):
    """A candidate, and how long each of its calls may take."""

    text: str
    deadline_s: float
