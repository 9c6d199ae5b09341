"""Policy modules taken apart and put together again.

A module is a list of top-level statements. An *entry* is a function of the policy interface; what it needs are the
helpers, constants and imports it reaches. Moving an entry to another module moves all of that, renamed where the
other module means something else by the name. Entries find each other by name: a trigger that calls `plan` calls
the planner it now lives with.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autopoiesis.errors import PolicyError
from autopoiesis.evolve.scopes import global_names, rename_globals

ENTRIES = frozenset({"should_reschedule", "plan", "route", "priority", "adopt"})
REQUIRED = frozenset({"should_reschedule", "plan"})


@dataclass(frozen=True, slots=True)
class Item:
    """One top-level statement (of an import, one name of it), normalised."""

    text: str
    binds: frozenset[str]
    uses: frozenset[str]


@dataclass(frozen=True, slots=True)
class Module:
    """A policy without its docstring and its `interface` line."""

    doc: str
    items: tuple[Item, ...]

    @property
    def entries(self) -> frozenset[str]:
        return frozenset(name for item in self.items for name in item.binds & ENTRIES)


def _item(statement: ast.stmt) -> Item:
    names = global_names(statement)
    return Item(ast.unparse(statement), names.binds, names.uses)


def _split(statement: ast.stmt) -> list[ast.stmt]:
    match statement:
        case ast.Import(names=aliases):
            return [ast.Import([alias]) for alias in aliases]
        case ast.ImportFrom(module=module, names=aliases, level=level):
            return [ast.ImportFrom(module, [alias], level) for alias in aliases]
    return [statement]


def parse_module(text: str, name: str = "policy", required: frozenset[str] = REQUIRED) -> Module:
    """Take apart the source of a policy that was admitted (`policy.admission`), or is the library's or our own.

    Raises PolicyError when it does not parse or lacks a required function.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise PolicyError(f"policy {name!r} does not parse: {error}") from error
    doc = ast.get_docstring(tree) or ""
    items = [
        _item(part)
        for statement in tree.body
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for part in _split(statement)
    ]
    module = Module(doc, tuple(item for item in items if item.binds != {"interface"}))
    missing = required - module.entries
    if missing:
        raise PolicyError(f"policy {name!r} lacks {' and '.join(sorted(missing))}; a policy defines both")
    return module


def rename(item: Item, names: Mapping[str, str]) -> Item:
    if not names.keys() & (item.binds | item.uses):
        return item
    return _item(ast.parse(rename_globals(item.text, names)).body[0])


def reachable(module: Module, roots: Iterable[str], linked: frozenset[str] = frozenset()) -> tuple[Item, ...]:
    """Items that the roots need, in their order; names in `linked` are not followed unless they are roots.

    A statement that binds nothing, as one that fills a table, belongs to whatever it mentions.
    """
    pending, seen = list(roots), set(linked)
    found = {position for position, item in enumerate(module.items) if _future(item)}
    while pending:
        name = pending.pop()
        for position, item in enumerate(module.items):
            if position not in found and name in (item.binds or item.uses):
                found.add(position)
                fresh = (item.uses | item.binds) - seen
                seen |= fresh
                pending.extend(fresh)
    return tuple(module.items[position] for position in sorted(found))


def identifiers(items: Iterable[Item]) -> set[str]:
    """Every word in these items: a superset of all names, locals included."""
    return {word for item in items for word in re.findall(r"\w+", item.text)}


def fresh_name(name: str, taken: set[str]) -> str:
    """`name` if nobody has it, else with the first free number behind it."""
    if name not in taken:
        return name
    stem = re.sub(r"_\d+$", "", name)
    number = 2
    while f"{stem}_{number}" in taken:
        number += 1
    return f"{stem}_{number}"


def _future(item: Item) -> bool:
    return item.text.startswith("from __future__ ")


def _dotted_import(item: Item) -> bool:
    return item.text.startswith("import ") and " as " not in item.text


def merge(kept: tuple[Item, ...], taken: tuple[Item, ...]) -> tuple[Item, ...]:
    """Both in one module: items that are equal are shared, names of `taken` that clash are renamed."""
    texts = {item.text for item in kept}
    bound = {name for item in kept if not _dotted_import(item) for name in item.binds}
    clashes = {name for item in taken if item.text not in texts for name in item.binds & bound}
    # An item equal to one of ours still differs when it reaches something that had to be renamed.
    while more := {
        name for item in taken if item.text in texts and item.uses & clashes for name in item.binds - clashes
    }:
        clashes |= more
    if any(_dotted_import(item) and "." in item.text and item.binds & clashes for item in taken):
        raise PolicyError("an import of a package's part clashes with a name of the other policy; import it `as`")
    words = identifiers((*kept, *taken))
    names: dict[str, str] = {}
    for name in sorted(clashes):
        names[name] = fresh_name(name, words)
        words.add(names[name])
    moved = tuple(rename(item, names) for item in taken)
    return kept + tuple(item for item in moved if item.text not in texts)


def graft(host: Module, donor: Module, entries: frozenset[str]) -> Module:
    """`host` with these entries as `donor` has them; one that the donor lacks is dropped."""
    keep, take = host.entries - entries, donor.entries & entries
    kept = reachable(host, sorted(keep), keep | take)
    return Module(host.doc, merge(kept, reachable(donor, sorted(take), keep | take)))


def renamed_entry(module: Module, entry: str, name: str) -> Module:
    """The module with one entry's function under another name; calls from elsewhere still mean the entry."""
    items = tuple(rename(item, {entry: name}) if entry in item.binds else item for item in module.items)
    return Module(module.doc, items)


def wrap(host: Module, entry: str, inner: str, wrapper: str, beside: tuple[Item, ...] = ()) -> Module:
    """Put `wrapper` (source defining `entry`, calling `inner`) around the host's own function, renamed to `inner`.

    `beside` are items the wrapper needs from elsewhere; their names must not clash with the host's.
    """
    outer = Module("", tuple(_item(part) for statement in ast.parse(wrapper).body for part in _split(statement)))
    renamed = renamed_entry(host, entry, inner)
    keep = (host.entries - {entry}) | {inner}
    kept = merge(reachable(renamed, sorted(keep), host.entries), beside)
    return Module(host.doc, merge(kept, reachable(outer, [entry], host.entries)))


def render(module: Module, doc: str) -> str:
    """A complete module text: docstring, imports, `interface`, constants, then the rest in order."""
    future = [item.text for item in module.items if _future(item)]
    imports = [item for item in module.items if item.text.startswith(("import ", "from ")) and not _future(item)]
    plain = sorted(item.text for item in imports if item.text.startswith("import "))
    grouped: dict[str, set[str]] = {}
    for item in imports:
        if item.text.startswith("from "):
            origin, _, name = item.text.partition(" import ")
            grouped.setdefault(origin, set()).add(name)
    lines = plain + [f"{origin} import {', '.join(sorted(names))}" for origin, names in sorted(grouped.items())]
    others = [item for item in module.items if item not in imports and item.text not in future]
    constants = [item.text for item in others if not item.uses and not item.text.startswith(("def ", "class ", "@"))]
    rest = [item.text for item in others if item.text not in constants]
    blocks = ["\n".join([repr_doc(doc), *sorted(set(future))]), "\n".join(lines), "interface = 1", "\n".join(constants)]
    return "\n\n".join(block for block in blocks if block) + "".join(f"\n\n\n{text}" for text in rest) + "\n"


def repr_doc(doc: str) -> str:
    """A one-line docstring literal."""
    line = " ".join(doc.split()).replace("\\", "/").replace('"', "'")
    return f'"""{line}"""'
