"""From a policy module's text to its `route` and `priority` as machine code, or as Python with the same meaning.

Text passes the grammar, is written out over plain numbers (`lowering`), compiled by numba (`machine`), and becomes a
function that the event kernel and the gateway call by its address (`native`). numba is imported when something is
compiled and not before: whoever only checks or interprets policies, such as the policy host, starts without it, and
whoever serves leaves compiling to another process (`compiler`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from autopoiesis.policy.bound import count_operations, over_budget
from autopoiesis.policy.fields import FAULT
from autopoiesis.policy.grammar import TypedFunction, function_of, typed_function
from autopoiesis.policy.interface import ReplicaView, Request
from autopoiesis.policy.interpret import interpreted_priority, interpreted_route
from autopoiesis.policy.refusal import Refusal, refused
from autopoiesis.policy.source import parse_policy

if TYPE_CHECKING:
    from autopoiesis.policy.native import CompiledPriority, CompiledRoute

__all__ = [
    "FAULT",
    "compile_priority",
    "compile_route",
    "interpret_priority",
    "interpret_route",
    "object_code",
    "operations_bound",
]


def compile_route(text: str) -> CompiledRoute | None:
    """Compile the `route` of a policy module, some tenths of a second; None if it has none.

    Raises PolicyError with every refusal if the text does not parse or its `route` leaves the grammar.
    """
    code = object_code(text, "route")
    if code is None:
        return None
    from autopoiesis.policy.native import CompiledRoute

    return CompiledRoute(code)


def compile_priority(text: str) -> CompiledPriority | None:
    """Compile the `priority` of a policy module; None if it has none. Raises PolicyError as `compile_route` does."""
    code = object_code(text, "priority")
    if code is None:
        return None
    from autopoiesis.policy.native import CompiledPriority

    return CompiledPriority(code)


def object_code(text: str, function: str) -> bytes | None:
    """The object file of `route` or `priority`, for `native` to load; None if the module has no such function.

    Raises PolicyError as `compile_route` does.
    """
    typed = _checked(text, function)
    if typed is None:
        return None
    # Imported here because it costs most of a second: see the module's docstring.
    from autopoiesis.policy import machine

    return machine.object_code(typed)


def interpret_route(text: str) -> Callable[[Request, list[ReplicaView]], int] | None:
    """The `route` of a policy module run by Python, with the meaning of the compiled one; None if it has none.

    The views must be given in order of their `index`, from 0. Raises PolicyError as `compile_route` does.
    """
    typed = _checked(text, "route")
    return None if typed is None else interpreted_route(typed)


def interpret_priority(text: str) -> Callable[[Request], float] | None:
    """The `priority` of a policy module run by Python; None if it has none. Raises PolicyError as `compile_route`."""
    typed = _checked(text, "priority")
    return None if typed is None else interpreted_priority(typed)


def operations_bound(text: str, function: str = "route") -> tuple[int, int, int]:
    """(a, b, c) such that a call over n replicas costs at most a + b·n + c·n² operations; zeros without the function.

    Raises PolicyError as `compile_route` does.
    """
    typed = _checked(text, function)
    return (0, 0, 0) if typed is None else count_operations(typed.node)


def _checked(text: str, name: str) -> TypedFunction | None:
    tree = parse_policy(text)
    if isinstance(tree, Refusal):
        raise refused("the policy module", [tree])
    node = function_of(tree, name)
    if node is None:
        return None
    typed = typed_function(tree, name, text)
    if isinstance(typed, list):
        raise refused(f"`{name}`", typed)
    costly = over_budget(typed)
    if costly is not None:
        raise refused(f"`{name}`", [costly])
    return typed
