"""The second reading of `route` and `priority`: Python itself runs the checked source.

Only what Python would answer with an exception, or with integers beyond any width, is rewritten (division, integer
arithmetic, indexing, the float functions). Everything else, comparisons with NaN and ties included, is Python's own;
the compiled form is held to this one by test.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from autopoiesis.policy.fields import FAULT, HOLD, SHED
from autopoiesis.policy.grammar import TypedFunction
from autopoiesis.policy.interface import ReplicaView, Request
from autopoiesis.policy.kinds import INDEX_LIMIT, INTEGERS, NUMERIC, Kind


class Fault(Exception):
    """Ends a call that has no answer."""


def divide(x: float, y: float) -> float:
    """IEEE division: x/0 is infinite, 0/0 is NaN."""
    if y != 0:
        return x / y
    return math.nan if x == 0 or math.isnan(x) else math.copysign(math.inf, x) * math.copysign(1.0, y)


def floor_divide(x: float, y: float) -> float:
    """Python's `//` of floats; by zero, what IEEE division gives."""
    return x // y if y != 0 else divide(x, y)


def modulo(x: float, y: float) -> float:
    """Python's `%` of floats; by zero, NaN."""
    return x % y if y != 0 else math.nan


def square_root(x: float) -> float:
    return math.nan if x < 0 else math.sqrt(x)


def logarithm(x: float) -> float:
    if x == 0:
        return -math.inf
    return math.nan if x < 0 else math.log(x)


def exponential(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _floor(x: float) -> int:
    if not abs(x) <= INDEX_LIMIT:
        raise Fault
    return math.floor(x)


def _checked(index: int) -> int:
    if abs(index) > INDEX_LIMIT:
        raise Fault
    return index


def _whole(quotient: Callable[[int, int], int], x: int, y: int) -> int:
    if y == 0:
        raise Fault
    return _checked(quotient(x, y))


def _at(replicas: Sequence[ReplicaView], index: int) -> ReplicaView:
    if not 0 <= index < len(replicas):
        raise Fault
    return replicas[index]


def _sum(values: Iterable[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


def _sum_indices(values: Iterable[int]) -> int:
    total = 0
    for value in values:
        total = _checked(total + value)
    return total


NAMESPACE = {
    "min": min,
    "max": max,
    "abs": abs,
    "len": len,
    "enumerate": enumerate,
    "float": float,
    "sqrt": square_root,
    "log": logarithm,
    "exp": exponential,
    "floor": _floor,
    "inf": math.inf,
    "HOLD": HOLD,
    "SHED": SHED,
    ".divide": divide,
    ".floor_divide": floor_divide,
    ".modulo": modulo,
    ".checked": _checked,
    ".floor_divide_indices": lambda x, y: _whole(int.__floordiv__, x, y),
    ".modulo_indices": lambda x, y: _whole(int.__mod__, x, y),
    ".at": _at,
    ".sum": _sum,
    ".sum_indices": _sum_indices,
}
"""Names with a dot cannot be written in a policy."""


class Rewriting(ast.NodeTransformer):
    """Turns the checked source into source that never raises but where the call has no answer."""

    def __init__(self, typed: TypedFunction) -> None:
        self.kinds = typed.kinds
        self.local_kinds = typed.local_kinds

    def _call(self, name: str, *arguments: ast.expr) -> ast.expr:
        return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])

    def _as(self, kind: Kind, node: ast.expr) -> ast.expr:
        """The rewritten node, made a float where a float is wanted and an integer is there."""
        rewritten: ast.expr = self.visit(node)
        if kind is Kind.FLOAT and self.kinds[node] in INTEGERS:
            return self._call("float", rewritten)
        return rewritten

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if self.kinds.get(node) is Kind.FLOAT:
            return ast.Constant(float(node.value))  # type: ignore[arg-type]
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.stmt:
        (target,) = node.targets
        assert isinstance(target, ast.Name)
        node.value = self._as(self.local_kinds[target.id], node.value)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        kind = self.kinds[node]
        return ast.IfExp(self.visit(node.test), self._as(kind, node.body), self._as(kind, node.orelse))

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        kind = self.kinds[node]
        left, right = self._as(kind, node.left), self._as(kind, node.right)
        suffix = "" if kind is Kind.FLOAT else "_indices"
        match node.op:
            case ast.Div():
                return self._call(".divide", left, right)
            case ast.FloorDiv():
                return self._call(f".floor_divide{suffix}", left, right)
            case ast.Mod():
                return self._call(f".modulo{suffix}", left, right)
        result = ast.BinOp(left, node.op, right)
        return result if kind is Kind.FLOAT else self._call(".checked", result)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        return self._call(".at", node.value, self.visit(node.slice))

    def visit_Call(self, node: ast.Call) -> ast.expr:
        kind = self.kinds.get(node)
        assert isinstance(node.func, ast.Name)
        if node.func.id == "sum":
            return self._call(".sum" if kind is Kind.FLOAT else ".sum_indices", self.visit(node.args[0]))
        if node.func.id in ("min", "max") and len(node.args) > 1 and kind in NUMERIC:
            node.args = [self._as(kind, argument) for argument in node.args]
            return node
        self.generic_visit(node)
        return node


def interpreted(
    typed: TypedFunction, rewriting: Rewriting | None = None, names: Mapping[str, object] = NAMESPACE
) -> Callable[..., float]:
    """The function itself; where the call has no answer it raises `Fault` or, for the least of nothing, ValueError.

    Another rewriting and the names that it needs may add to what is done, to count operations for example.
    """
    rewriting = rewriting or Rewriting(typed)
    body = rewriting.visit(ast.Module([*typed.body], [])).body
    parameters = [ast.arg(name) for name in (typed.request, typed.replicas) if name is not None]
    arguments = ast.arguments([], parameters, None, [], [], None, [])
    function = ast.copy_location(ast.FunctionDef(typed.node.name, arguments, body, []), typed.node)
    constants = {name: float(value) if abs(value) > INDEX_LIMIT else value for name, value in typed.constants.items()}
    namespace: dict[str, object] = {**constants, **names, "__builtins__": {}}
    module = ast.fix_missing_locations(ast.Module([function], []))
    exec(compile(module, f"<{typed.node.name}>", "exec"), namespace)
    made: Callable[..., float] = namespace[typed.node.name]  # type: ignore[assignment]
    return made


def interpreted_route(typed: TypedFunction) -> Callable[[Request, list[ReplicaView]], int]:
    """`route` as Python runs it; every way to fail answers FAULT. The views' `index` must be their position."""
    function = interpreted(typed)

    def route(request: Request, replicas: list[ReplicaView]) -> int:
        try:
            answer = function(request, replicas)
        except (Fault, ValueError):
            return FAULT
        return int(answer) if answer in (HOLD, SHED) or 0 <= answer < len(replicas) else FAULT

    return route


def interpreted_priority(typed: TypedFunction) -> Callable[[Request], float]:
    """`priority` as Python runs it; every way to fail answers NaN."""
    function = interpreted(typed)

    def priority(request: Request) -> float:
        try:
            return float(function(request))
        except Fault:
            return math.nan

    return priority
