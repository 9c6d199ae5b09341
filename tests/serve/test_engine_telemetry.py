"""What is read from the pages of engines, and from pages that nobody should trust."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_pages import LLAMACPP, PAGES, SGLANG, SLOTS, VLLM
from hypothesis import given, settings
from hypothesis import strategies as st

from autopoiesis.errors import ReplicaError
from autopoiesis.serve.telemetry import PAGE_BYTES_MAX, Telemetry, detect, read


def test_vllm_says_its_load_over_all_engines_of_the_server() -> None:
    assert read("vllm", VLLM) == Telemetry(7.0, 1.0, 0.375, 1000.0, 600.0, 24_000.0)


def test_sglang_says_its_load_over_all_data_parallel_ranks_and_cache_levels() -> None:
    assert read("sglang", SGLANG) == Telemetry(7.0, 2.0, 0.375, 4096.0, 3100.0, 471_258.0)


def test_llamacpp_says_the_context_that_running_requests_have_filled() -> None:
    assert read("llamacpp", LLAMACPP, SLOTS) == Telemetry(1.0, 2.0, 512 / 6144, 40.0, 10.0, 6144.0)


def test_llamacpp_that_hides_its_slots_says_nothing_of_its_cache() -> None:
    assert read("llamacpp", LLAMACPP) == Telemetry(1.0, 2.0, 0.0, 40.0, 10.0, None)


@pytest.mark.parametrize("engine", PAGES)
def test_an_engine_is_known_by_the_names_on_its_page(engine: str) -> None:
    assert detect(PAGES[engine]) == engine


@pytest.mark.parametrize(
    "page",
    [b"", b"process_open_fds 12.0\n", b"# TYPE vllm:num_requests_running gauge\n", b"x vllm:num_requests_running 1"],
)
def test_other_pages_are_of_no_engine(page: bytes) -> None:
    assert detect(page) is None


@pytest.mark.parametrize(
    ("line", "running"),
    [
        (b"vllm:num_requests_running 2", 2.0),
        (b"vllm:num_requests_running 2 1700000000000", 2.0),
        (b"vllm:num_requests_running\t2\r", 2.0),
        (b'vllm:num_requests_running{model_name="a } 9 \\" b"} 2e0', 2.0),
    ],
)
def test_labels_and_time_stamps_do_not_matter(line: bytes, running: float) -> None:
    rest = b"\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0"
    assert read("vllm", line + rest).running == running
    assert detect(line) == "vllm"


def test_labels_that_look_like_others_do_not_count() -> None:
    page = VLLM.replace(b'cache_dtype="auto"', b'cache_dtype="x,block_size=\\"7\\""')
    assert read("vllm", page).kv_tokens == 24_000.0


@pytest.mark.parametrize("blocks", [b"None", b"", b"-1", b"9" * 40])
def test_an_unknown_number_of_blocks_is_no_size(blocks: bytes) -> None:
    page = VLLM.replace(b"1000", blocks).replace(b'"500"', b'"None"')
    assert read("vllm", page).kv_tokens is None


def test_a_cache_is_never_fuller_than_full() -> None:
    assert read("vllm", VLLM.replace(b"} 0.5", b"} 1.75")).kv_use == 1.0


@pytest.mark.parametrize("number", [b"NaN", b"+Inf", b"-1.0", b"1e300", b"many", b"", b"\xff\xfe", b"9" * 100_000])
def test_a_number_that_cannot_be_a_load_is_refused(number: bytes) -> None:
    with pytest.raises(ReplicaError, match="vllm:num_requests_waiting"):
        read("vllm", VLLM.replace(b'waiting{engine="0",model_name="m"} 1.0', b'waiting{engine="0"} ' + number))


@pytest.mark.parametrize("engine", PAGES)
def test_a_page_without_a_load_is_refused_with_the_mend(engine: str) -> None:
    with pytest.raises(ReplicaError, match=r"is missing; set the replica's `engine`"):
        read(engine, b"process_open_fds 12.0\n")


@pytest.mark.parametrize(
    "slots",
    [
        b"",
        b"{}",
        b"[1]",
        b'[{"n_ctx": -1, "is_processing": true}]',
        b'[{"n_ctx": "1", "is_processing": true}]',
        b"[" * 99_999,
    ],
)
def test_slots_of_another_shape_are_refused(slots: bytes) -> None:
    with pytest.raises(ReplicaError, match="/slots"):
        read("llamacpp", LLAMACPP, slots)


def test_a_page_that_is_too_long_is_refused() -> None:
    with pytest.raises(ReplicaError, match="longer than 4 MiB"):
        read("vllm", VLLM + b"#" * PAGE_BYTES_MAX)


def _outcome(reading: Callable[[], Telemetry]) -> Telemetry | None:
    try:
        return reading()
    except ReplicaError:
        return None


@settings(deadline=None)
@given(
    st.sampled_from(sorted(PAGES)),
    st.data(),
)
def test_whatever_is_on_a_page_the_outcome_is_telemetry_or_one_kind_of_error(engine: str, data: st.DataObject) -> None:
    hostile = [b"{", b"}", b'"', b" ", b"\n", b"\xff", b"NaN", b"1e999", b"\0"]
    pieces = [*PAGES[engine].splitlines(keepends=True), *hostile]
    page = b"".join(data.draw(st.lists(st.sampled_from(pieces) | st.binary(max_size=20), max_size=30)))
    slots = data.draw(st.none() | st.binary(max_size=40) | st.just(SLOTS))
    load = _outcome(lambda: read(engine, page, slots))
    assert detect(page) in (*PAGES, None)
    assert load is None or (0 <= load.kv_use <= 1 and min(load.running, load.waiting, load.prefix_queries) >= 0)
