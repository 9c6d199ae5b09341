"""A policy's source and its identity.

Two texts that differ in layout, comments or docstrings alone are one policy: identity is the hash of the parsed and
rewritten source together with the number of the interface it was written for.
"""

from __future__ import annotations

import ast
import hashlib
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from autopoiesis.errors import PolicyError
from autopoiesis.policy.refusal import Refusal
from autopoiesis.policy.scan import scan
from autopoiesis.policy.version import INTERFACE

SOURCE_BYTES = 64 * 1024
"""Largest policy module."""


def unfit(text: str) -> Refusal | None:
    """What is refused of a text before anything parses it: one that is too long, or by `scan`."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return Refusal(1, "the text", "holds lone surrogates and is no valid Unicode", "UTF-8")
    if size > SOURCE_BYTES:
        return Refusal(1, "the module", f"has {size} bytes, at most {SOURCE_BYTES} are allowed", "a shorter module")
    return scan(text)


def parse_policy(text: str) -> ast.Module | Refusal:
    """The module's syntax tree, or the reason why there is none. The text may be hostile: `unfit` sees to it first."""
    if (refusal := unfit(text)) is not None:
        return refusal
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        return Refusal(error.lineno or 1, "the syntax", f"is wrong: {error.msg}", "valid Python 3.11")
    except (RecursionError, MemoryError):
        return Refusal(1, "the module", "is nested too deeply to be parsed", "flatter expressions and blocks")
    except ValueError as error:
        return Refusal(1, "the text", f"cannot be parsed: {error}", "plain text without null characters")


@dataclass(frozen=True, slots=True)
class _Facts:
    identity: str
    summary: str
    functions: frozenset[str]


@dataclass(frozen=True)
class PolicySource:
    """The text of a policy module under a name for people. Every property raises PolicyError if it does not parse.

    The properties parse it in this process: a text from outside is to be admitted first (`policy.admission`).
    """

    name: str
    text: str

    @cached_property
    def identity(self) -> str:
        """16 hexadecimal digits: equal for texts that differ in layout, comments and docstrings only."""
        return self._facts.identity

    @cached_property
    def summary(self) -> str:
        """The first line of the module's docstring, empty without one."""
        return self._facts.summary

    def has(self, function_name: str) -> bool:
        """Whether the module defines the function at its top level."""
        return function_name in self._facts.functions

    @cached_property
    def _facts(self) -> _Facts:
        """All that the syntax tree is asked for, so that it is made once."""
        tree = self._parse()
        lines = (ast.get_docstring(tree) or "").splitlines()
        functions = frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))
        try:
            normalised = ast.unparse(_Undocumented().visit(tree))
        except (RecursionError, MemoryError) as error:
            raise PolicyError(f"policy {self.name}: line 1: it is nested too deeply; write it flatter") from error
        identity = hashlib.sha256(f"interface {INTERFACE}\n{normalised}".encode()).hexdigest()[:16]
        return _Facts(identity, lines[0].strip() if lines else "", functions)

    def _parse(self) -> ast.Module:
        tree = parse_policy(self.text)
        if isinstance(tree, Refusal):
            raise PolicyError(f"policy {self.name}: {tree}")
        return tree


def read_policy(path: Path) -> PolicySource:
    """Read a policy module; its name is the file's without `.py`.

    Raises PolicyError if the file is missing, no file, larger than 64 KiB or not UTF-8. It need not parse.
    """
    try:
        with path.open("rb") as file:
            content = file.read(SOURCE_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read: {error.strerror}; give the path of a policy module") from error
    if len(content) > SOURCE_BYTES:
        raise PolicyError(f"{path}: larger than {SOURCE_BYTES} bytes; a policy module must be shorter")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise PolicyError(f"{path}: line {line}: not UTF-8; save the file as UTF-8") from error
    return PolicySource(path.stem, text)


class _Undocumented(ast.NodeTransformer):
    """Leaves docstrings out; a body that was nothing else becomes `pass`."""

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._without(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._without(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._without(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._without(node)

    def _without(self, node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        if not node.body and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]
        return node
