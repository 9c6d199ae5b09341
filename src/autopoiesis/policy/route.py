"""From a policy module's text to its `route` and `priority` as machine code, or as Python with the same meaning.

Text passes the grammar, is written out over plain numbers (`lowering`), and becomes a numba `cfunc` that the event
kernel and the gateway call through a pointer. numba is imported when something is compiled and not before: whoever
only checks or interprets policies, such as the policy host, starts without it.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.errors import PolicyError
from autopoiesis.policy.bound import count_operations, over_budget
from autopoiesis.policy.grammar import TypedFunction, function_of, typed_function
from autopoiesis.policy.interface import REPLICA_FIELDS, REQUEST_FIELDS, ReplicaView, Request
from autopoiesis.policy.interpret import FAULT, interpreted_priority, interpreted_route
from autopoiesis.policy.lowering import lowered
from autopoiesis.policy.refusal import Refusal, refused
from autopoiesis.policy.source import parse_policy

__all__ = [
    "FAULT",
    "CompiledPriority",
    "CompiledRoute",
    "compile_priority",
    "compile_route",
    "interpret_priority",
    "interpret_route",
    "operations_bound",
]

_POINTER = ctypes.POINTER(ctypes.c_double)


@dataclass(frozen=True)
class CompiledRoute:
    """A `route` in machine code. Hold on to it for as long as its address is in use."""

    function: Any
    """The numba CFunc, to be passed to a kernel whose parameter has the type `machine.ROUTE_TYPE`."""

    @property
    def address(self) -> int:
        return int(self.function.address)

    def __call__(self, request: NDArray[np.float64], replicas: NDArray[np.float64]) -> int:
        """Index, HOLD, SHED or FAULT for one request (fields,) over replicas (n, fields), in interface order."""
        fields = _pointer("request", request, (len(REQUEST_FIELDS),))
        rows = _pointer("replicas", replicas, (len(replicas), len(REPLICA_FIELDS)))
        return int(self.function.ctypes(fields, rows, len(replicas)))


@dataclass(frozen=True)
class CompiledPriority:
    """A `priority` in machine code. Hold on to it for as long as its address is in use."""

    function: Any
    """The numba CFunc, to be passed to a kernel whose parameter has the type `machine.PRIORITY_TYPE`."""

    @property
    def address(self) -> int:
        return int(self.function.address)

    def __call__(self, request: NDArray[np.float64]) -> float:
        """The priority of one request (fields,); NaN where it has none."""
        return float(self.function.ctypes(_pointer("request", request, (len(REQUEST_FIELDS),))))


def compile_route(text: str) -> CompiledRoute | None:
    """Compile the `route` of a policy module, some tenths of a second; None if it has none.

    Raises PolicyError with every refusal if the text does not parse or its `route` leaves the grammar.
    """
    typed = _checked(text, "route")
    if typed is None:
        return None
    return CompiledRoute(_compiled(typed, str(FAULT)))


def compile_priority(text: str) -> CompiledPriority | None:
    """Compile the `priority` of a policy module; None if it has none. Raises PolicyError as `compile_route` does."""
    typed = _checked(text, "priority")
    if typed is None:
        return None
    return CompiledPriority(_compiled(typed, "nan"))


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


def _compiled(typed: TypedFunction, fault: str) -> Any:
    # Imported here because it costs most of a second: see the module's docstring.
    import numba

    from autopoiesis.policy import machine

    namespace: dict[str, Any] = {
        "math": math,
        "inf": math.inf,
        "nan": math.nan,
        "floor_divide": machine.floor_divide,
        "modulo": machine.modulo,
    }
    exec(compile(lowered(typed, fault), f"<compiled {typed.node.name}>", "exec"), namespace)
    signature = machine.PRIORITY_SIGNATURE if typed.replicas is None else machine.ROUTE_SIGNATURE
    # The numpy error model divides as IEEE does; without fastmath no comparison forgets NaN and no sum is reordered.
    cfunc: Any = numba.cfunc
    return cfunc(signature, nopython=True, error_model="numpy", fastmath=False)(namespace[typed.node.name])


def _pointer(name: str, array: NDArray[np.float64], shape: tuple[int, ...]) -> Any:
    if array.shape != shape or array.dtype != np.float64 or not array.flags.c_contiguous:
        raise PolicyError(f"{name}: need contiguous float64 of shape {shape}, got {array.dtype} of shape {array.shape}")
    return array.ctypes.data_as(_POINTER)
