"""Which global names a statement binds and uses, and how to rename them.

Crossing two programs means moving functions between them, so a name that means something else in the other program
has to be renamed wherever it is the global, and nowhere that it is a local of the same spelling. What is parsed here is
part of a policy that was admitted (`policy.admission`), or of our own making.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True, slots=True)
class GlobalNames:
    """Global names of one top-level statement."""

    binds: frozenset[str]
    uses: frozenset[str]
    """Names it reads that are no locals of its own; builtins are among them."""


def global_names(statement: ast.stmt) -> GlobalNames:
    visitor = _Globals({})
    visitor.visit(ast.parse(ast.unparse(statement)).body[0])
    return GlobalNames(frozenset(visitor.binds), frozenset(visitor.uses))


def rename_globals(text: str, names: Mapping[str, str]) -> str:
    """The statements of `text` with these globals renamed; locals and attributes of the same spelling stay."""
    return ast.unparse(_Globals(names).visit(ast.parse(text)))


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Descendants within the scope that `node` opens; of scopes inside it only what they bind here."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*_FUNCTIONS, ast.ClassDef)):
            yield child
        elif isinstance(child, _COMPREHENSIONS):
            yield from (inner.target for inner in ast.walk(child) if isinstance(inner, ast.NamedExpr))
        elif not isinstance(child, ast.Lambda):
            yield child
            yield from _own_nodes(child)


def _names_bound(node: ast.AST) -> set[str]:
    """Names that `node` binds in the scope it stands in."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return {name}
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
            return {name}
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return {name}
        case ast.MatchMapping(rest=str(name)):
            return {name}
        case ast.alias(name=name, asname=asname):
            return {asname or name.split(".")[0]}
    return set()


def _locals_of(node: ast.AST) -> set[str]:
    nodes = list(_own_nodes(node))
    bound = {name for child in nodes for name in _names_bound(child)}
    declared = {name for child in nodes if isinstance(child, ast.Global | ast.Nonlocal) for name in child.names}
    return bound - declared


class _Globals(ast.NodeTransformer):
    """Walks scopes; renames what is global and notes it."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.binds: set[str] = set()
        self.uses: set[str] = set()
        self._scopes: list[tuple[bool, set[str]]] = []

    def _is_global(self, name: str) -> bool:
        # A class body hides its names from the functions inside it, so only the innermost class counts.
        enclosing = any(name in names for is_class, names in self._scopes[:-1] if not is_class)
        return not enclosing and not (self._scopes and name in self._scopes[-1][1])

    def _bind(self, name: str) -> str:
        if not self._is_global(name):
            return name
        self.binds.add(name)
        return self.names.get(name, name)

    def _inside(self, node: ast.AST, is_class: bool, names: set[str], fields: tuple[str, ...]) -> None:
        self._scopes.append((is_class, names))
        for field in fields:
            value = getattr(node, field)
            setattr(node, field, [self.visit(item) for item in value] if isinstance(value, list) else self.visit(value))
        self._scopes.pop()

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if isinstance(node.ctx, ast.Load):
            if not self._is_global(node.id):
                return node
            self.uses.add(node.id)
            return ast.Name(self.names.get(node.id, node.id), node.ctx)
        return ast.Name(self._bind(node.id), node.ctx)

    def visit_Global(self, node: ast.Global) -> ast.AST:
        self.uses.update(node.names)
        return ast.Global([self.names.get(name, name) for name in node.names])

    def visit_alias(self, node: ast.alias) -> ast.AST:
        bound = node.asname or node.name.split(".")[0]
        renamed = self._bind(bound)
        return node if renamed == bound else ast.alias(node.name, renamed)

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        for argument in (*node.posonlyargs, *node.args, *node.kwonlyargs, node.vararg, node.kwarg):
            if argument is not None and argument.annotation is not None:
                argument.annotation = self.visit(argument.annotation)
        node.defaults = [self.visit(value) for value in node.defaults]
        node.kw_defaults = [None if value is None else self.visit(value) for value in node.kw_defaults]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.decorator_list = [self.visit(item) for item in node.decorator_list]
        node.returns = None if node.returns is None else self.visit(node.returns)
        self.visit(node.args)
        node.name = self._bind(node.name)
        self._inside(node, False, _locals_of(node), ("body",))
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self.visit(node.args)
        self._inside(node, False, _locals_of(node), ("body",))
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list = [self.visit(item) for item in node.decorator_list]
        node.bases = [self.visit(item) for item in node.bases]
        node.keywords = [self.visit(item) for item in node.keywords]
        node.name = self._bind(node.name)
        self._inside(node, True, _locals_of(node), ("body",))
        return node

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> ast.AST:
        # The first iterable is evaluated outside; everything else sees the loop variables.
        first = node.generators[0]
        outer = self.visit(first.iter)
        first.iter = ast.Constant(None)
        bound = {name for part in node.generators for child in ast.walk(part.target) for name in _names_bound(child)}
        fields = ("key", "value", "generators") if isinstance(node, ast.DictComp) else ("elt", "generators")
        self._inside(node, False, bound, fields)
        first.iter = outer
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension
