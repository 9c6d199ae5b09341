"""Columns that know how they are written, and their CSV.

The same run is the same bytes: seconds are written with nine decimals, other measures with nine significant digits,
and what is not defined (no first token, nothing measured) as an empty cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Any, TypeAlias, get_type_hints

import numpy as np
from numpy.typing import NDArray

Cells = Callable[[NDArray[Any]], list[str]]

BLOCK_ROWS = 1 << 15
"""Rows whose cells are text at one time."""


def _seconds(values: NDArray[Any]) -> list[str]:
    return [f"{value:.9f}" if value == value else "" for value in (values + 0.0).tolist()]


def _measure(values: NDArray[Any]) -> list[str]:
    # Adding zero takes the sign off a negative zero.
    return [f"{value:.9g}" if value == value else "" for value in (values + 0.0).tolist()]


def _count(values: NDArray[Any]) -> list[str]:
    return list(map(str, values.astype(np.int64).tolist()))


def _index(values: NDArray[Any]) -> list[str]:
    return [str(value) if value >= 0 else "" for value in values.tolist()]


def _text(values: NDArray[Any]) -> list[str]:
    quoted = {text: _quoted(text) for text in set(values.tolist())}
    return [quoted[text] for text in values.tolist()]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text


Seconds: TypeAlias = Annotated[NDArray[np.float64], _seconds]
"""NaN where there is none."""
Measure: TypeAlias = Annotated[NDArray[np.float64], _measure]
"""Of another unit; NaN where there is none."""
Count: TypeAlias = Annotated[NDArray[np.int64], _count]
Flag: TypeAlias = Annotated[NDArray[np.bool_], _count]
"""Written as 1 and 0."""
Index: TypeAlias = Annotated[NDArray[np.int64], _index]
"""Names something; -1 where there is nothing."""
Text: TypeAlias = Annotated[NDArray[np.str_], _text]
"""Empty where there is none."""


@dataclass(frozen=True)
class Table:
    """n rows; every field is a column of n values."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __post_init__(self) -> None:
        lengths = {column.name: len(getattr(self, column.name)) for column in fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns must be equally long, not {lengths}")


def csv_header(kind: type[Table], *before: str) -> str:
    """The line of column names; `before` are columns that the caller puts in front."""
    return ",".join([*before, *(column.name for column in fields(kind))]) + "\n"


def csv_lines(table: Table, *before: str) -> Iterator[str]:
    """The rows as text, many lines at a time; `before` are the same cells in front of every row."""
    lead = "".join(_quoted(cell) + "," for cell in before)
    kinds = get_type_hints(type(table), include_extras=True)
    columns = [(kinds[column.name].__metadata__[0], getattr(table, column.name)) for column in fields(table)]
    for start in range(0, len(table), BLOCK_ROWS):
        cells = [spell(values[start : start + BLOCK_ROWS]) for spell, values in columns]
        yield "".join([lead + line + "\n" for line in map(",".join, zip(*cells, strict=True))])
