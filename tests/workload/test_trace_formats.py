"""Every format that is read: how it is known, and what becomes of its columns."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trace_samples import (
    AZURE_2024,
    AZURE_2025,
    BURSTGPT,
    BURSTGPT_3,
    GATEWAY,
    MOONCAKE,
    SAMPLES,
    SERVEGEN,
    SGLANG,
    SGLANG_RUN,
    VLLM,
    VLLM_RUN,
)

from autopoiesis.errors import TraceError
from autopoiesis.workload import Draw, Trace, read_requests, read_trace, source

NAMES = {
    "normalised": "normalised",
    "Azure 2023": "Azure",
    "Azure 2024": "Azure",
    "Azure 2025": "Azure",
    "BurstGPT": "BurstGPT",
    "BurstGPT 3": "BurstGPT",
    "Mooncake": "Mooncake",
    "gateway log": "gateway log",
    "vLLM": "vLLM benchmark",
    "SGLang": "SGLang benchmark",
    "ServeGen": "ServeGen windows",
}


def trace_of(folder: Path, text: str | bytes, **options: Any) -> Trace:
    path = folder / "trace"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_trace(str(path), **options)


def refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(TraceError) as caught:
        trace_of(folder, text)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{folder / 'trace'}: ")
    return message.removeprefix(f"{folder / 'trace'}: ")


def changed(line: dict[str, Any], **fields: Any) -> str:
    kept = {name: value for name, value in {**line, **fields}.items() if value is not ...}
    return json.dumps(kept) + "\n"


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_format_is_known_by_its_content(tmp_path: Path, sample: str, packed: bool) -> None:
    text = SAMPLES[sample].encode()
    trace = trace_of(tmp_path, gzip.compress(text) if packed else text)
    assert trace.format == NAMES[sample]
    assert len(trace.requests) >= 2


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("piece_bytes", [1, 7, 64])
def test_nothing_depends_on_the_pieces_in_which_a_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: str, piece_bytes: int
) -> None:
    whole = trace_of(tmp_path, SAMPLES[sample])
    # What a format is known by has to stand in the first piece.
    monkeypatch.setattr(source, "PIECE_BYTES", 600 if SAMPLES[sample].startswith("{") else piece_bytes)
    pieces = trace_of(tmp_path, SAMPLES[sample])
    for name in (*pieces.requests.COLUMNS, "block_ids"):
        assert np.array_equal(getattr(pieces.requests, name), getattr(whole.requests, name)), name
    assert pieces.models == whole.models


def test_images_of_azure_2025_are_part_of_the_prompt_and_passed_over(tmp_path: Path) -> None:
    requests = trace_of(tmp_path, AZURE_2025).requests
    assert requests.arrival_s.tolist() == [0.0, 0.5]
    assert requests.input_tokens.tolist() == [3100, 310]


def test_a_call_without_a_prompt_is_left_out_and_counted_and_neighbours_are_put_in_order(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, AZURE_2024)
    assert trace.left_out == 1
    assert trace.requests.input_tokens.tolist() == [2399, 2162]
    assert trace.requests.arrival_s == pytest.approx([0.0, 0.00993], abs=1e-9)


def test_burstgpt_keeps_models_and_failed_calls(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, BURSTGPT)
    assert trace.models == ("ChatGPT", "GPT-4")
    assert trace.model.tolist() == [0, 0, 1]
    assert trace.requests.arrival_s.tolist() == [0.0, 40.0, 113.0]
    assert trace.requests.output_tokens.tolist() == [18, 230, 0]
    assert trace.step_s == 1.0


def test_burstgpt_sessions_think_from_the_end_of_the_call_before(tmp_path: Path) -> None:
    requests = trace_of(tmp_path, BURSTGPT_3).requests
    assert requests.previous.tolist() == [-1, -1, 0]
    assert requests.think_s.tolist() == [0.0, 0.0, 92.0 - 43.0]


def test_mooncake_hash_ids_are_prefix_blocks_and_milliseconds_seconds(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, MOONCAKE)
    requests = trace.requests
    assert requests.arrival_s.tolist() == [0.0, 0.0, 3.0]
    assert requests.block_count.tolist() == [3, 3, 1]
    assert requests.block_ids.tolist() == [0, 1, 2, 0, 3, 4, 0]
    assert trace.step_s == 3.0


def test_blocks_follow_their_requests_into_order(tmp_path: Path) -> None:
    first, second, third = MOONCAKE.splitlines()
    moved = trace_of(tmp_path, "\n".join([third, first, second])).requests
    assert moved.arrival_s.tolist() == [0.0, 0.0, 3.0]
    assert moved.block_count.tolist() == [3, 3, 1]
    blocks = moved.blocks_of(np.arange(3))["block_ids"]
    assert blocks.tolist() == [0, 1, 2, 0, 3, 4, 0]


def test_the_gateways_log_is_put_in_order_and_every_request_counts(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, GATEWAY)
    assert trace.requests.arrival_s.tolist() == [0.0, 1.0, 3.5]
    assert trace.requests.input_tokens.tolist() == [40, 10, 90]
    assert trace.requests.previous.tolist() == [-1, -1, 0]
    assert trace.requests.think_s.tolist() == [0.0, 0.0, 1.5]
    assert [trace.models[model] for model in trace.model] == ["llama-3.1-8b", "llama-3.1-70b", "llama-3.1-8b"]


def test_hours_cut_a_log_that_is_in_no_order(tmp_path: Path) -> None:
    assert len(trace_of(tmp_path, GATEWAY, hours=2.0 / 3600).requests) == 2


def test_a_vllm_result_is_put_in_order_of_its_start_times(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, VLLM)
    assert trace.requests.arrival_s.tolist() == [0.0, 1.5, 2.5]
    assert trace.requests.input_tokens.tolist() == [20, 10, 30]
    assert trace.requests.output_tokens.tolist() == [2, 1, 3]
    assert trace.models == ("meta-llama/Llama-3.1-8B",)
    assert trace.drawn == ""


def test_an_indented_result_is_read_as_well(tmp_path: Path) -> None:
    assert len(trace_of(tmp_path, json.dumps(VLLM_RUN, indent=4)).requests) == 3


def test_a_run_without_start_times_is_drawn_at_its_rate_by_the_seed(tmp_path: Path) -> None:
    n = 20_000
    many = changed(SGLANG_RUN, input_lens=[10] * n, output_lens=[1] * n)
    trace = trace_of(tmp_path, many, draw=Draw(seed=3))
    assert "Poisson at the recorded 4 requests/s, seed 3" in trace.drawn
    assert n / trace.requests.arrival_s[-1] == pytest.approx(4.0, rel=0.05)
    again, other = trace_of(tmp_path, many, draw=Draw(seed=3)), trace_of(tmp_path, many, draw=Draw(seed=4))
    assert np.array_equal(trace.requests.arrival_s, again.requests.arrival_s)
    assert not np.array_equal(trace.requests.arrival_s, other.requests.arrival_s)


def test_a_run_at_an_infinite_rate_came_all_at_once(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, changed(VLLM_RUN, start_times=..., request_rate="inf"))
    assert trace.requests.arrival_s.tolist() == [0.0, 0.0, 0.0]
    assert trace.drawn == ""


def test_windows_become_arrivals_at_their_rates_by_the_seed(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, SERVEGEN, draw=Draw(seed=1, scale=40.0))
    arrival_s = trace.requests.arrival_s
    counts = np.histogram(arrival_s, bins=[0, 600, 1200, 1800])[0]
    assert counts == pytest.approx([12_000, 6_000, 12_000], rel=0.1)
    assert "40 times the recorded rates, seed 1" in trace.drawn
    assert trace.requests.input_tokens[arrival_s < 1190].mean() == pytest.approx(355.4, abs=0.05)
    assert trace.requests.output_tokens[(arrival_s > 610) & (arrival_s < 1190)].mean() == pytest.approx(285.5, abs=0.05)
    again = trace_of(tmp_path, SERVEGEN, draw=Draw(seed=1, scale=40.0))
    assert np.array_equal(arrival_s, again.requests.arrival_s)


def test_the_gaps_of_a_client_have_the_recorded_cv(tmp_path: Path) -> None:
    for cv in (0.5, 1.0, 3.0):
        header = "window_start_s,rate_rps,mean_client_iat_cv,mean_input_tokens,mean_output_tokens\n"
        trace = trace_of(tmp_path, f"{header}0,50,{cv},9,9\n20000,50,{cv},9,9\n", hours=5.5)
        gaps_s = np.diff(trace.requests.arrival_s)
        assert gaps_s.std() / gaps_s.mean() == pytest.approx(cv, rel=0.05)
        assert 1 / gaps_s.mean() == pytest.approx(50, rel=0.05)


def test_progress_tells_the_bytes_read(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    trace_of(tmp_path, gzip.compress(BURSTGPT.encode()), progress=lambda done, total: told.append((done, total)))
    size = (tmp_path / "trace").stat().st_size
    assert told[-1] == (size, size)
    assert all(before[0] <= after[0] for before, after in pairwise(told))


REFUSED: dict[str, tuple[str | bytes, str]] = {
    "nothing known in JSON": ('{"a": 1}\n', "line 1: not a request trace: no field is known"),
    "a list": ("[1, 2]\n", "line 1: not a request trace"),
    "prompts to send": ('{"prompt": "Hi", "output_tokens": 3}\n', "holds prompts without lengths"),
    "a field nearly right": (MOONCAKE.replace("input_length", "input_lenght"), "field 'input_length': missing"),
    "columns of two formats": (
        "arrival_s,input_tokens,output_tokens,TIMESTAMP,ContextTokens,GeneratedTokens\n",
        "line 1: has the columns of normalised and Azure",
    ),
    "a word for a number": (MOONCAKE.replace("1536", '"x"'), "line 2: field 'input_length': expected `int`"),
    "a negative": (MOONCAKE.replace("490", "-1"), "line 2: field 'output_length': expected `int` >= 0"),
    "an absurd number": (MOONCAKE.replace("490", "1" + "0" * 30), "line 2: "),
    "a missing field": (MOONCAKE + '{"timestamp": 1}\n', "line 4: Object missing required field"),
    "half a line": (MOONCAKE[:-20], "line 3: not JSON"),
    "deep JSON": (MOONCAKE + '{"timestamp": ' + "[" * 100_000 + "\n", "line 4: "),
    "more blocks than the prompt": (
        MOONCAKE.replace("[0, 6]", "[0, 6, 7]"),
        "line 3: field 'hash_ids': names 3 blocks",
    ),
    "a block that follows another": (MOONCAKE.replace("[0, 6]", "[4, 6]"), "line 3: field 'hash_ids': block 4"),
    "an unknown status": (GATEWAY.replace('"shed"', '"gone"'), "line 3: field 'status'"),
    "no details of vLLM": (changed(VLLM_RUN, input_lens=...), "--save-detailed"),
    "no details of SGLang": (changed(SGLANG_RUN, output_lens=...), "--output-details"),
    "lengths that do not pair": (changed(VLLM_RUN, output_lens=[1]), "'output_lens': 1 values for 3 requests"),
    "starts that do not pair": (changed(VLLM_RUN, start_times=[1.0]), "'start_times': 1 values for 3 requests"),
    "two runs": (SGLANG * 2, "line 2: a second run follows"),
    "a rate of nothing known": (changed(SGLANG_RUN, request_rate="trace"), "when the requests came is not known"),
    "a burst at limited concurrency": (
        changed(VLLM_RUN, start_times=..., request_rate="inf", max_concurrency=8),
        "when the requests came is not known",
    ),
    "one window": (SERVEGEN[: SERVEGEN.index("600,")], "two windows at least"),
    "windows that run back": (SERVEGEN.replace("\n1200,", "\n500,"), "line 4: column 'window_start_s': not later"),
    "windows without lengths": (SERVEGEN.replace("355.4", ""), "line 2: columns 'mean_input_tokens'"),
    "a window of too many": (SERVEGEN.replace("0,0.5,", "0,9999999,", 1), "convert it at a smaller scale"),
    "calls without prompts only": (BURSTGPT.splitlines()[0] + "\n5,GPT-4,0,0,0,API log\n", "no request with a prompt"),
    "a gzip bomb": (gzip.compress((BURSTGPT + "118,GPT-4,417,0,417,API log\n" * 800_000).encode()), "grow more than"),
    "a gzip bomb without lines": (gzip.compress(b"0" * (64 << 20)), "longer than"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_error_names_the_line_and_what_is_wrong(tmp_path: Path, what: str) -> None:
    text, words = REFUSED[what]
    assert words in refusal(tmp_path, text)


def test_a_trace_of_more_requests_than_memory_should_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autopoiesis.workload.readers.recorded.REQUESTS_MAX", 2)
    assert "more than 2 requests" in refusal(tmp_path, BURSTGPT)


def test_all_requests_are_those_of_the_model_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(BURSTGPT)
    assert read_requests(str(tmp_path / "trace"), model=2).model.tolist() == [2, 2, 2]


def test_a_pipe_is_read_as_a_file_is(tmp_path: Path) -> None:
    for text in (BURSTGPT.encode(), gzip.compress(BURSTGPT.encode())):
        reading, writing = os.pipe()
        os.write(writing, text)
        os.close(writing)
        try:
            assert len(read_requests(f"/dev/fd/{reading}")) == 3
        finally:
            os.close(reading)


@pytest.mark.parametrize(
    "text", [f"{'a' * 500_000},input_tokens,output_tokens\n1\n", GATEWAY.replace("shed", "s" * 9_000)]
)
def test_an_error_is_short_whatever_the_file_says(tmp_path: Path, text: str) -> None:
    assert len(refusal(tmp_path, text)) < 500


@pytest.mark.parametrize("sample", ["normalised", "Azure 2023", "BurstGPT", "Mooncake"])
def test_reading_stops_soon_after_the_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: str) -> None:
    monkeypatch.setattr(source, "PIECE_BYTES", 150)
    assert len(trace_of(tmp_path, SAMPLES[sample], hours=1e-4).requests) == (2 if sample == "Mooncake" else 1)
    lines = SAMPLES[sample].splitlines(keepends=True)
    assert len(trace_of(tmp_path, "".join([*lines, *lines[-1:] * 20, "damaged,"]), hours=1e-4).requests) <= 2
    assert "damaged" not in refusal(tmp_path, "".join([*lines, "damaged,"]))


def test_a_large_trace_takes_less_than_350_bytes_a_request(tmp_path: Path) -> None:
    """So that 1.4 million of them fit in 500 MB."""
    n = 100_000
    rows = "".join(f"{i},ChatGPT,{100 + i % 900},{i % 700},0,API log\n" for i in range(n))
    (tmp_path / "trace").write_bytes(gzip.compress((BURSTGPT.splitlines()[0] + "\n" + rows).encode(), 1))
    tracemalloc.start()
    try:
        requests = read_requests(str(tmp_path / "trace"))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(requests) == n
    assert peak_bytes < 350 * n
