"""The first gate: what of a policy's source is refused before anything of it runs.

`route` and `priority` must pass the positive grammar, which is what makes them safe to compile. All the rest is a lint
in front of the wall: it saves honest authors from code that the policy host would stop anyway, and tells them what to
write; it does not make hostile code safe to run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from autopoiesis.errors import unknown_name
from autopoiesis.policy.allowed import (
    REFUSED_ATTRIBUTES,
    REFUSED_BUILTINS,
    SPECIAL_METHODS,
    STANDARD_MODULES,
    reachable,
)
from autopoiesis.policy.bound import over_budget
from autopoiesis.policy.grammar import COMPILED, bindings, function_of, typed_function
from autopoiesis.policy.nodes import parts, walk
from autopoiesis.policy.refusal import Refusal, refuse
from autopoiesis.policy.source import parse_policy
from autopoiesis.policy.version import INTERFACE

__all__ = ["Refusal", "check_policy"]

REQUIRED = {"should_reschedule": "state", "plan": "state"}
OPTIONAL = {"adopt": "memory"}

MOST_REFUSALS = 20

STATEMENTS = "imports, constants, functions and small classes"


def check_policy(text: str) -> list[Refusal]:
    """Everything that is refused in a policy module, in the order of its lines, at most 20; empty if it may go on."""
    tree = parse_policy(text)
    if isinstance(tree, Refusal):
        return [tree]
    try:
        return sorted(set(_refusals(tree, text)))[:MOST_REFUSALS]
    except RecursionError:
        return [Refusal(1, "the module", "is nested too deeply", "flatter expressions and blocks")]


def _refusals(tree: ast.Module, text: str) -> Iterator[Refusal]:
    yield from _module_level(tree, text)
    yield from _functions(tree)
    compiled = [node for name in COMPILED if (node := function_of(tree, name)) is not None]
    yield from _Lint(tree).refusals(skip=compiled)
    for node in compiled:
        typed = typed_function(tree, node.name, text)
        if isinstance(typed, list):
            yield from typed
        elif (costly := over_budget(typed)) is not None:
            yield costly


def _module_level(tree: ast.Module, text: str) -> Iterator[Refusal]:
    interface = []
    for position, statement in enumerate(tree.body):
        match statement:
            case ast.Expr(value=ast.Constant(value=str())) if position == 0:
                pass
            case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.ClassDef(keywords=[]):
                pass
            case ast.Assign(targets=[ast.Name(id="interface")], value=value):
                interface.append((statement, value))
            case ast.Assign(targets=[ast.Name()]) | ast.AnnAssign(target=ast.Name(), value=ast.expr()):
                pass
            case _:
                first_line = ast.unparse(statement).partition("\n")[0][:60]
                yield refuse(statement, f"`{first_line}`", "does not belong at module level", STATEMENTS)
    match interface:
        case [(_, ast.Constant(value=int() as number))] if number == INTERFACE and number is not True:
            pass
        case []:
            yield Refusal(1, "the module", "does not say which interface it is for", f"`interface = {INTERFACE}`")
        case [*_, (statement, _)]:
            yield refuse(statement, "`interface`", "is not the one number there is", f"`interface = {INTERFACE}` once")
    for node in _outside_functions(tree) if ":=" in text else ():
        if isinstance(node, ast.NamedExpr):
            yield refuse(node, "`:=` at module level", "hides an assignment", "an assignment on a line of its own")


def _outside_functions(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes that run when the module is loaded."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [*node.decorator_list, node.args, *([node.returns] if node.returns else [])]
        elif isinstance(node, ast.Lambda):
            waiting.append(node.args)
        else:
            waiting += parts(node)[0]


def _functions(tree: ast.Module) -> Iterator[Refusal]:
    found = bindings(tree)
    for name in (*REQUIRED, *OPTIONAL, *COMPILED):
        node = function_of(tree, name)
        if found.get(name, [None]) != [node]:
            yield refuse(found[name][-1], f"`{name}`", "is not one plain function", f"one `def {name}`")
        parameter = (REQUIRED | OPTIONAL).get(name)
        if node is None and name in REQUIRED:
            yield Refusal(1, "the module", f"does not define `{name}`", f"`def {name}({parameter}):`")
        if node is None or parameter is None:
            continue
        form = f"`def {name}({parameter}):`"
        arguments = node.args
        extra = arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.defaults
        if len(arguments.args) + len(arguments.posonlyargs) != 1 or extra:
            yield refuse(node, f"`{name}`", "takes exactly one parameter", form)
        if node.decorator_list:
            yield refuse(node, f"`{name}`", "has a decorator", form)
        if any(isinstance(part, ast.Yield | ast.YieldFrom) for part in walk(node)):
            yield refuse(node, f"`{name}`", "is a generator and answers nothing", "`return`")


class _Lint:
    """Names, attributes and imports of a whole module."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.modules: dict[str, str] = {}
        """Names that stand for a module, with its full name."""
        self.imported: set[str] = set()
        self.own = _own_attributes(tree)

    def refusals(self, skip: list[ast.FunctionDef]) -> Iterator[Refusal]:
        for statement in self.tree.body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                yield from self._import(statement)
        top = set(self.tree.body)
        waiting: list[ast.AST] = [node for node in self.tree.body if node not in skip]
        while waiting:
            node = waiting.pop()
            nested = isinstance(node, ast.Import | ast.ImportFrom) and node not in top
            if nested:
                yield refuse(node, "an import inside a function or class", "is hidden", "it at the top of the module")
            if isinstance(node, ast.Import | ast.ImportFrom):
                continue
            if isinstance(node, _LOOKED_AT):
                yield from self._node(node)
            inner, identifiers = parts(node)
            for name in identifiers:
                special = isinstance(node, ast.FunctionDef | ast.Name) and name in SPECIAL_METHODS
                if _dunder(name) and not special:
                    yield refuse(node, f"`{name[:40]}`", "is a name of the interpreter's own", "a name of your own")
            # The name of a module in front of a dot has been looked at.
            if not (isinstance(node, ast.Attribute) and self._module(node.value) is not None):
                waiting += inner

    def _module(self, node: ast.expr) -> str | None:
        """The module that an expression stands for."""
        if isinstance(node, ast.Name):
            return self.modules.get(node.id)
        if isinstance(node, ast.Attribute) and (outer := self._module(node.value)) is not None:
            inner = f"{outer}.{node.attr}"
            return inner if inner in ("numpy.linalg", "numpy.random") else None
        return None

    def _import(self, node: ast.Import | ast.ImportFrom) -> Iterator[Refusal]:
        if any(_dunder(alias.asname or "") for alias in node.names):
            yield refuse(node, "this import", "binds a name of the interpreter's own", "a name of your own")
        listed = f"one of {', '.join(STANDARD_MODULES)}, numpy, or `from autopoiesis.policy import ...`"
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in STANDARD_MODULES or alias.name == "numpy":
                    self.modules[alias.asname or alias.name] = alias.name
                elif alias.name.startswith("autopoiesis"):
                    yield refuse(
                        node,
                        f"`import {alias.name}`",
                        "takes more than the interface",
                        "`from autopoiesis.policy import ...`",
                    )
                else:
                    yield refuse(node, f"`import {alias.name[:40]}`", "is not on the list of imports", listed)
            self.imported.update(alias.asname or alias.name for alias in node.names)
            return
        if node.module == "__future__" and [alias.name for alias in node.names] == ["annotations"]:
            return
        known = reachable(node.module or "") if node.level == 0 else None
        if known is None or node.module == "autopoiesis.policy.tools":
            shown = "." * node.level + (node.module or "")[:40]
            yield refuse(node, f"`from {shown} import ...`", "is not on the list of imports", listed)
            return
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            if alias.name not in known:
                why = (
                    f"is not to be had: {unknown_name('name', alias.name, known)}" if len(known) < 40 else "is refused"
                )
                yield refuse(node, f"`{full[:60]}`", why, "one of the listed names")
            elif full in ("autopoiesis.policy.tools", "numpy.linalg", "numpy.random"):
                self.modules[alias.asname or alias.name] = full
            self.imported.add(alias.asname or alias.name)

    def _node(self, node: ast.AST) -> Iterator[Refusal]:
        match node:
            case ast.Attribute():
                yield from self._attribute(node)
            case ast.Name(id=name) if name in self.modules:
                yield refuse(node, f"the module `{name}` as a value", "hides what is used of it", f"`{name}.something`")
            case ast.Name(id=name) if name in REFUSED_BUILTINS and not _dunder(name):
                yield refuse(node, f"`{name}`", "is not available in a policy", _mend(name))
            case ast.Global() | ast.Nonlocal():
                yield refuse(
                    node, "`global` and `nonlocal`", "are refused: module globals are not kept", "`state.memory`"
                )
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                yield refuse(node, "`async` and `await`", "are refused", "plain functions")
            case ast.ExceptHandler(type=None):
                yield refuse(node, "a bare `except:`", "would swallow the deadline", "`except Exception:`")
            case ast.MatchClass(kwd_attrs=names) if not REFUSED_ATTRIBUTES.isdisjoint(names):
                yield refuse(node, "a class pattern", "asks for a refused attribute", "a plain condition")
            case ast.Call(func=ast.Attribute(attr="default_rng") | ast.Name(id="default_rng"), args=[], keywords=[]):
                yield refuse(node, "`default_rng()`", "has no seed", "`default_rng(int(state.now_s))`")

    def _attribute(self, node: ast.Attribute) -> Iterator[Refusal]:
        if not isinstance(node.ctx, ast.Load) and node not in self.own:
            # By another name it may be a function or a class of ours, which the next call finds changed.
            yield refuse(
                node,
                f"setting `{ast.unparse(node)[:60]}`",
                "may change what others use",
                "`self.name` in a method, or a new value",
            )
        module = self._module(node.value)
        if module is None:
            if node.attr in REFUSED_ATTRIBUTES:
                yield refuse(node, f"`.{node.attr}`", "is refused on every object", _mend(node.attr))
            return
        known = reachable(module) or frozenset()
        if node.attr not in known:
            why = "is not on the list" if len(known) > 60 else unknown_name("name", node.attr, known)
            yield refuse(node, f"`{module}.{node.attr}`", f"is refused: {why}", "one of the listed names")
        elif f"{module}.{node.attr}" in ("numpy.linalg", "numpy.random"):
            yield refuse(node, f"`{module}.{node.attr}` as a value", "hides what is used of it", "a function of it")


