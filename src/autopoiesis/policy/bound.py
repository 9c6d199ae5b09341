"""How many operations a call of `route` or `priority` can cost, seen from its text alone.

Loops go over the replicas only and nest twice at most, so the bound is a + b·n + c·n² for n replicas.
"""

from __future__ import annotations

import ast

from autopoiesis.policy.refusal import Refusal, refuse

BUDGET = 200_000
"""Most operations a call may cost over `BUDGET_REPLICAS` replicas: some tenths of a millisecond compiled."""
BUDGET_REPLICAS = 64

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


def over_budget(node: ast.FunctionDef) -> Refusal | None:
    """A refusal where the bound exceeds the budget."""
    a, b, c = count_operations(node)
    total = a + b * BUDGET_REPLICAS + c * BUDGET_REPLICAS**2
    if total <= BUDGET:
        return None
    formula = f"{a} + {b}·n + {c}·n² operations"
    why = f"may cost {formula}, which is {total} over {BUDGET_REPLICAS} replicas; at most {BUDGET} are allowed"
    return refuse(node, f"`{node.name}`", why, "less inside nested loops")
