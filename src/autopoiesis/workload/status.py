"""How a request ended, as the code that every array of statuses holds."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Requests = completed + lost + shed + rejected once nothing is pending."""

    PENDING = 0
    """Not arrived, held, queued or being served."""
    COMPLETED = 1
    LOST = 2
    """Accepted and never answered in full."""
    SHED = 3
    """Refused by the policy."""
    REJECTED = 4
    """Longer than the model's context: refused for every policy."""
