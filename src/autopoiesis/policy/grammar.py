"""The positive grammar of `route` and `priority`: what is not named here or in `expressions` is refused.

A function that passes always ends (it loops over replicas only), reads every local after assigning it, returns on
every path, and costs a bounded number of operations; its kinds let it compile to machine code and be interpreted with
one meaning. `typed_function` is the way in.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from autopoiesis.policy.expressions import ExpressionKinds
from autopoiesis.policy.kinds import RESERVED, Kind, joined, loop_targets
from autopoiesis.policy.nodes import extent, walk
from autopoiesis.policy.refusal import Refusal, refuse

FUNCTION_BYTES = 16_000
FUNCTION_NODES = 2_000
FUNCTION_DEPTH = 30
INFERENCE_ROUNDS = 10
"""Kinds settle in the order of the text; each local through which a literal only later meets a float takes one more."""

LINE_END = re.compile(r"\r\n|\r|\n")
"""What Python's parser counts as the end of a line; `str.splitlines` knows more."""

COMPILED = {"route": ("request", "replicas"), "priority": ("request",)}
"""The functions this grammar is for, with their parameters."""

ANNOTATIONS = {"request": "Request", "replicas": "list[ReplicaView]", "route": "int", "priority": "float"}

IN_PLACE = (ast.Add, ast.Sub, ast.Mult, ast.Div)
"""Operators of in-place assignment."""

LANGUAGE = "assignment, `if`, `for` over replicas, `break`, `continue` or `return`"

MENDS = {
    ast.While: "`for r in replicas`",
    ast.AnnAssign: "the assignment without its annotation",
    ast.Pass: "a branch that does something",
    ast.Try: "a condition; arithmetic never raises here",
    ast.FunctionDef: "the expression in place",
    ast.Import: "the listed functions, which need no import",
    ast.ImportFrom: "the listed functions, which need no import",
    ast.Expr: "an assignment or a `return`",
    ast.Assert: "an `if` that returns",
    ast.Raise: "`return SHED` or `return HOLD`",
}


@dataclass(frozen=True)
class TypedFunction:
    """A function that passed, `x += y` already written out as `x = x + y`."""

    node: ast.FunctionDef
    body: list[ast.stmt]
    """Its statements without the docstring."""
    request: str
    replicas: str | None
    kinds: dict[ast.expr, Kind]
    """The kind of every expression that is a value."""
    local_kinds: dict[str, Kind]
    constants: dict[str, float | bool]
    """Numeric module constants by name."""


def function_of(tree: ast.Module, name: str) -> ast.FunctionDef | None:
    """The last module-level definition of a function."""
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return found[-1] if found else None


def bindings(tree: ast.Module) -> dict[str, list[ast.AST]]:
    """Where the module binds each name outside its functions, in the order of the text."""
    found: defaultdict[str, list[ast.AST]] = defaultdict(list)
    for statement in tree.body:
        match statement:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AsyncFunctionDef(name=name):
                found[name].append(statement)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                for alias in aliases:
                    found[(alias.asname or alias.name).partition(".")[0]].append(statement)
            case ast.Assign(targets=[ast.Name(id=name) as target], value=ast.Constant()):
                found[name].append(target)
            case _:
                for node in walk(statement):
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                        found[node.id].append(node)
    return dict(found)


def numeric_constants(tree: ast.Module) -> dict[str, float | bool]:
    """Module constants that are one numeric literal, with or without a sign, and bound once."""
    constants: dict[str, float | bool] = {}
    found = bindings(tree)
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if len(found[name]) == 1:
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if len(found[name]) == 1:
                pass
            case _:
                continue
        match value:
            case ast.Constant(value=bool() | float() | int() as number):
                constants[name] = number
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                constants[name] = -number
    return constants


