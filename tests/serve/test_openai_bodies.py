"""What the gateway reads of bodies, what it rewrites, and the form of errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.serve.openai import ApiError, as_error, asking_for_usage, read_body, read_usage, renamed, wants_usage

anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
names = st.text(min_size=1, max_size=20)
members = st.dictionaries(st.text(max_size=10), anything, max_size=6)
layouts = st.sampled_from(
    [{}, {"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}, {"separators": (" ,\t", "\n: ")}]
)


def written(members: dict[str, Any], layout: dict[str, Any]) -> bytes:
    return b" \n" + json.dumps(members, **layout).encode() + b"\t"


def is_openai_error(content: bytes) -> bool:
    answer = json.loads(content.decode("utf-8"))
    error = answer["error"]
    return (
        isinstance(error["message"], str)
        and isinstance(error["type"], str)
        and (error["param"] is None or isinstance(error["param"], str))
        and (error["code"] is None or (isinstance(error["code"], str | int) and not isinstance(error["code"], bool)))
    )


@given(members, names, names, layouts)
def test_renaming_changes_the_model_and_nothing_else(
    members: dict[str, Any], model: str, other: str, layout: dict[str, Any]
) -> None:
    content = written(members | {"model": model}, layout)
    assert json.loads(renamed(content, other)) == members | {"model": other}


@pytest.mark.parametrize(
    "value", [b"1.0", b"1e2", b"-0", b"0.10", b'"\\u0041"', b"[ 1,2 ]", b'{"a" : 1}', b"12345678901234567890"]
)
def test_what_is_not_rewritten_keeps_its_bytes(value: bytes) -> None:
    content = b'{"temperature":%b,"model":"a","stream":true}' % value
    assert renamed(content, "b") == b'{"temperature":%b,"model":"b","stream":true}' % value
    with_usage = asking_for_usage(content, read_body(content))
    assert with_usage.replace(b'"stream_options":{"include_usage":true},', b"") == content


@given(members, names, layouts, st.none() | st.dictionaries(st.text(max_size=10), anything, max_size=3))
def test_asking_for_usage_changes_stream_options_and_nothing_else(
    members: dict[str, Any], model: str, layout: dict[str, Any], options: dict[str, Any] | None
) -> None:
    members = {name: value for name, value in members.items() if name not in ("stream", "prompt_cache_key")}
    for asked in ({}, {"stream_options": options}):
        content = written(members | {"model": model, "stream": True} | asked, layout)
        body = read_body(content)
        rewritten = json.loads(asking_for_usage(content, body))
        assert rewritten.pop("stream_options") == (asked.get("stream_options") or {}) | {"include_usage": True}
        expected = members | {"model": model, "stream": True}
        expected.pop("stream_options", None)
        rewritten.pop("stream_options", None)
        assert rewritten == expected
        assert wants_usage(read_body(asking_for_usage(content, body)))


@pytest.mark.parametrize("options", ["1", '"yes"', "[]", "true", "[[1]]"])
def test_stream_options_that_are_no_object_are_refused(options: str) -> None:
    body = read_body(b'{"model":"a","stream":true,"stream_options":%b}' % options.encode())
    with pytest.raises(ApiError) as refused:
        wants_usage(body)
    assert refused.value.status == 400
    assert refused.value.param == "stream_options"


member_names = st.sampled_from(
    [*rb"model stream messages stream_options prompt_cache_key x \ud800 \u006dodel".split(), b"\xff", b""]
)
member_values = st.sampled_from(
    [
        *rb'"a" 1 null true {} [] {"include_usage":false} 1e999 NaN - " "\ud800" "\u0000"'.split(),
        *(b'"\xff"', b'{"\xff":1}', b'"\x01"', b"\x00", b"[" * 3000, b'{"a":' * 2000 + b"1" + b"}" * 2000),
    ]
)


def refusal(content: bytes) -> ApiError | None:
    """What is said to a body that cannot be rewritten."""
    try:
        body = read_body(content)
        wants_usage(body)
        asking_for_usage(content, body)
        renamed(content, "b")
    except ApiError as error:
        return error
    return None


@given(
    st.binary(max_size=60)
    | st.lists(st.tuples(member_names, member_values), max_size=6).map(
        lambda pairs: b'{"model":"a"' + b"".join(b',"%b":%b' % pair for pair in pairs) + b"}"
    )
)
def test_any_body_is_rewritten_or_refused_with_an_openai_error(content: bytes) -> None:
    refused = refusal(content)
    if refused is not None:
        assert refused.status == 400
        assert is_openai_error(refused.body)


def openai_error(message: str, code: str, rest: str = "") -> str:
    return f'{{"error":{{"message":{message},"type":"b","param":null,"code":{code}}}{rest}}}'


@given(
    st.integers(400, 599),
    st.binary(max_size=60)
    | anything.map(lambda value: json.dumps(value).encode())
    | anything.map(lambda value: json.dumps({"error": value}).encode())
    | st.fixed_dictionaries({"message": anything, "type": anything, "param": anything, "code": anything}).map(
        lambda error: json.dumps({"error": error}).encode()
    )
    | st.sampled_from(
        [
            *(
                b'{"detail":"\\ud800"}',
                b'{"message":"\\udfff"}',
                b'{"detail":{"a":NaN}}',
                b'\xef\xbb\xbf{"detail":"a"}',
            ),
            *(b"[" * 100_000, b"1" * 5000, b"<html>", b"NaN", b'{"error":{"message":"a"},"x":NaN}'),
            *(openai_error('"a"', "null").encode(form) for form in ("utf-16", "utf-32")),
            *(openai_error('"\\ud800"', "null").encode(), openai_error('"a"', "NaN").encode()),
            *(openai_error('"a"', "1", ',"x":NaN').encode(), openai_error('"a"', "true").encode()),
        ]
    ),
)
def test_whatever_an_engine_says_becomes_an_openai_error(status: int, content: bytes) -> None:
    assert is_openai_error(as_error(status, content))


@given(st.text(), st.text(), st.none() | st.text(), st.none() | st.text() | st.integers(400, 599))
def test_an_openai_error_is_passed_on_as_it_is(
    message: str, kind: str, param: str | None, code: str | int | None
) -> None:
    content = json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()
    assert as_error(400, content) == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"object":"error","message":"too long","type":"BadRequestError"}', "too long"),  # older vLLM, SGLang
        (b'{"detail":"Not Found"}', "Not Found"),  # FastAPI
        (b'{"error":"no slot"}', "no slot"),
        (b'{"error":{"message":"too long","code":400}}', "too long"),
        (b"<html>", "the engine answered with status 400"),
        (b"", "the engine answered with status 400"),
    ],
)
def test_the_message_of_an_engines_error_is_kept(content: bytes, message: str) -> None:
    assert json.loads(as_error(400, content))["error"]["message"] == message


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (400, b'{"error":{"code":400,"message":"m","type":"exceed_context_size_error","n_ctx":2048}}',
         "exceed_context_size_error"),  # llama.cpp
        (400, b'{"object":"error","message":"m","type":"BadRequestError","code":400}', "BadRequestError"),
        (400, b'{"detail":"m","type":7}', "invalid_request_error"),
        (429, b"", "rate_limit_error"),
        (500, b"", "server_error"),
    ],
)  # fmt: skip
def test_an_engines_error_has_the_type_that_the_engine_gave_it_or_that_of_its_status(
    status: int, content: bytes, kind: str
) -> None:
    assert json.loads(as_error(status, content))["error"]["type"] == kind


@given(st.integers(0, 10**9 - 1), st.integers(0, 10**9 - 1), st.booleans(), layouts)
def test_usage_is_read_in_any_order_and_layout(
    prompt: int, completion: int, completion_first: bool, layout: dict[str, Any]
) -> None:
    usage = {"prompt_tokens": prompt, "total_tokens": 0, "completion_tokens": completion}
    if completion_first:
        usage = dict(reversed(usage.items()))
    content = written({"choices": [{"text": '"prompt_tokens": 1'}], "usage": usage}, layout)
    assert read_usage(content) == (prompt, completion)


@given(st.binary(max_size=100) | st.text().map(lambda text: json.dumps({"choices": [{"text": text}]}).encode()))
def test_where_there_is_no_usage_none_is_read(content: bytes) -> None:
    assert read_usage(content.replace(b'"prompt_tokens"', b"")) is None
