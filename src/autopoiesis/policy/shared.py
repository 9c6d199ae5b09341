"""What a policy can reach that outlives a call: functions and classes of ours and of libraries, put back as they were.

The checker refuses to set attributes of anything but `self`, and goes by that name; a method called with something
else for `self` gets past it. What it has set there is gone before the next call.
"""

from __future__ import annotations

import dis
import importlib
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any

from autopoiesis.policy.allowed import STANDARD_MODULES, reachable

MODULES = (*STANDARD_MODULES, "numpy", "numpy.linalg", "numpy.random", "autopoiesis.policy", "autopoiesis.policy.tools")
HEAP_TYPE = 1 << 9
"""`Py_TPFLAGS_HEAPTYPE`: a class made by Python code, or like one."""
_SETTING = frozenset({"STORE_ATTR", "DELETE_ATTR"})


def sets_attributes(code: CodeType) -> bool:
    """Whether anything in a module sets or deletes an attribute: after most policies there is nothing to clean up."""
    if any(instruction.opname in _SETTING for instruction in dis.get_instructions(code)):
        return True
    return any(sets_attributes(inner) for inner in code.co_consts if isinstance(inner, CodeType))


class Shared:
    """How everything shared was before a policy ran."""

    def __init__(self) -> None:
        self._before = [(thing, dict(vars(thing))) for thing in _reached()]

    def restore(self) -> None:
        """Undo what has been set, replaced or deleted since."""
        for thing, before in self._before:
            now: Mapping[str, Any] = vars(thing)
            if now.keys() == before.keys() and all(now[name] is value for name, value in before.items()):
                continue
            for name in now.keys() - before.keys():
                delattr(thing, name)
            for name, value in before.items():
                if now.get(name) is not value:
                    setattr(thing, name, value)


def _reached() -> Iterator[Any]:
    """Functions and classes of the listed modules, and the functions of these classes, each once."""
    seen: set[int] = set()
    for module in MODULES:
        for name in sorted(reachable(module) or ()):
            thing = getattr(importlib.import_module(module), name, None)
            # numpy wraps its functions; the wrapped one is within reach
            parts = list(vars(thing).values()) if isinstance(thing, type) else [getattr(thing, "_implementation", None)]
            for part in (thing, *parts):
                if id(part) not in seen and _settable(part):
                    seen.add(id(part))
                    yield part


def _settable(thing: Any) -> bool:
    """Whether attributes of it can be set: those of classes that are written in C cannot."""
    if isinstance(thing, type):
        return bool(thing.__flags__ & HEAP_TYPE)
    return isinstance(getattr(thing, "__dict__", None), dict)
