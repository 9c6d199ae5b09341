"""What a policy module may import, call and reach. What is not listed is refused.

The lists are for honest mistakes and plain attacks: a name that reads files, makes code or leads out of the module
has no place in a policy. They are not what makes it safe to run hostile code; the policy host is.
"""

from __future__ import annotations

import builtins
import importlib
from functools import cache

STANDARD_MODULES = ("math", "heapq", "bisect", "itertools", "functools", "collections", "statistics")

BUILTINS = frozenset({
    "ArithmeticError", "AssertionError", "AttributeError", "Ellipsis", "Exception", "False", "FloatingPointError",
    "IndexError", "KeyError", "LookupError", "None", "NotImplemented", "NotImplementedError", "OverflowError",
    "RuntimeError", "StopIteration", "True", "TypeError", "ValueError", "ZeroDivisionError", "abs", "all", "any", "bin",
    "bool", "bytes", "callable", "chr", "classmethod", "complex", "dict", "divmod", "enumerate", "filter", "float",
    "frozenset", "hex", "int", "isinstance", "issubclass", "iter", "len", "list", "map", "max", "min", "next",
    "object", "oct", "ord", "pow", "property", "range", "repr", "reversed", "round", "set", "slice", "sorted",
    "staticmethod", "str", "sum", "super", "tuple", "zip",
})  # fmt: skip

REFUSED_BUILTINS = frozenset(dir(builtins)) - BUILTINS

SPECIAL_METHODS = frozenset({
    "__init__", "__post_init__", "__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__hash__", "__len__", "__iter__",
    "__contains__", "__getitem__", "__call__", "__add__", "__slots__",
})  # fmt: skip
"""The only names of this form that a small class may define."""

REFUSED_ATTRIBUTES = frozenset({
    # leading from an object to the interpreter behind it
    "gi_frame", "gi_code", "gi_yieldfrom", "cr_frame", "cr_code", "cr_await", "cr_origin", "ag_frame", "ag_code",
    "ag_await", "f_back", "f_builtins", "f_code", "f_globals", "f_lasti", "f_lineno", "f_locals", "f_trace",
    "tb_frame", "tb_next", "tb_lasti", "tb_lineno", "co_code", "co_consts", "co_names", "co_varnames", "func_code",
    "func_globals", "mro", "with_traceback",
    # formatting reaches attributes by name
    "format", "format_map",
    # memory and files behind an array
    "ctypes", "ctypeslib", "load", "save", "savez", "savez_compressed", "savetxt", "loadtxt", "genfromtxt",
    "fromfile", "fromregex", "tofile", "dump", "dumps", "memmap", "open_memmap", "DataSource", "f2py", "lib", "testing",
    "distutils", "frombuffer", "setflags",
    # the estimator is asked through the state, which meters it
    "estimator",
})  # fmt: skip

NUMPY = frozenset({
    # types and constants
    "bool_", "dtype", "e", "float32", "float64", "floating", "inf", "int32", "int64", "integer", "intp", "nan",
    "ndarray", "newaxis", "number", "pi", "uint8", "uint32", "uint64",
    # making and shaping
    "append", "arange", "array", "array_split", "asarray", "ascontiguousarray", "atleast_1d", "atleast_2d",
    "broadcast_arrays", "broadcast_to", "column_stack", "concatenate", "copy", "delete", "diag", "dstack", "empty",
    "empty_like", "expand_dims", "eye", "fill_diagonal", "flip", "fromiter", "full", "full_like", "geomspace", "hstack",
    "identity", "indices", "insert", "ix_", "linspace", "logspace", "meshgrid", "moveaxis", "ndindex", "ones",
    "ones_like", "outer", "pad", "ravel", "repeat", "reshape", "resize", "roll", "split", "squeeze", "stack",
    "swapaxes", "tile", "transpose", "tril", "triu", "vstack", "zeros", "zeros_like",
    # arithmetic and statistics
    "abs", "absolute", "add", "all", "allclose", "any", "arctan", "average", "bincount", "cbrt", "ceil", "clip",
    "convolve", "corrcoef", "correlate", "cos", "cov", "cross", "cumprod", "cumsum", "diff", "digitize", "divide",
    "divmod", "dot", "ediff1d", "einsum", "equal", "errstate", "exp", "exp2", "expm1", "fabs", "floor", "floor_divide",
    "fmax", "fmin", "fmod", "gradient", "greater", "greater_equal", "histogram", "hypot", "inner", "interp", "isclose",
    "isfinite", "isin", "isinf", "isnan", "kron", "less", "less_equal", "log", "log10", "log1p", "log2", "logaddexp",
    "logical_and", "logical_not", "logical_or", "logical_xor", "matmul", "max", "maximum", "mean", "median", "min",
    "minimum", "mod", "multiply", "nan_to_num", "nanmax", "nanmean", "nanmedian", "nanmin", "nanpercentile",
    "nanquantile", "nanstd", "nansum", "nanvar", "negative", "not_equal", "percentile", "polyfit", "polyval", "power",
    "prod", "ptp", "quantile", "reciprocal", "remainder", "rint", "round", "sign", "signbit", "sin", "sqrt", "square",
    "std", "subtract", "sum", "tan", "tanh", "tensordot", "trace", "trapezoid", "true_divide", "trunc", "var", "vdot",
    # searching and sorting
    "argmax", "argmin", "argpartition", "argsort", "argwhere", "array_equal", "choose", "compress", "count_nonzero",
    "extract", "flatnonzero", "intersect1d", "lexsort", "nanargmax", "nanargmin", "nonzero", "partition", "place",
    "put", "searchsorted", "select", "setdiff1d", "sort", "take", "take_along_axis", "union1d", "unique", "where",
    # modules of its own, see below
    "linalg", "random",
})  # fmt: skip

NUMPY_LINALG = frozenset({
    "LinAlgError", "cholesky", "cond", "det", "eig", "eigh", "eigvals", "eigvalsh", "inv", "lstsq", "matrix_power",
    "matrix_rank", "multi_dot", "norm", "pinv", "qr", "slogdet", "solve", "svd",
})  # fmt: skip

NUMPY_RANDOM = frozenset({"default_rng"})
"""Chance has a seed that the policy chooses: the same state must give the same plan."""

SETTING_ATTRIBUTES = frozenset({"update_wrapper", "wraps"})
"""What of `functools` sets attributes of whatever it is given; the next call would find them."""


@cache
def reachable(module: str) -> frozenset[str] | None:
    """Names that a policy may use of a module; None for a module it may not import."""
    match module:
        case "numpy":
            return NUMPY
        case "numpy.linalg":
            return NUMPY_LINALG
        case "numpy.random":
            return NUMPY_RANDOM
        case "autopoiesis.policy":
            return frozenset({*importlib.import_module(module).__all__, "tools"})
        case "autopoiesis.policy.tools":
            return frozenset(importlib.import_module(module).__all__)
    if module not in STANDARD_MODULES:
        return None
    loaded = importlib.import_module(module)
    names = {name for name in getattr(loaded, "__all__", dir(loaded)) if not name.startswith("_")}
    return frozenset(names - SETTING_ATTRIBUTES)
