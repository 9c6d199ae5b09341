"""Prompts as prefix blocks: equal ids are equal beginnings, whatever is done to a workload."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopoiesis.errors import TraceError
from autopoiesis.workload import (
    PREFIX_BLOCK_TOKENS,
    Requests,
    cells,
    head,
    merge,
    read_requests,
    resample,
    single_requests,
    source,
)

HEADER = "arrival_s,input_tokens,output_tokens,session_id,block_ids"

Blocks = list[list[int]]


def blocks_of(requests: Requests) -> Blocks:
    """Each request's ids."""
    spans = zip(requests.block_start.tolist(), requests.block_count.tolist(), strict=True)
    return [requests.block_ids[start : start + count].tolist() for start, count in spans]


def requests_of(prompts: Blocks, previous: list[int] | None = None, ids_first: bool = False) -> Requests:
    """A call a second with these blocks; its number as `output_tokens`. `ids_first` stores the last request's first."""
    n = len(prompts)
    counts = np.array([len(ids) for ids in prompts], dtype=np.int64)
    order = list(range(n))[:: -1 if ids_first else 1]
    start = np.zeros(n, dtype=np.int64)
    start[order] = np.cumsum(counts[order]) - counts[order]
    calls = single_requests(
        np.arange(n, dtype=np.float64), counts * PREFIX_BLOCK_TOKENS + 100, np.arange(n, dtype=np.int64)
    )
    return replace(
        calls,
        previous=np.array([-1] * n if previous is None else previous, dtype=np.int64),
        block_start=start,
        block_count=counts,
        block_ids=np.array([block for row in order for block in prompts[row]], dtype=np.int64),
    )


@st.composite
def conversations(draw: st.DrawFn) -> Requests:
    """Sessions that grow or start over, some from a beginning that several have, some without recorded blocks."""
    system = draw(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1, max_size=3))
    names: dict[tuple[Any, ...], int] = {}
    offset = draw(st.integers(0, 10**9))

    def ids(text: tuple[Any, ...]) -> list[int]:
        return [offset + names.setdefault(text[: i + 1], len(names)) for i in range(len(text))]

    prompts: Blocks = []
    previous: list[int] = []
    last: dict[int, int] = {}
    for session in draw(st.lists(st.integers(0, 5), min_size=1, max_size=14)):
        text: tuple[Any, ...] = tuple(draw(st.sampled_from(system))) if draw(st.booleans()) else ()
        text += tuple((session, i) for i in range(draw(st.integers(0, 4))))
        prompts.append(ids(text))
        previous.append(last.get(session, -1))
        last[session] = len(prompts) - 1
    return requests_of(prompts, previous, draw(st.booleans()))


def first_calls(requests: Requests) -> list[int]:
    """The row of the first call of each row's session."""
    first: list[int] = []
    for row, before in enumerate(requests.previous.tolist()):
        first.append(first[before] if before >= 0 else row)
    return first


# --- reading ------------------------------------------------------------------------------------------------------


def written(folder: Path, *rows: str) -> str:
    path = folder / "trace.csv"
    path.write_text("\n".join([HEADER, *rows]))
    return str(path)


def test_ids_and_runs_of_ids_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, "0,1536,1,,0-2", "1,2048,1,,0 3-5", "2,1024,1,, 0  1 ")
    assert blocks_of(read_requests(path)) == [[0, 1, 2], [0, 3, 4, 5], [0, 1]]


def test_a_block_that_the_prompt_does_not_fill_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, "0,1535,1,,0-2", "1,1024,1,,0 3", "2,511,1,,4")
    assert blocks_of(read_requests(path)) == [[0, 1], [0, 2], []]


def test_fewer_blocks_than_the_prompt_has_are_what_is_known(tmp_path: Path) -> None:
    assert blocks_of(read_requests(written(tmp_path, "0,9000,1,,0-2"))) == [[0, 1, 2]]


def test_a_blank_cell_and_a_missing_column_record_no_blocks(tmp_path: Path) -> None:
    requests = read_requests(written(tmp_path, "0,1024,1,,0-1", "1,1024,1,,", "2,1024,1,,0-1"))
    assert blocks_of(requests) == [[0, 1], [], [0, 1]]
    assert requests.block_start[1] == 0
    (tmp_path / "plain.csv").write_text("arrival_s,input_tokens,output_tokens\n0,1024,1\n")
    plain = read_requests(str(tmp_path / "plain.csv"))
    assert blocks_of(plain) == [[]]
    assert len(plain.block_ids) == 0


def test_ids_of_any_size_are_numbered_from_zero(tmp_path: Path) -> None:
    large = 10**18 - 1
    requests = read_requests(written(tmp_path, f"0,1024,1,,7 {large}", f"1,1536,1,,7 {large} 100", "2,600,1,,50-51"))
    assert blocks_of(requests) == [[0, 3], [0, 3, 2], [1]]


