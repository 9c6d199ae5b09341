"""`route` and `priority` written out over plain numbers: the form that numba compiles.

A replica becomes its row, a field an element of an array, a generator or a key a loop, and every way to fail a
`return` of the fault code. The text made here contains names of its own only: a policy's locals get a prefix.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from autopoiesis.policy.fields import REPLICA_FIELDS, REQUEST_FIELDS
from autopoiesis.policy.grammar import TypedFunction
from autopoiesis.policy.kinds import INDEX_LIMIT, INTEGERS, NAMED_INDICES, Kind, constant_kind, loop_targets

SYMBOLS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%",
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip

ZERO = {Kind.FLOAT: "0.0", Kind.INDEX: "0", Kind.NUMBER: "0", Kind.VIEW: "0", Kind.BOOL: "False"}


def lowered(typed: TypedFunction, fault: str) -> str:
    """Python source of a function of the same name over (request, replicas, n), or (request) for `priority`.

    `fault` is the literal it returns where the call has no answer. The source expects the names `math`, `inf`, `nan`,
    `floor_divide` and `modulo`.
    """
    lowering = _Lowering(typed, fault)
    arguments = "request" if typed.replicas is None else "request, replicas, n"
    lowering.emit(f"def {typed.node.name}({arguments}):")
    with lowering.indented():
        lowering.block(typed.body)
    return "\n".join(lowering.lines) + "\n"


def literal(value: float) -> str:
    """A number as source, a float of any size included."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "(-inf)")
    return f"({value!r})" if value < 0 else repr(value)


