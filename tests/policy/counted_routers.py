"""A `route` as Python runs it, counting the operations that it does in fact: what the static bound is held to."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable
from typing import Any

from autopoiesis.policy import ReplicaView, Request
from autopoiesis.policy.bound import ITERATION, TRANSCENDENTAL
from autopoiesis.policy.grammar import TypedFunction
from autopoiesis.policy.interpret import NAMESPACE, Fault, Rewriting, interpreted


def counted_route(typed: TypedFunction) -> Callable[[Request, list[ReplicaView]], int]:
    """The number of operations of one call, whether it has an answer or none."""
    done = 0

    def count(operations: int, value: Any = None) -> Any:
        nonlocal done
        done += operations
        return value

    function = interpreted(typed, _Counting(typed), {**NAMESPACE, ".count": count})

    def call(request: Request, replicas: list[ReplicaView]) -> int:
        nonlocal done
        done = 0
        with contextlib.suppress(Fault, ValueError):
            function(request, replicas)
        return done

    return call


class _Counting(Rewriting):
    """Counts each expression and statement whenever it is reached, and each round of a loop."""

    def visit(self, node: ast.AST) -> Any:
        # Seen to first, because rewriting changes the node.
        match node:
            case ast.Call(func=ast.Name(id="sqrt" | "log" | "exp")):
                operations = TRANSCENDENTAL
            case _:
                operations = 1
        rewritten = super().visit(node)
        if isinstance(node, ast.stmt):
            return [ast.Expr(self._counted(1)), rewritten]
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            return rewritten
        if isinstance(node, ast.Lambda | ast.GeneratorExp) or not isinstance(node, ast.expr):
            return rewritten
        return self._counted(operations, rewritten)

    def visit_For(self, node: ast.For) -> ast.stmt:
        body = [part for statement in node.body for part in self.visit(statement)]
        return ast.For(node.target, node.iter, [ast.Expr(self._counted(ITERATION)), *body], [])

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> ast.expr:
        (clause,) = node.generators
        reached = self._counted(ITERATION, ast.Constant(True))
        conditions = [reached, *(self.visit(condition) for condition in clause.ifs)]
        return ast.GeneratorExp(self.visit(node.elt), [ast.comprehension(clause.target, clause.iter, conditions, 0)])

    def visit_Lambda(self, node: ast.Lambda) -> ast.expr:
        return ast.Lambda(node.args, self._counted(ITERATION, self.visit(node.body)))

    def _counted(self, operations: int, *value: ast.expr) -> ast.expr:
        return ast.Call(ast.Name(".count", ast.Load()), [ast.Constant(operations), *value], [])
