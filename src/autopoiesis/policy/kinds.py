"""The kinds of value in `route` and `priority`, and the names and loops there are.

An integer literal is a NUMBER: it becomes an index or a float by what it meets.
"""

from __future__ import annotations

import ast
from enum import Enum

from autopoiesis.policy.fields import HOLD, SHED

INDEX_LIMIT = 2**53
"""Indices stay within ± this, so that each is also an exact float; arithmetic that leaves the range is a fault."""

LOOP_DEPTH = 2
"""Deepest nesting of loops; generators and keys count as loops."""

FUNCTIONS = ("min", "max", "abs", "sum", "len", "sqrt", "log", "exp", "floor")
NAMED_INDICES = {"HOLD": HOLD, "SHED": SHED}
RESERVED = frozenset({*FUNCTIONS, *NAMED_INDICES, "inf", "enumerate"})
"""Names with a meaning of their own; nothing else may be called so."""

OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)
COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)


class Kind(Enum):
    NUMBER = "number"
    INDEX = "index"
    FLOAT = "float"
    BOOL = "bool"
    VIEW = "replica"

    def __str__(self) -> str:
        return f"{'an' if self is Kind.INDEX else 'a'} {self.value}"


INTEGERS = (Kind.NUMBER, Kind.INDEX)
NUMERIC = (Kind.NUMBER, Kind.INDEX, Kind.FLOAT)


def promoted(*kinds: Kind) -> Kind:
    """The kind of arithmetic on numeric kinds: float if any is, else index if any is."""
    return next((kind for kind in (Kind.FLOAT, Kind.INDEX) if kind in kinds), Kind.NUMBER)


def joined(first: Kind, second: Kind) -> Kind | None:
    """The one kind of a local that is assigned both, or None where there is none."""
    if first is second:
        return first
    if Kind.NUMBER in (first, second):
        other = second if first is Kind.NUMBER else first
        return other if other in NUMERIC else None
    return None


def constant_kind(value: float | bool) -> Kind:
    if isinstance(value, bool):
        return Kind.BOOL
    return Kind.NUMBER if isinstance(value, int) and abs(value) <= INDEX_LIMIT else Kind.FLOAT


def loop_targets(target: ast.expr, iterable: ast.expr, replicas: str | None) -> list[tuple[str, Kind]] | None:
    """The names that `for target in iterable` binds, if it is one of the two forms there are."""
    match target, iterable:
        case ast.Name(id=view), ast.Name(id=name) if name == replicas:
            return [(view, Kind.VIEW)]
        case (
            ast.Tuple(elts=[ast.Name(id=index), ast.Name(id=view)]),
            ast.Call(func=ast.Name(id="enumerate"), args=[ast.Name(id=name)], keywords=[]),
        ) if name == replicas and index != view:
            return [(index, Kind.INDEX), (view, Kind.VIEW)]
    return None
