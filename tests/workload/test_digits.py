"""Columns read from bytes: the same as cell by cell, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autopoiesis.workload import read_requests, table
from autopoiesis.workload.digits import decimals, moments


def column(cells: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cells as bytes, and where each starts and ends."""
    data = "".join(cell + "," for cell in cells).encode()
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord(","))
    return np.frombuffer(data, dtype=np.uint8), np.concatenate([[0], ends[:-1] + 1]), ends


PLAIN = st.one_of(
    st.integers(0, 2**53).map(str),
    st.decimals(0, 10**9, places=3).map(str),
    st.floats(0, 1e6, allow_nan=False).map(repr),
    st.from_regex(r"[0-9]{0,9}\.?[0-9]{0,9}", fullmatch=True),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PLAIN, min_size=1, max_size=20))
def test_decimals_are_those_that_float_reads(cells: list[str]) -> None:
    values = decimals(*column(cells))
    if values is not None:
        assert values.tolist() == [float(cell) for cell in cells]


@pytest.mark.parametrize("cells", [["0", "12", "9007199254740992"], ["0.5", ".5", "5.", "3600.125"], ["123456.654321"]])
def test_plain_decimals_are_known(cells: list[str]) -> None:
    values = decimals(*column(cells))
    assert values is not None
    assert values.tolist() == [float(cell) for cell in cells]


@pytest.mark.parametrize(
    "cell", ["", ".", "1.2.3", "-1", "+1", " 1", "1e5", "nan", "1_0", "x", "9007199254740993", "0" * 20, "٣"]
)
def test_what_is_not_plain_is_left_to_others(cell: str) -> None:
    assert decimals(*column(["1", cell])) is None


@st.composite
def times(draw: st.DrawFn) -> tuple[str, int]:
    """A moment as it may be written, and its nanoseconds since 1970."""
    ns = draw(st.integers(-(2 * 10**9), 4 * 10**9)) * 10**9
    text = str(np.datetime64(ns, "ns"))[:19].replace("T", draw(st.sampled_from(" T")))
    fraction = draw(st.from_regex(r"(\.[0-9]{1,9})?", fullmatch=True))
    minutes = draw(st.sampled_from([0, 0, 330, -300, 840]))
    offset = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    offset = offset if minutes else draw(st.sampled_from(["", "Z", "+00:00", "-00:00"]))
    return text + fraction + offset, ns + int(fraction[1:].ljust(9, "0")) - minutes * 60 * 10**9


@settings(max_examples=300, deadline=None)
@given(st.lists(times(), min_size=1, max_size=10))
def test_moments_are_nanoseconds_in_utc(written: list[tuple[str, int]]) -> None:
    read = moments(*column([text for text, _ in written]))
    assert read is not None
    assert read.tolist() == [ns for _, ns in written]


@pytest.mark.parametrize(
    "cell",
    [
        "2023-02-30 00:00:00",
        "2023-13-01 00:00:00",
        "2023-00-10 00:00:00",
        "2023-01-01 24:00:00",
        "2023-01-01 00:60:00",
        "2023-01-01 00:00:00.",
        "2023-01-01 00:00:00.1234567890",
        "2023-01-01 00:00:00+15:00",
        "2023-01-01 00:00:00+0000",
        "2023/01/01 00:00:00",
        "2023-01-01",
        "",
        "2023-01-0x 00:00:00",
        "1700000000.123456789",
    ],
)
def test_what_is_no_moment_is_left_to_others(cell: str) -> None:
    assert moments(*column(["2023-01-01 00:00:00", cell])) is None


CELL = st.one_of(st.integers(1, 10**6).map(str), st.sampled_from(["1.0", " 7 ", "1e3", "+5", "0005", "12.", '"8"']))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=20), blank=st.booleans(), crlf=st.booleans())
def test_both_ways_of_reading_a_table_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[str, str]], blank: bool, crlf: bool
) -> None:
    lines = ["arrival_s,input_tokens,output_tokens,note"]
    lines += [f"{i},{a},{b},é" for i, (a, b) in enumerate(rows)] + [""] * blank
    path = tmp_path / "trace.csv"
    path.write_bytes(("\r\n" if crlf else "\n").join(lines).encode())
    fast = read_requests(str(path))
    with monkeypatch.context() as patched:
        patched.setattr(table, "_cells", lambda piece, width: None)
        slow = read_requests(str(path))
    assert fast.input_tokens.tolist() == slow.input_tokens.tolist()
    assert fast.output_tokens.tolist() == slow.output_tokens.tolist()
    assert fast.arrival_s.tolist() == slow.arrival_s.tolist()
