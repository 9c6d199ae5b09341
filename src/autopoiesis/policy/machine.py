"""What compiled `route` and `priority` share: their machine types, and the two operators that numba must be taught.

A kernel that calls them through a pointer is typed by `ROUTE_TYPE` and `PRIORITY_TYPE`. A module of its own because
importing numba costs most of a second, which only those who compile should pay.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

types: Any = numba.types

ROUTE_SIGNATURE = types.int64(types.CPointer(types.float64), types.CPointer(types.float64), types.int64)
"""Request fields, replica rows flattened row by row, number of replicas → index, HOLD, SHED or FAULT."""
PRIORITY_SIGNATURE = types.float64(types.CPointer(types.float64))
"""Request fields → priority, NaN where it has none."""

ROUTE_TYPE = types.FunctionType(ROUTE_SIGNATURE)
PRIORITY_TYPE = types.FunctionType(PRIORITY_SIGNATURE)


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
