"""A refusal: why a policy's source is not accepted, and what to write instead.

Refusals go back to whoever wrote the policy, a person or a model, as text; each one must therefore be enough to
mend the line it names.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass

from autopoiesis.errors import PolicyError


@dataclass(frozen=True, slots=True, order=True)
class Refusal:
    """One construct that is refused, with the line it stands on (1 where the whole module is meant)."""

    line: int
    construct: str
    why: str
    instead: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.construct} {self.why}; write {self.instead} instead"


def refuse(node: ast.AST, construct: str, why: str, instead: str) -> Refusal:
    """A refusal at a node's line."""
    return Refusal(getattr(node, "lineno", 1), construct, why, instead)


def refused(what: str, refusals: Iterable[Refusal]) -> PolicyError:
    """The error that carries refusals to a caller who asked for more than a list of them."""
    return PolicyError(f"{what} is refused:\n" + "\n".join(f"  {refusal}" for refusal in refusals))
