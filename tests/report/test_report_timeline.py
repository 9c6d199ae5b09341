"""Which row of a timeline is which GPU."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.control.account import ReplicaLife

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'autopoiesis[report]'")

from autopoiesis.report.timeline import rows_of


@st.composite
def lives(draw: st.DrawFn) -> list[ReplicaLife]:
    """Replicas on nodes of two kinds, which come and go; a GPU has one replica at a time."""
    found = []
    for number in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["a100", "h100"]))
        at_s = 0.0
        for _ in range(draw(st.integers(1, 3))):
            begin_s = at_s + draw(st.floats(0, 100))
            at_s = begin_s + draw(st.floats(1, 100))
            gpus = draw(st.sets(st.integers(0, 7), min_size=1))
            placed = [(f"{kind}-{number}", gpu) for gpu in sorted(gpus)]
            found.append(ReplicaLife("m", kind, 1, 1, "mixed", placed, begin_s, begin_s, None, at_s, "drained"))
    return found


@given(lives())
def test_no_two_replicas_are_drawn_over_each_other(lives: list[ReplicaLife]) -> None:
    rows = rows_of(lives)
    drawn = [(rows.of[node, gpu], life.launched_s, life.ended_s) for life in lives for node, gpu in life.gpus]
    for index, (row, begin, end) in enumerate(drawn):
        assert 0 <= row < rows.count
        assert all(end <= b or e <= begin for other, b, e in drawn[index + 1 :] if other == row)


@given(lives())
def test_the_gpus_of_a_node_stay_together_and_kinds_apart(lives: list[ReplicaLife]) -> None:
    rows = rows_of(lives)
    for life in lives:
        (node, gpu), *others = life.gpus
        first = rows.of[node, gpu] - gpu
        assert first in rows.edges
        assert all(rows.of[node, other] == first + other for _, other in others)
        begin, size = rows.kinds[life.gpu]
        assert begin <= first < begin + size


def test_a_node_that_comes_when_another_has_gone_takes_its_row() -> None:
    def life(node: str, begin_s: float, end_s: float) -> ReplicaLife:
        return ReplicaLife("m", "h100", 1, 1, "mixed", [(node, 0)], begin_s, begin_s, None, end_s, "lost")

    rows = rows_of([life("one", 0.0, 10.0), life("two", 5.0, 20.0), life("three", 10.0, 20.0)])
    assert rows.of == {("one", 0): 0, ("two", 0): 1, ("three", 0): 0}
