"""What single clients do, by name, and how often."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hostile.talk import Target

Do = Callable[[Target], Awaitable[None]]


@dataclass(frozen=True)
class Act:
    """One client from its connection to its end. It raises Violation."""

    name: str
    do: Do
    weight: float
    alone: bool
    """Whether only one of its kind runs at a time, because it moves so much."""


ACTS: list[Act] = []


def act(weight: float = 1.0, *, alone: bool = False) -> Callable[[Do], Do]:
    def known(do: Do) -> Do:
        ACTS.append(Act(do.__name__, do, weight, alone))
        return do

    return known
