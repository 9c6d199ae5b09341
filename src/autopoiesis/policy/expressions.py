"""The rule that gives every expression of `route` and `priority` its kind.

This is half of the positive grammar: an expression that no rule names is refused. The other half, statements and the
flow between them, is `grammar`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from autopoiesis.errors import unknown_name
from autopoiesis.policy.fields import REPLICA_FIELDS, REQUEST_FIELDS
from autopoiesis.policy.kinds import (
    COMPARISONS,
    FUNCTIONS,
    INTEGERS,
    LOOP_DEPTH,
    NAMED_INDICES,
    NUMERIC,
    OPERATORS,
    RESERVED,
    Kind,
    constant_kind,
    loop_targets,
    promoted,
)
from autopoiesis.policy.refusal import Refusal, refuse


class ExpressionKinds:
    """Gives expressions their kinds under what is known of the locals; what has none is refused.

    `kinds` and `refusals` are what it leaves behind. A refused part has no kind, and what contains it is not refused
    again.
    """

    def __init__(
        self,
        request: str,
        replicas: str | None,
        constants: Mapping[str, float | bool],
        unusable: Mapping[str, str],
        local_kinds: Mapping[str, Kind | None],
    ) -> None:
        self.request = request
        self.replicas = replicas
        self.constants = constants
        self.unusable = unusable
        self.local_kinds = local_kinds
        self.assigned: frozenset[str] = frozenset()
        self.depth = 0
        self.kinds: dict[ast.expr, Kind] = {}
        self.refusals: list[Refusal] = []
        self.taken = RESERVED | {request} | ({replicas} if replicas else set())
        """Names that nothing may be bound to."""
        self._inner: list[dict[str, Kind]] = []

    def refuse(self, node: ast.AST, construct: str, why: str, instead: str) -> None:
        self.refusals.append(refuse(node, construct, why, instead))

    def of(self, node: ast.expr) -> Kind | None:
        """The kind of an expression; None if it is refused or, while kinds are being inferred, not known yet."""
        kind = self._rule(node)
        if kind is not None:
            self.kinds[node] = kind
        return kind

    def numeric(self, node: ast.expr, where: str) -> Kind | None:
        return self._one_of(node, NUMERIC, where, "a number", "`1.0 if condition else 0.0`, or a field of the replica")

    def condition(self, node: ast.expr, where: str) -> Kind | None:
        return self._one_of(node, (Kind.BOOL,), where, "true or false", "a comparison such as `len(replicas) > 0`")

    def index(self, node: ast.expr, where: str) -> Kind | None:
        return self._one_of(node, INTEGERS, where, "an index", "`r.index` of a replica, or `floor(x)` of a float")

    @contextmanager
    def loop(self, node: ast.AST) -> Iterator[None]:
        """What is done inside is done once for each replica."""
        if self.depth == LOOP_DEPTH:
            self.refuse(
                node, "a third loop inside loops", f"nests deeper than {LOOP_DEPTH}", "a local computed outside"
            )
        self.depth += 1
        yield
        self.depth -= 1

    @contextmanager
    def _binding(self, names: list[tuple[str, Kind]]) -> Iterator[None]:
        self._inner.append(dict(names))
        yield
        self._inner.pop()

    def _one_of(self, node: ast.expr, wanted: tuple[Kind, ...], where: str, what: str, instead: str) -> Kind | None:
        kind = self.of(node)
        if kind is None or kind in wanted:
            return kind
        self.refuse(node, f"`{ast.unparse(node)[:60]}`", f"is {kind}, but {where} must be {what}", instead)
        return None

    def _rule(self, node: ast.expr) -> Kind | None:
        match node:
            case ast.Constant(value=bool() | int() | float() as value):
                return self._literal(node, value)
            case ast.Name():
                return self._name(node)
            case ast.Attribute():
                return self._attribute(node)
            case ast.Subscript():
                return self._subscript(node)
            case ast.UnaryOp(op=ast.Not()):
                return self.condition(node.operand, "what `not` turns round")
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                return self.numeric(node.operand, "what has a sign")
            case ast.BinOp() if isinstance(node.op, OPERATORS):
                left = self.numeric(node.left, "an operand of arithmetic")
                right = self.numeric(node.right, "an operand of arithmetic")
                if left is None or right is None:
                    return None
                return Kind.FLOAT if isinstance(node.op, ast.Div) else promoted(left, right)
            case ast.Compare() if all(isinstance(op, COMPARISONS) for op in node.ops):
                sides = [self.numeric(side, "a side of a comparison") for side in (node.left, *node.comparators)]
                return None if None in sides else Kind.BOOL
            case ast.BoolOp():
                sides = [self.condition(side, "a side of `and` and `or`") for side in node.values]
                return None if None in sides else Kind.BOOL
            case ast.IfExp():
                return self._conditional(node)
            case ast.Call():
                return self._call(node)
        self._unnamed(node)
        return None

    def _unnamed(self, node: ast.expr) -> None:
        instead = {
            ast.BinOp: "`+ - * / // %`, and `x * x` for a power",
            ast.Compare: "a comparison `== != < <= > >=` between numbers",
            ast.GeneratorExp: "it as the one argument of `min`, `max` or `sum`",
            ast.ListComp: "a generator inside `min`, `max` or `sum`",
            ast.Lambda: "it as `key=` of `min` or `max` over replicas",
            ast.Tuple: "a single number, such as `1000.0 * r.waiting + r.running`",
            ast.Constant: "a numeric literal",
            ast.NamedExpr: "an assignment on a line of its own",
        }.get(type(node), "numbers, comparisons and the listed functions")
        self.refuse(node, f"`{ast.unparse(node)[:60]}`", "is not part of the language of route and priority", instead)

    def _literal(self, node: ast.expr, value: float | bool) -> Kind | None:
        try:
            float(value)
        except OverflowError:
            self.refuse(node, "a literal", "is larger than any float", "`inf`")
            return None
        return constant_kind(value)

    def _name(self, node: ast.Name) -> Kind | None:
        name = node.id
        for names in reversed(self._inner):
            if name in names:
                return names[name]
        if name in self.local_kinds:
            if name not in self.assigned:
                self.refuse(
                    node,
                    f"local `{name}`",
                    "may be read before it is assigned",
                    "an assignment before the loop or branch",
                )
                return None
            return self.local_kinds[name]
        if name in self.constants:
            return constant_kind(self.constants[name])
        if name in NAMED_INDICES:
            return Kind.INDEX
        if name == "inf":
            return Kind.FLOAT
        if name == self.request:
            self.refuse(node, f"`{name}` alone", "is not a value", f"one of its fields, such as `{name}.prompt_tokens`")
        elif name == self.replicas:
            self.refuse(node, f"`{name}` alone", "is not a value", f"`len({name})`, `{name}[index]` or a loop over it")
        elif name in self.unusable:
            self.refuse(
                node, f"`{name}`", self.unusable[name], "a module constant that is assigned one numeric literal"
            )
        else:
            self.refuse(node, f"`{name}`", "is not known here", "a local, a numeric module constant or a listed name")
        return None

    def _attribute(self, node: ast.Attribute) -> Kind | None:
        if isinstance(node.value, ast.Name) and node.value.id == self.request:
            return self._field(node, "request", REQUEST_FIELDS)
        if isinstance(node.value, ast.Name) and node.value.id in ("math", "np", "numpy"):
            self.refuse(
                node, f"`{ast.unparse(node)}`", "reaches into a module", f"`{node.attr}` if it is a listed function"
            )
            return None
        kind = self.of(node.value)
        if kind is None:
            return None
        if kind is not Kind.VIEW:
            self.refuse(node, f"`.{node.attr}`", f"is asked of {kind}", "a field of `request` or of a replica")
            return None
        return Kind.INDEX if node.attr == "index" else self._field(node, "replica", REPLICA_FIELDS)

    def _field(self, node: ast.Attribute, of: str, fields: tuple[str, ...]) -> Kind | None:
        if node.attr in fields:
            return Kind.FLOAT
        instead = f"one of {', '.join(fields)}"
        self.refuse(
            node, f"`.{node.attr}`", f"is no field of a {of}: {unknown_name('field', node.attr, fields)}", instead
        )
        return None

    def _subscript(self, node: ast.Subscript) -> Kind | None:
        if not (isinstance(node.value, ast.Name) and node.value.id == self.replicas):
            self.refuse(
                node, f"`{ast.unparse(node)[:60]}`", "indexes something else than replicas", "`replicas[index]`"
            )
            return None
        if isinstance(node.slice, ast.Slice):
            self.refuse(node, "a slice", "makes a list", "a loop over replicas with a condition")
            return None
        return Kind.VIEW if self.index(node.slice, "what stands in brackets") else None

    def _conditional(self, node: ast.IfExp) -> Kind | None:
        self.condition(node.test, "the condition")
        yes, no = self.of(node.body), self.of(node.orelse)
        if yes is None or no is None:
            return None
        if yes in NUMERIC and no in NUMERIC:
            return promoted(yes, no)
        if yes is not no:
            self.refuse(node, "a conditional expression", f"is {yes} or {no}", "branches of one kind")
            return None
        return yes

    def _call(self, node: ast.Call) -> Kind | None:
        rules: dict[str, Callable[[ast.Call], Kind | None]] = {"min": self._extremum, "max": self._extremum}
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in FUNCTIONS or any(isinstance(argument, ast.Starred) for argument in node.args):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else name
            mend = {"int": "`floor(x)`", "range": "`for i, r in enumerate(replicas)`", "float": "the value itself"}
            instead = f"`{called}(x)`" if called in FUNCTIONS else f"one of {', '.join(FUNCTIONS)}"
            self.refuse(node, f"the call `{ast.unparse(node)[:60]}`", "is not listed", mend.get(name, instead))
            return None
        if name in rules:
            return rules[name](node)
        if len(node.args) != 1 or node.keywords:
            self.refuse(node, f"`{name}`", "takes exactly one argument here", f"`{name}(x)`")
            return None
        argument = node.args[0]
        if name == "len":
            if isinstance(argument, ast.Name) and argument.id == self.replicas:
                return Kind.INDEX
            self.refuse(
                node, "`len`", "is asked of something else than replicas", "`len(replicas)`, or `sum(1 for ...)`"
            )
            return None
        if name == "sum":
            return self._generator(argument, (*NUMERIC,), "sum")
        kind = self.numeric(argument, f"what `{name}` is given")
        if kind is None:
            return None
        return {"abs": kind, "floor": Kind.INDEX}.get(name, Kind.FLOAT)

    def _extremum(self, node: ast.Call) -> Kind | None:
        name = ast.unparse(node.func)
        match node.args, node.keywords:
            case [_, _, *_], []:
                kinds = [self.numeric(argument, f"what `{name}` is given") for argument in node.args]
                known = [kind for kind in kinds if kind is not None]
                return promoted(*known) if len(known) == len(kinds) else None
            case [argument], []:
                return self._generator(argument, NUMERIC, name)
            case [argument], [ast.keyword(arg="key", value=ast.Lambda() as key)]:
                return self._keyed(argument, key, name)
        self.refuse(
            node,
            f"`{ast.unparse(node)[:60]}`",
            f"is no form of `{name}` there is",
            f"`{name}(a, b)`, `{name}(x for r in replicas)` or `{name}(replicas, key=lambda r: x)`",
        )
        return None

    def _keyed(self, source: ast.expr, key: ast.Lambda, name: str) -> Kind | None:
        parameters = key.args
        plain = [parameter.arg for parameter in parameters.args]
        if len(plain) != 1 or ast.unparse(parameters) != plain[0] or plain[0] in self.taken:
            self.refuse(key, "the key", "must take one replica and nothing else", "`key=lambda r: x`")
            return None
        if isinstance(source, ast.Name) and source.id == self.replicas:
            chosen: Kind | None = Kind.VIEW
        else:
            chosen = self._generator(source, (Kind.VIEW,), name)
        with self.loop(key), self._binding([(plain[0], Kind.VIEW)]):
            value = self.numeric(key.body, "a key")
        return Kind.VIEW if chosen and value else None

    def _generator(self, node: ast.expr, wanted: tuple[Kind, ...], name: str) -> Kind | None:
        form = f"`{name}(r.running for r in replicas if r.kv_use < 0.9)`"
        if not isinstance(node, ast.GeneratorExp) or len(node.generators) != 1 or node.generators[0].is_async:
            self.refuse(node, f"what `{name}` goes over", "must be replicas or one generator over them", form)
            return None
        clause = node.generators[0]
        names = loop_targets(clause.target, clause.iter, self.replicas)
        if names is None or any(bound in self.taken for bound, _ in names):
            self.refuse(node, "the generator", "must go over replicas, or enumerate(replicas)", form)
            return None
        with self.loop(node), self._binding(names):
            for condition in clause.ifs:
                self.condition(condition, "a condition of the generator")
            what = "a replica" if wanted == (Kind.VIEW,) else "a number"
            return self._one_of(node.elt, wanted, f"what `{name}` collects", what, form)