def test_reading_stops_at_the_hours_for_blocks_too(tmp_path: Path) -> None:
    requests = read_requests(written(tmp_path, "0,512,1,,5", "3600,1024,1,,5-6"), hours=1.0)
    assert blocks_of(requests) == [[0]]
    assert len(requests.block_ids) == 1


BROKEN = {
    "a word": ("5 x7", "'x7'"),
    "a negative id": ("-5", "'-5'"),
    "an open run": ("5-", "'5-'"),
    "a run of runs": ("5-6-7", "'5-6-7'"),
    "a fraction": ("5.0", "'5.0'"),
    "digits of another script": ("١", "no block id"),
    "more digits than an id has": ("9" * 5000, "no block id"),
    "a run that goes down": ("7-5", "runs down"),
    "more blocks than the prompt has": ("0-4", "names 5 blocks, and a prompt of 2000 tokens has 4 of 512"),
    "a run without end": (f"0-{10**18 - 1}", "names 1000000000000000000 blocks"),
    "the same block twice": ("5 6 5", "block 5 does not follow"),
    "another block before it": ("9 2", "block 2 does not follow"),
    "a block that began a prompt further in": ("9 1", "block 1 does not follow"),
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("piece_bytes", [1, 4096])
def test_an_error_names_file_line_and_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, piece_bytes: int
) -> None:
    monkeypatch.setattr(source, "PIECE_BYTES", piece_bytes)
    cell, words = BROKEN[what]
    path = written(tmp_path, "0,2000,1,,1-3", "1,2000,1,,", f"2,2000,1,,{cell}", "3,2000,1,,1 2")
    with pytest.raises(TraceError) as caught:
        read_requests(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: line 4: column 'block_ids': ")
    assert words in message
    assert len(message.splitlines()) == 1
    assert len(message) < len(path) + 200


def test_a_run_of_any_length_takes_no_memory_before_it_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, f"0,2000,1,,{10**17}-{9 * 10**17}")
    tracemalloc.start()
    try:
        with pytest.raises(TraceError, match="blocks"):
            read_requests(path)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_a_trace_of_more_blocks_than_memory_should_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "BLOCKS_MAX", 5)
    monkeypatch.setattr(source, "PIECE_BYTES", 60)
    good = ["0,1024,1,,0-1", "1,1024,1,,0-1", "2,512,1,,0"]
    assert len(read_requests(written(tmp_path, *good)).block_ids) == 5
    with pytest.raises(TraceError, match="line 5: column 'block_ids': more than 5 blocks up to here"):
        read_requests(written(tmp_path, *good, "3,512,1,,0"))


@settings(max_examples=60, deadline=None)
@given(recorded=conversations(), runs=st.booleans())
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, recorded: Requests, runs: bool
) -> None:
    def cell(ids: list[int]) -> str:
        consecutive = len(ids) > 0 and ids == list(range(ids[0], ids[0] + len(ids)))
        return f"{ids[0]}-{ids[-1]}" if consecutive and runs else " ".join(map(str, ids))

    rows = [
        f"{row},{tokens},1,,{cell(ids)}"
        for row, (tokens, ids) in enumerate(zip(recorded.input_tokens.tolist(), blocks_of(recorded), strict=True))
    ]
    read = read_requests(written(tmp_path_factory.mktemp("trace"), *rows))
    known = sorted({block for ids in blocks_of(recorded) for block in ids})
    assert blocks_of(read) == [[known.index(block) for block in ids] for ids in blocks_of(recorded)]


# --- workloads ----------------------------------------------------------------------------------------------------


def test_requests_made_without_blocks_have_none() -> None:
    requests = single_requests(np.arange(3.0), np.full(3, 9000), np.full(3, 1))
    assert requests.block_start.tolist() == requests.block_count.tolist() == [0, 0, 0]
    assert requests.block_ids.dtype == requests.block_start.dtype == np.int64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"block_count": [1, 1, 1]}, "'block_count' must have one value for each of the 2 requests"),
        ({"block_start": []}, "'block_start' must have one value"),
        ({"block_ids": [[1, 2, 3]]}, "'block_ids' must be one flat array"),
        ({"block_ids": [1, 2, -3]}, "'block_ids' must not be negative"),
        ({"block_ids": [1, 2]}, "'block_start' must leave room"),
        ({"block_start": [0, -1]}, "'block_start' must leave room"),
        ({"block_start": [0, 2**63 - 1]}, "'block_start' must leave room"),
        ({"block_count": [-1, 1]}, "'block_count' must be from 0"),
        ({"input_tokens": [1024, 511]}, "'block_count' must be from 0 to the full blocks of 512"),
    ],
)
def test_blocks_that_cannot_be_are_refused(change: dict[str, Any], words: str) -> None:
    requests = requests_of([[1, 2], [3]])
    with pytest.raises(TraceError, match=words) as caught:
        replace(requests, **{name: cast(Any, np.array(change[name], dtype=np.int64)) for name in change})
    assert len(str(caught.value).splitlines()) == 1