def typed_function(tree: ast.Module, name: str, text: str) -> TypedFunction | list[Refusal]:
    """Check `route` or `priority` of a parsed module.

    The module must define it. The tree is changed: in-place assignments are written out.
    """
    node = function_of(tree, name)
    assert node is not None
    refusals = _size(node, text)
    if refusals:
        return refusals
    refusals = [*_signature(node), *_shadows(tree)]
    parameters = [parameter.arg for parameter in node.args.args]
    if len(parameters) != len(COMPILED[name]):
        return refusals
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    _write_out(node)
    constants = numeric_constants(tree)
    unusable = {bound: "is no numeric constant" for bound in bindings(tree) if bound not in constants}
    request, replicas = parameters[0], parameters[1] if len(parameters) > 1 else None

    local_kinds: dict[str, Kind | None] = dict.fromkeys(_stored(body))
    for _ in range(INFERENCE_ROUNDS):
        expressions = ExpressionKinds(request, replicas, constants, unusable, local_kinds)
        flow = _Flow(expressions, name)
        end = flow.block(body, frozenset())
        found = {local: flow.found.get(local) for local in local_kinds}
        if found == local_kinds:
            break
        local_kinds = found
    else:
        why = "take their kinds from each other in too long a chain"
        expressions.refuse(node, "locals", why, "`0.0` for a local that shall be a float")
    if end is not None:
        why = "can end without an answer"
        answer = "`return HOLD` or an index" if name == "route" else "`return 0.0`"
        expressions.refuse(node.body[-1], f"`{name}`", why, f"a `return` on every path, such as {answer}")
    refusals += expressions.refusals
    if refusals:
        return refusals
    known = {local: kind for local, kind in local_kinds.items() if kind is not None}
    return TypedFunction(node, body, request, replicas, expressions.kinds, known, constants)


def _size(node: ast.FunctionDef, text: str) -> list[Refusal]:
    lines = LINE_END.split(text)[node.lineno - 1 : node.end_lineno]
    nodes, depth = extent(node)
    limits = (
        ("bytes", len("\n".join(lines).encode()), FUNCTION_BYTES),
        ("nodes", nodes, FUNCTION_NODES),
        ("levels of nesting", depth, FUNCTION_DEPTH),
    )
    return [
        refuse(node, f"`{node.name}`", f"has {size} {unit}, at most {limit} are allowed", "a shorter function")
        for unit, size, limit in limits
        if size > limit
    ]


def _signature(node: ast.FunctionDef) -> Iterator[Refusal]:
    wanted = COMPILED[node.name]
    shown = ", ".join(f"{parameter}: {ANNOTATIONS[parameter]}" for parameter in wanted)
    form = f"`def {node.name}({shown}) -> {ANNOTATIONS[node.name]}:`"
    if tuple(parameter.arg for parameter in node.args.args) != wanted:
        yield refuse(node, f"`{node.name}`", f"must have the parameters {', '.join(wanted)}", form)
    arguments = node.args
    if arguments.posonlyargs or arguments.kwonlyargs or arguments.vararg or arguments.kwarg or arguments.defaults:
        yield refuse(node, f"`{node.name}`", "must have plain parameters without defaults", form)
    if node.decorator_list or getattr(node, "type_params", None):
        yield refuse(node, f"`{node.name}`", "must have no decorators and no type parameters", form)
    notes = [(parameter.annotation, ANNOTATIONS.get(parameter.arg)) for parameter in arguments.args]
    for annotation, allowed in [*notes, (node.returns, ANNOTATIONS[node.name])]:
        if annotation is not None and ast.unparse(annotation) != allowed:
            yield refuse(annotation, f"the annotation `{ast.unparse(annotation)[:40]}`", "is not the one shown", form)


def _shadows(tree: ast.Module) -> Iterator[Refusal]:
    """Names of the language that the module gives another meaning; importing them as what they are is fine."""
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and statement.module in ("math", "autopoiesis.policy"):
            names = {alias.asname for alias in statement.names if alias.asname not in (None, alias.name)}
        else:
            names = set(bindings(ast.Module([statement], [])))
        for name in sorted(str(name) for name in names & RESERVED):
            yield refuse(statement, f"`{name}`", "has a meaning of its own in route and priority", "another name")


def _stored(body: list[ast.stmt]) -> Iterator[str]:
    """Names that statements bind; those of generators and keys are not among them."""
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]):
                yield name
            case ast.If():
                yield from _stored(statement.body)
                yield from _stored(statement.orelse)
            case ast.For():
                yield from (n.id for n in ast.walk(statement.target) if isinstance(n, ast.Name))
                yield from _stored(statement.body)


