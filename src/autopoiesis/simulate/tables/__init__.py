"""A finished run as tables: arrays of equal length, a column each, and the CSV that spells them.

`docs/outputs.md` says what every column means; a test holds it to this package.
"""

from autopoiesis.simulate.tables.columns import Table, csv_header, csv_lines
from autopoiesis.simulate.tables.replicas import (
    ReplicaTable,
    ReplicaWindowTable,
    replica_table,
    replica_window_table,
)
from autopoiesis.simulate.tables.requests import RequestTable, request_table
from autopoiesis.simulate.tables.windows import ALL, WindowTable, window_table

__all__ = [
    "ALL",
    "ReplicaTable",
    "ReplicaWindowTable",
    "RequestTable",
    "Table",
    "WindowTable",
    "csv_header",
    "csv_lines",
    "replica_table",
    "replica_window_table",
    "request_table",
    "window_table",
]