@settings(deadline=None)
@given(recorded=conversations(), data=st.data())
def test_taken_requests_keep_their_blocks_and_no_others(recorded: Requests, data: st.DataObject) -> None:
    rows = sorted(data.draw(st.sets(st.integers(0, len(recorded) - 1))))
    taken = recorded.take(np.array(rows, dtype=np.int64))
    assert blocks_of(taken) == [blocks_of(recorded)[row] for row in rows]
    assert len(taken.block_ids) == taken.block_count.sum()


@settings(deadline=None)
@given(recorded=conversations(), until_s=st.integers(0, 15))
def test_the_head_keeps_its_blocks(recorded: Requests, until_s: int) -> None:
    assert blocks_of(head(recorded, until_s)) == blocks_of(recorded)[:until_s]


@settings(deadline=None)
@given(parts=st.lists(conversations(), min_size=1, max_size=3), bare=st.booleans())
def test_merged_workloads_keep_their_blocks_and_share_none(parts: list[Requests], bare: bool) -> None:
    if bare:
        parts = [parts[0], single_requests(np.arange(2.0), np.full(2, 9000), np.full(2, 1)), *parts[1:]]
    parts = [replace(part, model=np.full(len(part), i)) for i, part in enumerate(parts)]
    merged = merge(parts)
    users: dict[int, int] = {}
    for model, part in enumerate(parts):
        mine = [ids for ids, of in zip(blocks_of(merged), merged.model, strict=True) if of == model]
        moved = dict(zip(np.concatenate([[], *blocks_of(part)]), np.concatenate([[], *mine]), strict=True))
        assert [[moved[block] for block in ids] for ids in blocks_of(part)] == mine
        assert len(set(moved.values())) == len(moved)
        assert all(users.setdefault(int(block), model) == model for block in moved.values())


# --- resampling ---------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(recorded=conversations(), factor=st.floats(0, 4), seed=st.integers(0, 2**32))
def test_a_copy_shares_with_others_only_what_several_sessions_share(
    recorded: Requests, factor: float, seed: int
) -> None:
    copies = resample(recorded, factor, 20.0, np.random.default_rng(seed))
    original, copied = blocks_of(recorded), blocks_of(copies)
    users: dict[int, set[int]] = {}
    for session, ids in zip(first_calls(recorded), original, strict=True):
        for block in ids:
            users.setdefault(block, set()).add(session)
    became: dict[tuple[int, int], int] = {}
    for copy, original_row, ids in zip(first_calls(copies), copies.output_tokens.tolist(), copied, strict=True):
        assert len(ids) == len(original[original_row])
        for block, now in zip(original[original_row], ids, strict=True):
            if len(users[block]) > 1:
                assert now == block
            # one copy of a session has one id for one block, in whichever of its calls
            assert became.setdefault((copy, block), now) == now
    private = Counter(now for (_, block), now in became.items() if len(users[block]) == 1)
    shared = {block for block in users if len(users[block]) > 1}
    assert all(count == 1 for count in private.values())
    assert not shared & set(private)


@settings(deadline=None)
@given(recorded=conversations(), seed=st.integers(0, 2**32))
def test_the_first_copy_of_a_session_keeps_its_ids(recorded: Requests, seed: int) -> None:
    copies = resample(recorded, 3.0, 20.0, np.random.default_rng(seed))
    kept = {block for ids in blocks_of(copies) for block in ids}
    assert kept >= {block for row in copies.output_tokens.tolist() for block in blocks_of(recorded)[row]}


def test_a_single_request_is_a_session_of_its_own() -> None:
    recorded = requests_of([[0, 1], [0, 2]])
    copies = resample(recorded, 50.0, 1.0, np.random.default_rng(0))
    assert {ids[0] for ids in blocks_of(copies)} == {0}
    assert len({ids[1] for ids in blocks_of(copies)}) == len(copies) > 50


def test_the_same_seed_gives_the_same_ids() -> None:
    recorded = requests_of([[0, 1, 2], [0, 3], [], [0, 1, 2, 4]], [-1, -1, -1, 0])
    first, again = (resample(recorded, 5.0, 60.0, np.random.default_rng(4)) for _ in range(2))
    assert blocks_of(first) == blocks_of(again)


def test_blocks_change_nothing_else_about_a_resampled_load() -> None:
    recorded = requests_of([[0, 1, 2], [0, 3], [], [0, 1, 2, 4]], [-1, -1, -1, 0])
    none = np.zeros(0, dtype=np.int64)
    bare = replace(recorded, block_start=none, block_count=none, block_ids=none)
    with_blocks, without = (resample(load, 5.0, 60.0, np.random.default_rng(4)) for load in (recorded, bare))
    for name in set(Requests.COLUMNS) - {"block_start", "block_count"}:
        assert np.array_equal(getattr(with_blocks, name), getattr(without, name))
    assert blocks_of(without) == [[]] * len(without)