def _write_out(node: ast.FunctionDef) -> None:
    class Written(ast.NodeTransformer):
        def visit_AugAssign(self, assignment: ast.AugAssign) -> ast.AST:
            if not isinstance(assignment.target, ast.Name) or not isinstance(assignment.op, IN_PLACE):
                return assignment
            read = ast.copy_location(ast.Name(assignment.target.id, ast.Load()), assignment)
            value = ast.copy_location(ast.BinOp(read, assignment.op, assignment.value), assignment)
            return ast.copy_location(ast.Assign([assignment.target], value), assignment)

    Written().visit(node)


class _Flow:
    """Walks statements in order, knowing which locals are assigned; None stands for a point never reached."""

    def __init__(self, expressions: ExpressionKinds, function: str) -> None:
        self.expressions = expressions
        self.function = function
        self.found: dict[str, Kind | None] = {}
        self.loops = 0

    def block(self, body: list[ast.stmt], assigned: frozenset[str] | None) -> frozenset[str] | None:
        for statement in body:
            if assigned is None:
                self._refuse(statement, "this statement", "can never be reached", "nothing")
                return None
            self.expressions.assigned = assigned
            assigned = self._statement(statement, assigned)
        return assigned

    def _refuse(self, node: ast.AST, construct: str, why: str, instead: str) -> None:
        self.expressions.refuse(node, construct, why, instead)

    def _statement(self, node: ast.stmt, assigned: frozenset[str]) -> frozenset[str] | None:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._bind(node, name, self.expressions.of(value))
                return assigned | {name}
            case ast.AugAssign(target=ast.Name()):
                why = "is not part of the language"
                self._refuse(node, "this in-place operator", why, "`+= -= *= /=`, or `name = name // value`")
                return assigned
            case ast.Assign() | ast.AugAssign():
                self._refuse(node, "this assignment", "has another target than one local", "`name = value` for each")
                return assigned
            case ast.If():
                self.expressions.condition(node.test, "the condition of `if`")
                ends = [self.block(node.body, assigned), self.block(node.orelse, assigned)]
                reached = [end for end in ends if end is not None]
                return frozenset.intersection(*reached) if reached else None
            case ast.For():
                return self._for(node, assigned)
            case ast.Break() | ast.Continue() if self.loops:
                return None
            case ast.Return():
                self._return(node)
                return None
        first_line = ast.unparse(node).partition("\n")[0][:60]
        mend = MENDS.get(type(node), LANGUAGE)
        self._refuse(node, f"`{first_line}`", f"is not part of the language of {self.function}", mend)
        return assigned

    def _for(self, node: ast.For, assigned: frozenset[str]) -> frozenset[str]:
        names = loop_targets(node.target, node.iter, self.expressions.replicas)
        if names is None:
            why = "does not go over replicas"
            self._refuse(
                node,
                f"the loop over `{ast.unparse(node.iter)[:40]}`",
                why,
                "`for r in replicas` or `for i, r in enumerate(replicas)`",
            )
            return assigned
        if node.orelse:
            self._refuse(node, "`else` of a loop", "is not part of the language", "a bool local set before `break`")
        for name, kind in names:
            self._bind(node, name, kind)
        self.loops += 1
        with self.expressions.loop(node):
            self.block(node.body, assigned | {name for name, _ in names})
        self.loops -= 1
        return assigned

    def _bind(self, node: ast.AST, name: str, kind: Kind | None) -> None:
        if name in self.expressions.taken or name in self.expressions.constants:
            self._refuse(node, f"local `{name}`", "has the name of something else", "another name")
        known = self.found.get(name)
        if known is None or kind is None:
            self.found[name] = known or kind
            return
        both = joined(known, kind)
        if both is None:
            why = f"is {known} before and {kind} here; a local has one kind"
            self._refuse(node, f"local `{name}`", why, "two locals (`1.0 * i` makes a float, `floor(x)` an index)")
        # A literal that meets an index first and a float later was a float all along: so the next round takes it.
        self.found[name] = both or (Kind.FLOAT if Kind.FLOAT in (known, kind) else known)

    def _return(self, node: ast.Return) -> None:
        if node.value is None:
            self._refuse(node, "`return` alone", "gives no answer", "`return HOLD`, `return SHED` or an index")
        elif self.function == "priority":
            self.expressions.numeric(node.value, "a priority")
        else:
            self.expressions.index(node.value, "what `route` returns")
