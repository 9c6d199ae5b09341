"""Calls from compiled code to a policy's compiled `route` and `priority`, by address.

An address is a number: the kernel is compiled once for all policies, and its memory says which one is in force.
Whoever sets an address keeps the function alive as long as it may be called.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

DOUBLES = ir.DoubleType().as_pointer()


def _route(typing_context: Any, address: Any, request: Any, replicas: Any, count: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(64), [DOUBLES, DOUBLES, ir.IntType(64)])
        function = builder.inttoptr(arguments[0], kind.as_pointer())
        views = [_data(context, builder, signature.args[i], arguments[i]) for i in (1, 2)]
        return builder.call(function, [*views, arguments[3]])

    return types.int64(types.int64, request, replicas, types.int64), generate


def _priority(typing_context: Any, address: Any, request: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.DoubleType(), [DOUBLES])
        function = builder.inttoptr(arguments[0], kind.as_pointer())
        return builder.call(function, [_data(context, builder, signature.args[1], arguments[1])])

    return types.float64(types.int64, request), generate


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return context.make_array(kind)(context, builder, value=array).data


call_route: Any = intrinsic(_route)
"""`call_route(address, request view, replica views, count)` → index, HOLD, SHED or a fault."""
call_priority: Any = intrinsic(_priority)
"""`call_priority(address, request view)` → priority, NaN where it has none."""
