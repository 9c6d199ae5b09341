"""From a typed `route` or `priority` to machine code: an object file that whoever loads it needs no numba for.

numba compiles what `lowering` writes; its own convention for calls is hidden behind an entry with C's. What is left is
a few kilobytes that name nothing outside but functions of C's mathematical library. A module of its own because
importing numba costs most of a second, which only those who compile should pay.
"""

from __future__ import annotations

import math
from typing import Any

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numba
import numpy as np
from llvmlite import ir

from autopoiesis.policy.fields import FAULT
from autopoiesis.policy.grammar import TypedFunction
from autopoiesis.policy.lowering import lowered
from autopoiesis.policy.native import ENTRY

types: Any = numba.types

ROUTE_SIGNATURE = types.int64(types.CPointer(types.float64), types.CPointer(types.float64), types.int64)
"""Request fields, replica rows flattened row by row, number of replicas → index, HOLD, SHED or FAULT."""
PRIORITY_SIGNATURE = types.float64(types.CPointer(types.float64))
"""Request fields → priority, NaN where it has none."""


def _floor_divide(x: float, y: float) -> float:
    quotient = x / y
    if y == 0.0:
        return quotient
    # What the remainder leaves is divided, since x / y could round up to the next integer.
    rest = np.fmod(x, y)
    exact = (x - rest) / y
    if rest != 0.0 and (rest < 0.0) != (y < 0.0):
        exact -= 1.0
    if exact == 0.0:
        return math.copysign(0.0, quotient)
    # numpy's floor of a float stays a float; `math.floor` would make an integer of an infinity.
    result = float(np.floor(exact))
    return result + 1.0 if exact - result > 0.5 else result


def _modulo(x: float, y: float) -> float:
    rest = float(np.fmod(x, y))
    if rest == 0.0:
        return math.copysign(0.0, y)
    return rest + y if (rest < 0.0) != (y < 0.0) else rest


_operator: Any = numba.njit("float64(float64, float64)", error_model="numpy", fastmath=False)

floor_divide = _operator(_floor_divide)
"""Python's `//` of floats; by zero, what IEEE division gives."""
modulo = _operator(_modulo)
"""Python's `%` of floats, which has the divisor's sign; by zero, NaN."""


def object_code(typed: TypedFunction) -> bytes:
    """The function compiled for this machine, as an object file; C calls it under the name `native.ENTRY`."""
    route = typed.replicas is not None
    signature = ROUTE_SIGNATURE if route else PRIORITY_SIGNATURE
    namespace: dict[str, Any] = {
        "math": math,
        "inf": math.inf,
        "nan": math.nan,
        "floor_divide": floor_divide,
        "modulo": modulo,
    }
    source = lowered(typed, str(FAULT) if route else "nan")
    exec(compile(source, f"<compiled {typed.node.name}>", "exec"), namespace)
    # The numpy error model divides as IEEE does; without fastmath no comparison forgets NaN and no sum is reordered.
    options = {"error_model": "numpy", "fastmath": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    njit: Any = numba.njit
    function = njit(signature, **options)(namespace[typed.node.name])
    (compiled,) = function.overloads.values()
    module = llvm.parse_assembly(function.inspect_llvm(signature.args))
    module.link_in(llvm.parse_assembly(str(_entry(compiled.fndesc.llvm_func_name, route))))
    features = llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3, reloc="pic")
    return bytes(machine.emit_object(module))


def _entry(inner: str, route: bool) -> ir.Module:
    """A module whose function `ENTRY` calls numba's: result and error go through pointers, a status comes back."""
    double, whole = ir.DoubleType(), ir.IntType(64)
    pointer = double.as_pointer()
    arguments = [pointer, pointer, whole] if route else [pointer]
    result, fault = (whole, ir.Constant(whole, FAULT)) if route else (double, ir.Constant(double, math.nan))
    error = ir.IntType(8).as_pointer()
    module = ir.Module()
    kind = ir.FunctionType(ir.IntType(32), [result.as_pointer(), error.as_pointer(), *arguments])
    callee = ir.Function(module, kind, inner)
    entry = ir.Function(module, ir.FunctionType(result, arguments), ENTRY)
    builder = ir.IRBuilder(entry.append_basic_block())
    answer = builder.alloca(result)
    status = builder.call(callee, [answer, builder.alloca(error), *entry.args])
    succeeded = builder.icmp_signed("==", status, status.type(0))
    builder.ret(builder.select(succeeded, builder.load(answer), fault))
    return module
