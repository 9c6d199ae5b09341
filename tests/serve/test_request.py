"""What the gateway keeps of a request's head, and what goes on to a replica."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.serve.http import HOP_BY_HOP, NOT_FORWARDED
from autopoiesis.serve.openai import ApiError
from autopoiesis.serve.request import Request, seconds, span

tokens = st.text(st.sampled_from("abcXYZ019-_"), min_size=1, max_size=12).map(str.encode)
known = st.sampled_from(sorted(NOT_FORWARDED | {b"origin", b"accept", b"user-agent", b"content-type"}))
values = st.binary(max_size=40).map(lambda value: bytes(byte for byte in value if byte >= 32))
headers = st.lists(st.tuples(known | tokens | known.map(bytes.upper), values), max_size=12)


def request(headers: list[tuple[bytes, bytes]]) -> Request:
    made = Request()
    for name, value in headers:
        try:
            made.header(name, value)
        except ApiError:
            assert name.lower() == b"x-request-timeout"
    return made


@given(headers)
def test_headers_of_one_connection_do_not_go_on_and_all_others_do_in_order(headers: list[tuple[bytes, bytes]]) -> None:
    connection = b",".join(value for name, value in headers if name.lower() == b"connection")
    named = {option.strip().lower() for option in connection.split(b",")} - {b"keep-alive", b"close"}
    expected = [
        b"%b: %b\r\n" % (name.lower(), value)
        for name, value in headers
        if name.lower() not in NOT_FORWARDED and name.lower() not in named
    ]
    assert request(headers).lines() == b"".join(expected)


def test_a_key_never_goes_on_to_a_replica() -> None:
    made = request([(b"Authorization", b"Bearer secret"), (b"Proxy-Authorization", b"secret"), (b"X-A", b"b")])
    assert made.lines() == b"x-a: b\r\n"
    assert b"authorization" in NOT_FORWARDED
    assert b"transfer-encoding" in HOP_BY_HOP


@given(st.binary(max_size=150))
def test_a_request_id_is_used_only_if_it_is_harmless(value: bytes) -> None:
    made = request([(b"X-Request-ID", value)])
    assert made.id in (b"", value)
    assert not made.id or re.fullmatch(rb"[A-Za-z0-9_.:-]{1,128}", made.id)


@given(st.floats(min_value=1e-9, max_value=1e9))
def test_a_time_limit_is_a_number_of_seconds(value: float) -> None:
    assert seconds(str(value).encode()) == value


@pytest.mark.parametrize("value", [b"", b"0", b"-1", b"nan", b"inf", b"1e999", b"soon", b"\xff", b"1 2", b"0x10"])
def test_any_other_time_limit_is_refused(value: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        seconds(value)
    assert refused.value.status == 400
    assert refused.value.param == "x-request-timeout"


hexadecimal = "0123456789abcdef"


@given(st.text(hexadecimal, min_size=32, max_size=32), st.text(hexadecimal, min_size=16, max_size=16), st.integers())
def test_a_span_is_in_the_clients_trace(trace: str, parent: str, seed: int) -> None:
    ours = span(f"00-{trace}-{parent}-01".encode(), random.Random(seed)).decode()
    version, its_trace, its_parent, flags = ours.split("-")
    assert version == "00"
    if set(trace) != {"0"} and set(parent) != {"0"}:
        assert (its_trace, flags) == (trace, "01")
    assert set(its_parent) != {"0"}


@given(st.binary(max_size=70), st.integers())
def test_a_trace_that_cannot_be_used_is_replaced(value: bytes, seed: int) -> None:
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", span(value, random.Random(seed)))