class _Lowering:
    def __init__(self, typed: TypedFunction, fault: str) -> None:
        self.typed = typed
        self.kinds = typed.kinds
        self.fault = fault
        self.lines: list[str] = []
        self._margin = 0
        self._temporaries = 0
        self._scopes: list[dict[str, str]] = []

    def emit(self, line: str) -> None:
        self.lines.append("    " * self._margin + line)

    @contextmanager
    def indented(self) -> Iterator[None]:
        self._margin += 1
        yield
        self._margin -= 1

    def fresh(self) -> str:
        self._temporaries += 1
        return f"t{self._temporaries}"

    def kept(self, text: str) -> str:
        """A new temporary that holds the value of `text`."""
        name = self.fresh()
        self.emit(f"{name} = {text}")
        return name

    def operand(self, text: str) -> str:
        """`text` if it can be repeated at no cost, else a temporary that holds it."""
        return text if text.isidentifier() or text.replace(".", "").isalnum() else self.kept(text)

    def fault_if(self, condition: str) -> None:
        self.emit(f"if {condition}:")
        with self.indented():
            self.emit(f"return {self.fault}")

    # --- statements -------------------------------------------------------------------------------------------------

    def block(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.emit(f"v_{name} = {self.as_kind(self.typed.local_kinds[name], value)}")
            case ast.If():
                self.emit(f"if {self.value(node.test)}:")
                with self.indented():
                    self.block(node.body)
                if node.orelse:
                    self.emit("else:")
                    with self.indented():
                        self.block(node.orelse)
            case ast.For():
                row = self.fresh()
                self.emit(f"for {row} in range(n):")
                with self.indented():
                    for name, _ in loop_targets(node.target, node.iter, self.typed.replicas) or ():
                        self.emit(f"v_{name} = {row}")
                    self.block(node.body)
            case ast.Break():
                self.emit("break")
            case ast.Continue():
                self.emit("continue")
            case ast.Return(value=ast.expr() as value) if self.typed.replicas is None:
                self.emit(f"return {self.as_kind(Kind.FLOAT, value)}")
            case ast.Return(value=ast.expr() as value):
                answer = self.value(value)
                self.fault_if(f"{answer} < -2 or {answer} >= n")
                self.emit(f"return {answer}")

    # --- expressions: each method emits what must happen first and answers with the text of a value -----------------

    def as_kind(self, kind: Kind, node: ast.expr) -> str:
        value = self.value(node)
        return f"float({value})" if kind is Kind.FLOAT and self.kinds[node] in INTEGERS else value

    def value(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=bool() as flag):
                return str(flag)
            case ast.Constant(value=int() | float() as number):
                return literal(float(number) if self.kinds[node] is Kind.FLOAT else number)
            case ast.Name(id=name):
                return self._name(name)
            case ast.Attribute(value=ast.Name(id=name), attr=field) if name == self.typed.request:
                return self.kept(f"request[{REQUEST_FIELDS.index(field)}]")
            case ast.Attribute(value=view, attr="index"):
                return self.value(view)
            case ast.Attribute(value=view, attr=field):
                row = self.value(view)
                return self.kept(f"replicas[{row} * {len(REPLICA_FIELDS)} + {REPLICA_FIELDS.index(field)}]")
            case ast.Subscript(slice=position):
                index = self.value(position)
                self.fault_if(f"{index} < 0 or {index} >= n")
                return index
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self.kept(f"not {self.value(operand)}")
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.kept(f"-{self.value(operand)}")
            case ast.UnaryOp(operand=operand):
                return self.value(operand)
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.Compare():
                return self._comparison(node)
            case ast.BoolOp():
                return self._connective(node)
            case ast.IfExp():
                return self._conditional(node)
            case ast.Call(func=ast.Name(id=name)):
                return self._call(node, name)
        raise AssertionError(f"{ast.dump(node)} passed the grammar and has no lowering")

    def _name(self, name: str) -> str:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        if name in self.typed.local_kinds:
            return f"v_{name}"
        if name in self.typed.constants:
            constant = self.typed.constants[name]
            return literal(float(constant) if constant_kind(constant) is Kind.FLOAT else constant)
        return "inf" if name == "inf" else literal(NAMED_INDICES[name])

    def _arithmetic(self, node: ast.BinOp) -> str:
        kind, symbol = self.kinds[node], SYMBOLS[type(node.op)]
        left = self.operand(self.as_kind(kind, node.left))
        right = self.operand(self.as_kind(kind, node.right))
        if kind is Kind.FLOAT:
            operator = {"//": "floor_divide", "%": "modulo"}.get(symbol)
            return self.kept(f"{operator}({left}, {right})" if operator else f"{left} {symbol} {right}")
        if symbol in "//%":
            self.fault_if(f"{right} == 0")
        if symbol == "*":
            self.fault_if(f"abs(float({left}) * float({right})) > {float(INDEX_LIMIT)!r}")
        result = self.kept(f"{left} {symbol} {right}")
        self.fault_if(f"abs({result}) > {INDEX_LIMIT}")
        return result

    def _comparison(self, node: ast.Compare) -> str:
        sides = [node.left, *node.comparators]
        result = self.fresh()
        left = self.operand(self.value(node.left))
        opened = 0
        for i, operator in enumerate(node.ops):
            right = self.operand(self.value(sides[i + 1]))
            whole = self.kinds[sides[i]] in INTEGERS and self.kinds[sides[i + 1]] in INTEGERS
            first, second = (left, right) if whole else (f"float({left})", f"float({right})")
            self.emit(f"{result} = {first} {SYMBOLS[type(operator)]} {second}")
            if i + 1 < len(node.ops):
                self.emit(f"if {result}:")
                self._margin += 1
                opened += 1
            left = right
        self._margin -= opened
        return result

    def _connective(self, node: ast.BoolOp) -> str:
        result = self.kept(self.value(node.values[0]))
        for value in node.values[1:]:
            self.emit(f"if {result}:" if isinstance(node.op, ast.And) else f"if not {result}:")
            with self.indented():
                self.emit(f"{result} = {self.value(value)}")
        return result

    def _conditional(self, node: ast.IfExp) -> str:
        result, kind = self.fresh(), self.kinds[node]
        self.emit(f"if {self.value(node.test)}:")
        with self.indented():
            self.emit(f"{result} = {self.as_kind(kind, node.body)}")
        self.emit("else:")
        with self.indented():
            self.emit(f"{result} = {self.as_kind(kind, node.orelse)}")
        return result

    def _call(self, node: ast.Call, name: str) -> str:
        if name == "len":
            return "n"
        if name == "sum":
            return self._sum(node)
        if name in ("min", "max"):
            return self._extremum(node, "<" if name == "min" else ">")
        argument = node.args[0]
        if name == "abs":
            return self.kept(f"abs({self.value(argument)})")
        if name == "floor":
            number = self.operand(self.as_kind(Kind.FLOAT, argument))
            self.fault_if(f"not abs({number}) <= {float(INDEX_LIMIT)!r}")
            return self.kept(f"int(math.floor({number}))")
        return self.kept(f"math.{name}({self.as_kind(Kind.FLOAT, argument)})")

    @contextmanager
    def _over(self, source: ast.expr) -> Iterator[str]:
        """A loop over replicas, or over those that a generator lets through; the row is what comes out."""
        row = self.fresh()
        self.emit(f"for {row} in range(n):")
        scope: dict[str, str] = {}
        conditions: list[ast.expr] = []
        if isinstance(source, ast.GeneratorExp):
            clause = source.generators[0]
            scope = {name: row for name, _ in loop_targets(clause.target, clause.iter, self.typed.replicas) or ()}
            conditions = clause.ifs
        self._scopes.append(scope)
        with self.indented():
            for condition in conditions:
                self.emit(f"if not {self.value(condition)}:")
                with self.indented():
                    self.emit("continue")
            yield row
        self._scopes.pop()

    def _sum(self, node: ast.Call) -> str:
        (source,) = node.args
        assert isinstance(source, ast.GeneratorExp)
        kind = self.kinds[node]
        total = self.kept(ZERO[kind])
        with self._over(source):
            self.emit(f"{total} = {total} + {self.value(source.elt)}")
            if kind in INTEGERS:
                self.fault_if(f"abs({total}) > {INDEX_LIMIT}")
        return total

    def _extremum(self, node: ast.Call, better: str) -> str:
        kind = self.kinds[node]
        if len(node.args) > 1:
            values = [self.operand(self.as_kind(kind, argument)) for argument in node.args]
            best = self.kept(values[0])
            for value in values[1:]:
                self.emit(f"if {value} {better} {best}:")
                with self.indented():
                    self.emit(f"{best} = {value}")
            return best
        (source,) = node.args
        key = node.keywords[0].value if node.keywords else None
        found, best = self.kept("False"), self.kept(ZERO[kind])
        best_key = best
        if isinstance(key, ast.Lambda):
            best_key = self.kept(ZERO[self.kinds[key.body]])
        with self._over(source) as row:
            chosen = self.value(source.elt) if isinstance(source, ast.GeneratorExp) else row
            value = chosen
            if isinstance(key, ast.Lambda):
                self._scopes.append({key.args.args[0].arg: chosen})
                value = self.value(key.body)
                self._scopes.pop()
            # The first is taken as it is and later ones by comparison alone, so that a NaN wins and loses as in Python.
            self.emit(f"if not {found} or {value} {better} {best_key}:")
            with self.indented():
                self.emit(f"{found} = True")
                self.emit(f"{best} = {chosen}")
                if best_key != best:
                    self.emit(f"{best_key} = {value}")
        self.fault_if(f"not {found}")
        return best
