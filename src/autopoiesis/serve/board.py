"""Numbers that the worker processes of a gateway share: what each has in flight, and what it has counted.

The board is a file in memory with one row for each worker and one column for each number. A worker writes its own row
alone, so that nobody waits for anybody; whoever wants a total adds up a column. Numbers are floats of eight bytes,
which are read and written whole. A worker that has died leaves its row behind: what it had in flight is cleared, and
what it had counted stays.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable

NUMBER_BYTES = 8


class Board:
    """A table of `workers` rows and `columns` columns of which one process writes the row `worker`."""

    def __init__(self, workers: int, columns: int, worker: int = 0, file: int | None = None) -> None:
        """A board of this process alone, or one in the `file` descriptor that `shared` gave. Raises OSError."""
        self.workers = workers
        self.columns = columns
        size = max(1, workers * columns) * NUMBER_BYTES
        self._memory = mmap.mmap(-1 if file is None else file, size)
        self._rows = memoryview(self._memory).cast("d")
        self.mine = self._rows[worker * columns : (worker + 1) * columns]
        """The row of this worker."""

    @staticmethod
    def shared(workers: int, columns: int) -> int:
        """A file descriptor for a board that several processes open; it holds zeros."""
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("autopoiesis-board")
        else:
            with tempfile.TemporaryFile() as temporary:
                file = os.dup(temporary.fileno())
        os.ftruncate(file, max(1, workers * columns) * NUMBER_BYTES)
        return file

    def total(self, column: int) -> float:
        """The sum over all workers."""
        if self.workers == 1:
            return self._rows[column]
        return sum(self._rows[column :: self.columns])

    def others(self, column: int) -> float:
        """The sum over the other workers."""
        return self.total(column) - self.mine[column]

    def totals(self, columns: Iterable[int]) -> list[float]:
        return [self.total(column) for column in columns]

    def by_worker(self, column: int) -> list[float]:
        return list(self._rows[column :: self.columns])

    def clear(self, worker: int, columns: Iterable[int]) -> None:
        """Forget what a worker that has ended had in these columns."""
        for column in columns:
            self._rows[worker * self.columns + column] = 0.0
