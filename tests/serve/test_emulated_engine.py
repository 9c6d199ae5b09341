"""`autopoiesis engine` over real sockets: what clients, gateways and operators see of it."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from emulated_scenes import COST
from engine_processes import MODEL, PATIENCE_S, STARTED, Engine, engine, ready_engine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TIMES = COST.steps(MODEL, "h100", 1, 1, 2)
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 12}


@pytest.fixture(scope="module")
def fast() -> Iterator[Engine]:
    """One whose steps take microseconds."""
    with ready_engine("--speed", "1000", "--served-model-name", MODEL, "--served-model-name", "story-teller") as it:
        yield it


@pytest.fixture(scope="module")
def client(fast: Engine) -> Any:
    openai = pytest.importorskip("openai")
    return openai.OpenAI(base_url=f"{fast.url}/v1", api_key="none", max_retries=0)


# --- the official client ---------------------------------------------------------------------------------------------


def test_the_official_client_chats(client: Any) -> None:
    answer = client.chat.completions.create(**CHAT)
    (choice,) = answer.choices
    assert (choice.message.role, choice.finish_reason) == ("assistant", "length")
    assert len(choice.message.content.split()) == answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


def test_a_stream_says_the_same_words_as_the_whole_answer_and_then_its_usage(client: Any) -> None:
    whole = client.chat.completions.create(**CHAT)
    events = list(client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    assert events[0].choices[0].delta.role == "assistant"
    assert "".join(e.choices[0].delta.content for e in events if e.choices) == whole.choices[0].message.content
    assert events[-1].usage == whole.usage.model_copy(
        update={"prompt_tokens_details": events[-1].usage.prompt_tokens_details}
    )
    assert [e.choices[0].finish_reason for e in events if e.choices][-2:] == [None, "length"]


def test_every_token_is_an_event_of_its_own(client: Any) -> None:
    events = list(client.completions.create(model=MODEL, prompt="One", max_tokens=30, stream=True))
    assert [len(event.choices[0].text.split()) for event in events] == [1] * 30


def test_usage_can_go_along_with_every_event(client: Any) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = list(
        client.completions.create(model=MODEL, prompt="One", max_tokens=5, stream=True, stream_options=options)
    )
    assert [event.usage.completion_tokens for event in events] == [1, 2, 3, 4, 5, 5]


def test_the_official_client_gets_vectors_of_length_1(client: Any) -> None:
    answer = client.embeddings.create(model=MODEL, input=["one", "two", "one"], dimensions=8)
    first, second, third = (entry.embedding for entry in answer.data)
    assert first == third != second
    assert sum(x * x for x in first) == pytest.approx(1, abs=1e-6)
    floats = client.embeddings.create(model=MODEL, input="one", dimensions=8, encoding_format="float")
    assert struct.pack("8f", *floats.data[0].embedding) == struct.pack("8f", *first)


def test_every_served_name_is_a_model(client: Any) -> None:
    assert [model.id for model in client.models.list()] == [MODEL, "story-teller"]
    assert client.chat.completions.create(**{**CHAT, "model": "story-teller"}).model == MODEL


def test_a_model_that_it_does_not_serve_is_not_found(client: Any) -> None:
    import openai

    with pytest.raises(openai.NotFoundError, match=r"serves llama-3\.1-8b, story-teller"):
        client.chat.completions.create(**{**CHAT, "model": "gpt-oss"})


# --- what it says ----------------------------------------------------------------------------------------------------


def test_the_same_seed_prompt_and_max_tokens_give_the_same_words(fast: Engine) -> None:
    texts = [fast.complete(max_tokens=20)[1]["choices"][0]["text"] for _ in range(2)]
    with ready_engine("--speed", "1000") as other, ready_engine("--speed", "1000", "--seed", "1") as seeded:
        texts += [it.complete(max_tokens=20)[1]["choices"][0]["text"] for it in (other, seeded)]
    assert texts[0] == texts[1] == texts[2] != texts[3]


def test_without_max_tokens_a_chat_ends_by_itself(fast: Engine) -> None:
    answers = [
        fast.call("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": str(i)}]})[1]
        for i in range(8)
    ]
    assert {answer["choices"][0]["finish_reason"] for answer in answers} == {"stop"}
    assert len({answer["usage"]["completion_tokens"] for answer in answers}) > 4


def test_text_counts_a_token_for_every_four_bytes_and_ids_one_each(fast: Engine) -> None:
    assert fast.complete("123456789")[1]["usage"]["prompt_tokens"] == 3
    assert fast.complete([7] * 9)[1]["usage"]["prompt_tokens"] == 9
    assert fast.complete(["ä" * 10])[1]["usage"]["prompt_tokens"] == 5


def test_the_next_turn_of_a_conversation_finds_prompt_and_answer_cached() -> None:
    with ready_engine("--speed", "1000") as it:
        messages = [{"role": "user", "content": "Tell me a story. " * 20}]
        first = it.call("POST", "/v1/chat/completions", {"messages": messages, "max_tokens": 100})[1]
        messages += [first["choices"][0]["message"], {"role": "user", "content": "Go on."}]
        second = it.call("POST", "/v1/chat/completions", {"messages": messages, "max_tokens": 1})[1]
        # the answer's last token has no KV entry, and only full blocks are kept
        held = (first["usage"]["total_tokens"] - 1) // 16 * 16
        assert second["usage"]["prompt_tokens_details"] == {"cached_tokens": held}
        assert it.metric("vllm:prefix_cache_hits_total") == held
        asked = first["usage"]["prompt_tokens"] + second["usage"]["prompt_tokens"]
        assert it.metric("vllm:prefix_cache_queries_total") == asked
        assert it.call("POST", "/reset_prefix_cache")[0] == 200
        third = it.call("POST", "/v1/chat/completions", {"messages": messages, "max_tokens": 1})[1]
        assert third["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [1, 100])
def test_a_lone_answer_takes_what_the_cost_model_says_divided_by_speed(speed: int) -> None:
    with ready_engine("--speed", str(speed)) as it:
        it.complete("word" * 100, max_tokens=20)
        assert it.metric("vllm:e2e_request_latency_seconds_sum") == pytest.approx(
            TIMES.unloaded_s(100, 20, 8192) / speed, rel=1e-6
        )


def test_while_it_loads_it_is_not_healthy_and_takes_nothing() -> None:
    with engine("--load-s", "3600") as it:
        assert it.call("GET", "/health")[0] == 503
        status, answer = it.complete()
        assert (status, answer["error"]["type"]) == (503, "ServiceUnavailableError")
        assert it.metric("vllm:num_requests_running") == 0


def test_a_load_becomes_health_by_itself() -> None:
    with engine("--speed", "1000") as it:  # as long as the cost model says
        while it.call("GET", "/health")[0] != 200:
            pass
        assert it.complete()[0] == 200


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_metrics_have_counted_what_was_served() -> None:
    with ready_engine("--speed", "1000") as it:
        for tokens in (1, 5, 10):
            assert it.complete("word" * 50, max_tokens=tokens)[0] == 200
        it.call("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "?"}]})
        generated = it.metric("vllm:generation_tokens_total")
        assert generated > 16
        assert it.metric("vllm:prompt_tokens_total") == 150 + 5
        assert it.metric("vllm:request_success_total", finished_reason="length") == 3
        assert it.metric("vllm:request_success_total", finished_reason="stop") == 1
        for name in ("time_to_first_token", "e2e_request_latency", "request_queue_time"):
            assert it.metric(f"vllm:{name}_seconds_count") == 4
        assert it.metric("vllm:inter_token_latency_seconds_count") == generated - 4
        assert it.metric("vllm:num_requests_running") == it.metric("vllm:num_requests_waiting") == 0
        assert it.metric("vllm:kv_cache_usage_perc") == 0
        assert it.call("GET", "/load")[1] == {"server_load": 0}
        config = {"block_size": "16", "num_gpu_blocks": str(TIMES.kv_tokens // 16)}
        assert it.metric("vllm:cache_config_info", **config) == 1


def test_metrics_show_what_runs_and_waits_now() -> None:
    with ready_engine("--max-num-seqs", "2", "--num-gpu-blocks-override", "1000") as it:
        streams = [it.begin_stream(max_tokens=8000, prompt=f"{i}") for i in range(2)]
        with socket.create_connection(it.address) as third:
            third.sendall(b'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 14\r\n\r\n{"prompt":"a"}')
            it.until("vllm:num_requests_waiting", 1)
            assert it.metric("vllm:num_requests_running") == 2
            assert it.metric("vllm:kv_cache_usage_perc") >= 2 / 1000
            assert it.call("GET", "/load")[1] == {"server_load": 3}
            for stream, _ in streams:
                stream.close()


def test_where_kv_blocks_run_out_sequences_are_preempted_and_end_all_the_same() -> None:
    with ready_engine("--speed", "100", "--num-gpu-blocks-override", "40") as it:
        streams = [it.begin_stream(max_tokens=400, prompt=f"{i}" * 400) for i in range(3)]
        for stream, file in streams:
            assert file.read().endswith(b"data: [DONE]\n\n")
            stream.close()
        assert it.metric("vllm:num_preemptions_total") > 0
        assert it.metric("vllm:generation_tokens_total") == 1200


# --- lives and deaths ------------------------------------------------------------------------------------------------


def test_a_client_that_goes_away_frees_what_it_held() -> None:
    with ready_engine() as it:
        stream, file = it.begin_stream(max_tokens=100_000)
        assert it.metric("vllm:num_requests_running") == 1
        file.close()
        stream.close()
        it.until("vllm:num_requests_running", 0)
        assert it.metric("vllm:kv_cache_usage_perc") == 0
        assert it.metric("vllm:request_success_total", finished_reason="abort") == 1


def test_sigterm_lets_everything_end_within_the_timeout_and_takes_nothing_new() -> None:
    with ready_engine("--shutdown-timeout", "60") as it:
        streams = [it.begin_stream(max_tokens=150, prompt=f"{i}") for i in range(4)]
        it.process.send_signal(signal.SIGTERM)
        while it.call("GET", "/health")[0] != 503:
            pass
        assert it.complete()[0] == 503
        for stream, file in streams:
            rest = file.read()
            assert rest.count(b'"text"') == 149
            assert rest.endswith(b"data: [DONE]\n\n")
            stream.close()
        assert it.process.wait(PATIENCE_S) == 0


def test_sigterm_without_a_timeout_cuts_everything_off_as_vllm_does() -> None:
    with ready_engine() as it:
        stream, file = it.begin_stream(max_tokens=100_000)
        it.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(ConnectionResetError):
            assert not file.read().endswith(b"data: [DONE]\n\n")
        stream.close()
        assert it.process.wait(PATIENCE_S) == 0


def test_a_kill_is_a_crash_and_another_engine_takes_the_port() -> None:
    with ready_engine() as it:
        stream, file = it.begin_stream(max_tokens=100_000)
        it.process.kill()
        assert it.process.wait(PATIENCE_S) == -signal.SIGKILL
        with contextlib.suppress(ConnectionResetError):
            assert not file.read().endswith(b"data: [DONE]\n\n")
        stream.close()
    with ready_engine("--port", str(it.address[1])) as again:
        assert again.address == it.address
        assert again.complete()[0] == 200


def test_an_address_in_use_is_refused_in_one_line(fast: Engine) -> None:
    with (
        pytest.raises(AssertionError, match=r"cannot listen there: .* --port 0 for a free one"),
        engine("--port", str(fast.address[1])),
    ):
        pass


def test_asleep_it_keeps_who_comes_waiting_until_it_wakes() -> None:
    with ready_engine("--speed", "100") as it:
        stream, file = it.begin_stream(max_tokens=2000)
        assert it.call("POST", "/sleep?level=1&mode=wait")[0] == 200
        assert file.read().endswith(b"data: [DONE]\n\n")
        stream.close()
        assert it.call("GET", "/is_sleeping")[1] == {"is_sleeping": True}
        assert it.metric("vllm:engine_sleep_state", sleep_state="awake") == 0
        body = b'{"prompt": "a", "max_tokens": 2}'
        with socket.create_connection(it.address, timeout=PATIENCE_S) as waiting:
            waiting.sendall(
                b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
            )
            while it.call("GET", "/load")[1] != {"server_load": 1}:
                pass
            assert it.call("POST", "/wake_up")[0] == 200
            assert waiting.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_a_sleep_that_does_not_wait_ends_answers_where_they_are() -> None:
    with ready_engine() as it:
        stream, file = it.begin_stream(max_tokens=100_000)
        assert it.call("POST", "/sleep?level=1&mode=abort")[0] == 200
        assert b'"finish_reason":"abort"' in file.read()
        stream.close()
        assert it.metric("vllm:request_success_total", finished_reason="abort") == 1


# --- HTTP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b'{"prompt": "a"', "not valid JSON"),
        (b'{"prompt": "\xff"}', "not valid JSON"),
        (b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not valid JSON"),
        (b"[1]", "Expected `object`"),
        (b"{}", "missing required field `prompt`"),
        (b'{"prompt": 7}', "Expected `str | array`"),
        (b'{"prompt": ""}', "'prompt' must not be empty"),
        (b'{"prompt": []}', "'prompt' must not be empty"),
        (b'{"prompt": ["a", "b"]}', "must be one prompt"),
        (b'{"prompt": [1, "b"]}', "must be text or token ids"),
        (b'{"prompt": [-1]}', "must be text or token ids"),
        (b'{"prompt": [99999999999999999999999]}', "must be text or token ids"),
        (b'{"prompt": "a", "max_tokens": "9"}', "Expected `int | null`, got `str` - at `$.max_tokens`"),
        (b'{"prompt": "a", "max_tokens": 0}', "'max_tokens' must be at least 1"),
        (b'{"prompt": "a", "max_tokens": 131073}', "maximum context length is 131072 tokens"),
        (b'{"prompt": "a", "n": 2}', "'n' must be 1"),
        (b'{"prompt": "a", "echo": true}', "'echo' is not emulated"),
    ],
)
def test_a_body_that_cannot_be_used_is_refused_as_openai_does(fast: Engine, body: bytes, says: str) -> None:
    status, answer = fast.call("POST", "/v1/completions", body)
    assert (status, answer["error"]["code"], answer["error"]["type"]) == (400, 400, "BadRequestError")
    assert says in answer["error"]["message"]


def test_only_texts_can_be_parts_of_a_message(fast: Engine) -> None:
    text = {"type": "text", "text": "a"}
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    for parts, status in (([text, text], 200), ([text, image], 400)):
        body = {"messages": [{"role": "user", "content": parts}], "max_tokens": 1}
        assert fast.call("POST", "/v1/chat/completions", body)[0] == status


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/v1/completions", 405), ("POST", "/health", 405)]
)
def test_what_there_is_not_is_said_in_the_form_of_openai(fast: Engine, method: str, path: str, status: int) -> None:
    answered, body = fast.call(method, path)
    assert (answered, body["error"]["code"]) == (status, status)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\ncontent-length: -5\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 300 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\ncontent-length: 40000000\r\n\r\n" + b"x" * 40_000_000, 413),
    ],
    ids=["nonsense", "smuggled", "negative", "target", "headers", "header", "body"],
)
def test_what_is_no_http_or_too_much_of_it_is_refused_and_the_connection_closed(
    fast: Engine, sent: bytes, status: int
) -> None:
    head, _, body = fast.exchange(sent).partition(b"\r\n\r\n")
    assert head.split(b" ", 2)[1] == b"%d" % status
    assert b"connection: close" in head
    assert json.loads(body)["error"]["code"] == status
    assert fast.complete()[0] == 200


WHOLE = b'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 30\r\n\r\n{"prompt":"abc","max_tokens":3}'


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(WHOLE)), st.integers(0, len(WHOLE)), st.binary(max_size=20))
def test_whatever_is_sent_the_answer_is_http_or_silence_and_the_engine_lives(
    fast: Engine, start: int, end: int, junk: bytes
) -> None:
    answer = fast.exchange(WHOLE[:start] + junk + WHOLE[end:])
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
    assert fast.call("GET", "/health")[0] == 200


def test_calls_sent_ahead_are_answered_in_their_order(fast: Engine) -> None:
    with socket.create_connection(fast.address, timeout=PATIENCE_S) as client:
        body = b'{"prompt": "a", "max_tokens": 3}'
        call = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-request-id: %d\r\ncontent-length: %d\r\n\r\n%b"
        last = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        client.sendall(b"".join(call % (i, len(body), body) for i in range(5)) + last)
        answers = client.makefile("rb").read()
    ids = [part.split(b'"')[0] for part in answers.split(b'{"id":"cmpl-')[1:]]
    assert ids == [b"0", b"1", b"2", b"3", b"4"]
    assert answers.endswith(b"connection: close\r\n\r\n")


def test_a_client_that_reads_late_gets_every_word(fast: Engine) -> None:
    prompt = {"prompt": "slow", "max_tokens": 40_000}
    body = json.dumps({**prompt, "stream": True}).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.settimeout(PATIENCE_S)
        client.connect(fast.address)
        client.sendall(b"POST /v1/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        assert client.recv(1)
        ended = fast.metric("vllm:request_success_total", finished_reason="length")
        fast.until("vllm:request_success_total", ended + 1, finished_reason="length")
        lines = client.makefile("rb").read().split(b"\n")
    events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
    assert len(events) < 40_000
    told = "".join(event["choices"][0]["text"] for event in events)
    assert told == fast.complete(**prompt)[1]["choices"][0]["text"]


def test_the_callers_request_id_comes_back(fast: Engine) -> None:
    status, answer = fast.call("POST", "/v1/completions", {"prompt": "a"}, X_Request_Id="abc-1")
    assert (status, answer["id"]) == (200, "cmpl-abc-1")


def test_flags_that_cannot_be_are_refused_in_one_line() -> None:
    for flags, says in (
        (("--tensor-parallel", "3"), "--tensor-parallel 3: must divide the model's 32 heads"),
        (("--max-model-len", "200000"), "--max-model-len 200000: model and KV cache allow 131072 tokens"),
    ):
        with pytest.raises(AssertionError, match=says), engine(*STARTED, *flags):
            pass
