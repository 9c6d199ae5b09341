"""What `route` and `priority` can cost, to run and to compile, seen from their text alone.

Loops go over the replicas only and nest twice at most, so a call costs at most a + b·n + c·n² operations for n
replicas. Compiling takes time that grows faster than the number of branches, so these are bounded too.
"""

from __future__ import annotations

import ast

from autopoiesis.policy.grammar import TypedFunction
from autopoiesis.policy.lowering import lowered
from autopoiesis.policy.refusal import Refusal, refuse

BUDGET = 200_000
"""Most operations a call may cost over `BUDGET_REPLICAS` replicas: some tenths of a millisecond compiled."""
BUDGET_REPLICAS = 64

BRANCHES = 200
"""Most branches; 200 of the costliest kind took numba about three seconds on a 2-core machine."""

TRANSCENDENTAL = 10
"""Operations that `sqrt`, `log` and `exp` count for; every other expression and statement counts for one."""
ITERATION = 2
"""Operations of going round a loop once."""


def count_operations(node: ast.FunctionDef) -> tuple[int, int, int]:
    """The coefficients (a, b, c) for a function that passed the grammar."""
    counts = [0, 0, 0]

    def visit(part: ast.AST, depth: int) -> None:
        outside: list[ast.AST] = []
        inside: list[ast.AST] = []
        match part:
            case ast.For():
                inside = [*part.body]
            case ast.GeneratorExp():
                inside = [part.elt, *part.generators[0].ifs]
            case ast.Lambda():
                inside = [part.body]
            case _:
                outside = [*ast.iter_child_nodes(part)]
        if isinstance(part, ast.expr | ast.stmt):
            counts[depth] += 1
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id in ("sqrt", "log", "exp"):
            counts[depth] += TRANSCENDENTAL - 1
        if inside:
            counts[depth + 1] += ITERATION
        for child in outside:
            visit(child, depth)
        for child in inside:
            visit(child, depth + 1)

    for statement in node.body:
        visit(statement, 0)
    return counts[0], counts[1], counts[2]


def branches_of(typed: TypedFunction) -> int:
    """Conditions, loops and checks for faults in the form that is compiled."""
    lines = (line.lstrip() for line in lowered(typed, "-3").splitlines())
    return sum(1 for line in lines if line.startswith(("if ", "for ")))


def over_budget(typed: TypedFunction) -> Refusal | None:
    """A refusal where a call could cost too many operations, or compiling too much time."""
    name = f"`{typed.node.name}`"
    a, b, c = count_operations(typed.node)
    total = a + b * BUDGET_REPLICAS + c * BUDGET_REPLICAS**2
    if total > BUDGET:
        formula = f"{a} + {b}·n + {c}·n² operations"
        why = f"may cost {formula}, which is {total} over {BUDGET_REPLICAS} replicas; at most {BUDGET} are allowed"
        return refuse(typed.node, name, why, "less inside nested loops")
    branches = branches_of(typed)
    if branches > BRANCHES:
        why = f"has {branches} branches once written out, at most {BRANCHES} are allowed"
        return refuse(typed.node, name, why, "fewer conditions, loops and operations on indices")
    return None
