"""The numbers that workers share, against a table."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.serve.board import Board

ROWS, COLUMNS = 3, 5
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
writes = st.lists(st.tuples(st.integers(0, ROWS - 1), st.integers(0, COLUMNS - 1), numbers), max_size=40)


@given(writes, st.integers(0, ROWS - 1), st.sets(st.integers(0, COLUMNS - 1)))
def test_every_worker_reads_what_any_has_written_and_forgets_what_one_had(
    writes: list[tuple[int, int, float]], dead: int, forgotten: set[int]
) -> None:
    file = Board.shared(ROWS, COLUMNS)
    try:
        boards = [Board(ROWS, COLUMNS, worker, file) for worker in range(ROWS)]
    finally:
        os.close(file)
    table = [[0.0] * COLUMNS for _ in range(ROWS)]
    for worker, column, number in writes:
        boards[worker].mine[column] += number
        table[worker][column] += number
    boards[0].clear(dead, forgotten)
    for column in forgotten:
        table[dead][column] = 0.0
    for worker, board in enumerate(boards):
        for column in range(COLUMNS):
            expected = [row[column] for row in table]
            assert board.by_worker(column) == expected
            assert board.total(column) == sum(expected)
            assert board.others(column) == sum(expected) - table[worker][column]
        assert board.totals(range(COLUMNS)) == [board.total(column) for column in range(COLUMNS)]


@given(st.lists(st.tuples(st.integers(0, COLUMNS - 1), numbers), max_size=20))
def test_a_board_of_one_is_its_own_total(writes: list[tuple[int, float]]) -> None:
    board = Board(1, COLUMNS)
    table = [0.0] * COLUMNS
    for column, number in writes:
        board.mine[column] += number
        table[column] += number
    assert board.totals(range(COLUMNS)) == table
    assert [board.others(column) for column in range(COLUMNS)] == [0.0] * COLUMNS


def test_an_empty_board_can_be_made() -> None:
    assert Board(1, 0).totals(()) == []
