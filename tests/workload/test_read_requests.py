"""Reading recorded traces: what becomes of each column, and what a user is told about a broken file."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autopoiesis.errors import ScenarioError, TraceError
from autopoiesis.workload import PREFIX_BLOCK_TOKENS, Requests, read_requests, source
from autopoiesis.workload.readers import nominal_duration_s

HEADER = "arrival_s,input_tokens,output_tokens"
SESSIONS = HEADER + ",session_id,prefix_tokens"


def written(folder: Path, text: str | bytes, name: str = "trace.csv") -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def refusal(path: str) -> str:
    with pytest.raises(TraceError) as caught:
        read_requests(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_arrivals_start_at_zero_and_equal_ones_keep_the_order_of_the_file(tmp_path: Path) -> None:
    requests = read_requests(written(tmp_path, f"{HEADER}\n5,10,1\n5,20,2\n7.5,30,0\n"), model=3)
    assert requests.arrival_s.tolist() == [0.0, 0.0, 2.5]
    assert requests.input_tokens.tolist() == [10, 20, 30]
    assert requests.output_tokens.tolist() == [1, 2, 0]
    assert requests.model.tolist() == [3, 3, 3]
    assert requests.previous.tolist() == [-1, -1, -1]


def test_gzip_is_recognised_by_content_and_not_by_name(tmp_path: Path) -> None:
    packed = gzip.compress(f"{HEADER}\n0,1,1\n".encode())
    assert len(read_requests(written(tmp_path, packed, "trace.csv"))) == 1
    assert len(read_requests(written(tmp_path, f"{HEADER}\n0,1,1\n", "plain.csv.gz"))) == 1


def test_columns_are_found_by_name_and_further_ones_are_ignored(tmp_path: Path) -> None:
    text = 'note,output_tokens, arrival_s ,input_tokens\n"a, ""quoted""\nnote",7,0,9\n\nx,8,1,10\n'
    requests = read_requests(written(tmp_path, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()))
    assert requests.input_tokens.tolist() == [9, 10]
    assert requests.output_tokens.tolist() == [7, 8]


def test_azure_timestamps_become_seconds_to_the_seventh_digit(tmp_path: Path) -> None:
    rows = "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    requests = read_requests(written(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows))
    assert requests.arrival_s == pytest.approx([0.0, 4.314579], abs=1e-9)
    assert requests.input_tokens.tolist() == [374, 396]


def test_azure_timestamps_with_offsets_are_compared_in_utc(tmp_path: Path) -> None:
    rows = "2024-05-10 00:00:00+00:00,1,1\n2024-05-10 02:00:01.5+02:00,1,1\n2024-05-09 19:00:02-05:00,1,1\n"
    requests = read_requests(written(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows))
    assert requests.arrival_s.tolist() == [0.0, 1.5, 2.0]


def test_hours_cut_at_the_recorded_arrival(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER}\n100,1,1\n3699.9,1,1\n3700,1,1\n9000,1,1\n")
    assert len(read_requests(path, hours=1.0)) == 2
    with pytest.raises(ScenarioError, match="hours"):
        read_requests(path, hours=0.0)


def test_a_call_follows_the_row_before_in_its_session(tmp_path: Path) -> None:
    rows = "0,10,1,a,0\n1,10,1,b,0\n2,20,1,a,11\n3,30,1,,5\n4,30,1,,5\n5,30,1,a,21\n"
    requests = read_requests(written(tmp_path, f"{SESSIONS}\n{rows}"))
    assert requests.previous.tolist() == [-1, -1, 0, -1, -1, 2]
    assert requests.prefix_tokens.tolist() == [0, 0, 11, 0, 0, 21]


def test_a_shared_prefix_is_never_longer_than_the_prompt(tmp_path: Path) -> None:
    requests = read_requests(written(tmp_path, f"{SESSIONS}\n0,10,1,a,0\n9,20,1,a,500\n"))
    assert requests.prefix_tokens.tolist() == [0, 20]


def test_think_time_is_the_recorded_one_of_the_later_call(tmp_path: Path) -> None:
    text = f"{HEADER},session_id,think_time_s\n0,1,1,a,99\n50,1,1,a,7.5\n"
    assert read_requests(written(tmp_path, text)).think_s.tolist() == [0.0, 7.5]


def test_think_time_is_else_the_gap_less_the_recorded_duration(tmp_path: Path) -> None:
    text = f"{HEADER},session_id,api_time_s\n0,1,1,a,10\n50,1,1,a,99\n60,1,1,a,1\n"
    assert read_requests(written(tmp_path, text)).think_s.tolist() == [0.0, 40.0, 0.0]


def test_think_time_is_else_the_gap_less_the_nominal_duration(tmp_path: Path) -> None:
    requests = read_requests(written(tmp_path, f"{HEADER},session_id\n0,1,100,a\n50,1,1,a\n"))
    assert requests.think_s.tolist() == [0.0, 46.0]
    assert nominal_duration_s(np.array([100])).tolist() == [4.0]


def test_a_blank_optional_cell_counts_as_not_recorded(tmp_path: Path) -> None:
    text = f"{SESSIONS},think_time_s,api_time_s\n0,9,100,a,,,\n50,9,1,a,,,\n60,9,1,a,3,2,\n"
    requests = read_requests(written(tmp_path, text))
    assert requests.think_s.tolist() == [0.0, 46.0, 2.0]
    assert requests.prefix_tokens.tolist() == [0, 0, 3]


BROKEN: dict[str, tuple[str | bytes, int, str]] = {
    "a missing column with a near match": ("arrival_s,inputs_tokens,output_tokens\n0,1,1\n", 1, "'inputs_tokens'"),
    "a missing column": ("arrival_s,input_tokens\n0,1\n", 1, "'output_tokens'"),
    "a header that is none": ("t_s,nodes\n0,1\n", 1, "arrival_s,input_tokens,output_tokens"),
    "a column named twice": (f"{HEADER},arrival_s\n0,1,1,0\n", 1, "'arrival_s'"),
    "a header without rows": (f"{HEADER}\n", 1, "no row"),
    "the header again": (f"{HEADER}\n0,1,1\n{HEADER}\n", 3, "header"),
    "a word": (f"{HEADER}\n0,1,1\n1,many,1\n", 3, "'input_tokens'"),
    "a blank": (f"{HEADER}\n0,1,\n", 2, "'output_tokens'"),
    "an underscore": (f"{HEADER}\n0,1_000,1\n", 2, "'1_000'"),
    "digits of another script": (f"{HEADER}\n0,١,1\n", 2, "'input_tokens'"),
    "nan": (f"{HEADER}\nnan,1,1\n", 2, "not finite"),
    "infinity": (f"{HEADER}\n0,inf,1\n", 2, "not finite"),
    "a negative": (f"{HEADER}\n0,5,-1\n", 2, "negative"),
    "a fraction of a token": (f"{HEADER}\n0,5.5,1\n", 2, "whole"),
    "an empty prompt": (f"{HEADER}\n0,0,1\n", 2, "too small"),
    "an absurd number": (f"{HEADER}\n0,1,1e10\n", 2, "beyond"),
    "an absurd arrival": (f"{HEADER}\n1.7e12,1,1\n", 2, "check the unit"),
    "time running back": (f"{HEADER}\n5,1,1\n6,1,1\n\n4,1,1\n", 5, "sort"),
    "a short row": (f"{HEADER}\n0,1,1\n1,1\n", 3, "'output_tokens'"),
    "a long row": (f"{HEADER}\n0,1,1\n1,1,1,1\n", 3, "extra commas"),
    "a broken quote": (f'{HEADER}\n0,1,1\n1,"1"2,1\n', 3, "quotes"),
    "an error below a cell of two lines": (f'{HEADER},note\n0,1,1,"a\nb"\n1,x,1,c\n', 4, "'input_tokens'"),
    "a line without end": (f"{HEADER}\n{'1' * 1_000_001}\n", 2, "longer"),
    "undecodable text": (f"{HEADER}\n0,1,1\n".encode() + b"\xff\xfe,1,1\n", 3, "UTF-8"),
    "a time in the wrong form": (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,1\n16.11.2023,1,1\n",
        3,
        "'16.11.2023'",
    ),
    "a day that does not exist": (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-02-30 18:15:46,1,1\n",
        2,
        "'2023-02-30 18:15:46'",
    ),
    "a prefix that is no number": (f"{SESSIONS}\n0,1,1,a,x\n", 2, "'prefix_tokens'"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_error_names_file_line_and_what_is_wrong(tmp_path: Path, what: str) -> None:
    text, line, words = BROKEN[what]
    path = written(tmp_path, text)
    message = refusal(path)
    assert message.startswith(f"{path}: line {line}: ")
    assert words in message


def test_an_error_far_down_names_its_own_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "PIECE_BYTES", 50)
    rows = [f"{i},1,1" for i in range(100)]
    rows[57] = "57,1,?"
    assert ": line 59: column 'output_tokens'" in refusal(written(tmp_path, "\n".join([HEADER, *rows])))
    rows[57] = "3,1,1"
    assert ": line 59: column 'arrival_s'" in refusal(written(tmp_path, "\n".join([HEADER, *rows])))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "no such file" in refusal(str(tmp_path / "nowhere.csv"))
    assert "directory" in refusal(str(tmp_path))
    assert "empty" in refusal(written(tmp_path, ""))
    assert "empty" in refusal(written(tmp_path, gzip.compress(b"")))
    assert "cannot be opened" in refusal("nul\0byte")


def test_truncated_and_corrupt_gzip_are_told_apart(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = "".join(f"{i},{rng.randrange(1, 9999)},{rng.randrange(999)}\n" for i in range(2000))
    packed = gzip.compress(f"{HEADER}\n{rows}".encode())
    assert "end early" in refusal(written(tmp_path, packed[: len(packed) // 2]))
    assert "corrupt" in refusal(written(tmp_path, packed[:-8] + b"12345678"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(1, 10**9), st.integers(0, 10**9), st.sampled_from(["", "a", "b"])),
        min_size=1,
        max_size=40,
    ),
    block=st.integers(1, 200),
    packed=st.booleans(),
)
def test_what_is_written_is_read_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[tuple[int, int, int, str]],
    block: int,
    packed: bool,
) -> None:
    monkeypatch.setattr(source, "PIECE_BYTES", block)
    rows = sorted(rows, key=lambda row: row[0])
    text = f"{HEADER},session_id\n" + "".join(f"{a / 8},{i},{o},{s}\n" for a, i, o, s in rows)
    requests = read_requests(written(tmp_path, gzip.compress(text.encode()) if packed else text))
    assert requests.arrival_s.tolist() == [(a - rows[0][0]) / 8 for a, _, _, _ in rows]
    assert requests.input_tokens.tolist() == [i for _, i, _, _ in rows]
    assert requests.output_tokens.tolist() == [o for _, _, o, _ in rows]
    last: dict[str, int] = {}
    for row, (_, _, _, session) in enumerate(rows):
        assert requests.previous[row] == (last.get(session, -1) if session else -1)
        last[session] = row


GOOD = (
    f"{SESSIONS},think_time_s\n0,100,5,a,0,0\n1.5,200,6,b,0,\n2,150,0,a,100,1\n",
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,1,2\n2023-11-16 18:15:47+00:00,3,4\n",
    f"{HEADER},block_ids\n0,1500,5,0-2\n1.5,1536,6,0-1 3\n2,600,1,\n3,3000,1,4 6-9\n",
)
JUNK = st.one_of(
    st.binary(max_size=4), st.sampled_from([b",", b"\n", b'"', b"-", b"e9", b"\0", b"\r", b"NaT", b"\xe2\x80\xa8"])
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), text=st.sampled_from(GOOD), packed=st.booleans())
def test_a_mutated_file_is_read_or_refused_in_one_line(
    tmp_path: Path, data: st.DataObject, text: str, packed: bool
) -> None:
    content = gzip.compress(text.encode(), mtime=0) if packed else text.encode()
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 8)))
        content = content[:start] + data.draw(JUNK) + content[end:]
    path = written(tmp_path, content)
    try:
        requests = read_requests(path)
    except TraceError as error:
        message = str(error)
    else:
        check_reading(requests)
        return
    assert message.startswith(path)
    assert len(message.splitlines()) == 1


def check_reading(requests: Requests) -> None:
    assert len(requests) > 0
    assert requests.arrival_s[0] == 0
    assert np.all(requests.input_tokens >= 1)
    assert np.all(requests.output_tokens >= 0)
    assert np.all((requests.prefix_tokens >= 0) & (requests.prefix_tokens <= requests.input_tokens))
    assert np.all(np.isfinite(requests.think_s) & (requests.think_s >= 0))
    assert np.all(requests.block_count <= requests.input_tokens // PREFIX_BLOCK_TOKENS)
    assert len(requests.block_ids) == requests.block_count.sum()
    assert set(requests.block_ids.tolist()) == set(range(len(set(requests.block_ids.tolist()))))