def _own_attributes(tree: ast.Module) -> set[ast.AST]:
    """Attributes that methods set on their own instance, and on nothing behind it."""
    found: set[ast.AST] = set()
    for outer in walk(tree):
        for method in outer.body if isinstance(outer, ast.ClassDef) else ():
            if not isinstance(method, ast.FunctionDef) or method.decorator_list:
                continue
            first = [*method.args.posonlyargs, *method.args.args][:1]
            inside = list(walk(method))
            binding = [node for node in inside if "self" in parts(node)[1] and not _reads(node)]
            if binding == first:
                found.update(
                    node
                    for node in inside
                    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
                )
    return found


def _reads(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)


def _dunder(name: str) -> bool:
    return name.startswith("__")


_LOOKED_AT = (
    ast.Attribute, ast.Name, ast.Global, ast.Nonlocal, ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith,
    ast.ExceptHandler, ast.MatchClass, ast.Call,
)  # fmt: skip
"""Nodes that `_Lint` has something to say about."""


def _mend(name: str) -> str:
    return {
        "format": "an f-string",
        "estimator": "`state.estimate(plan)` or `state.transition(plan)`",
        "getattr": "the attribute itself",
        "hasattr": "the attribute itself",
        "setattr": "a new value, such as `ServingPlan(replicas)`",
        "print": "what shall be kept into the memory of the decision",
        "BaseException": "`Exception`",
        "type": "`isinstance`",
        "sys": "nothing",
    }.get(name, "only what the interface and the listed modules offer")
