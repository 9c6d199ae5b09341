"""Whose a request is: by the hash of the key that it bears."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.serve.config import KeyConfig
from autopoiesis.serve.keys import ANONYMOUS, KeyRing


def config(secret: bytes, name: str = "team", requests_per_minute: float | None = None) -> KeyConfig:
    return KeyConfig(name=name, sha256=hashlib.sha256(secret).hexdigest(), requests_per_minute=requests_per_minute)


secrets = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40).map(str.encode)


@given(st.lists(secrets, min_size=1, max_size=8, unique=True), secrets)
def test_a_key_is_found_by_its_secret_and_by_nothing_else(known: list[bytes], asked: bytes) -> None:
    ring = KeyRing([config(secret, f"key{i}") for i, secret in enumerate(known)])
    found = ring.find(b"Bearer " + asked)
    assert (found.name if found else None) == (f"key{known.index(asked)}" if asked in known else None)


@given(st.binary(max_size=80))
def test_any_header_is_nobodys_or_a_keys(header: bytes) -> None:
    ring = KeyRing([config(b"secret")])
    found = ring.find(header)
    assert found is None or header[:7].lower() == b"bearer "


@pytest.mark.parametrize(
    "header", [None, b"", b"secret", b"Bearer", b"Bearer ", b"Basic secret", b"Bearer secret2", b"Bearer secre"]
)
def test_without_the_secret_a_request_is_nobodys(header: bytes | None) -> None:
    assert KeyRing([config(b"secret")]).find(header) is None


@pytest.mark.parametrize("header", [b"Bearer secret", b"bearer secret", b"BEARER secret", b"Bearer  secret "])
def test_the_scheme_is_read_as_rfc_9110_says(header: bytes) -> None:
    found = KeyRing([config(b"secret")]).find(header)
    assert found is not None
    assert found.name == "team"


def test_the_hash_itself_opens_nothing() -> None:
    assert KeyRing([config(b"secret")]).find(b"Bearer " + hashlib.sha256(b"secret").hexdigest().encode()) is None


@given(st.none() | st.binary(max_size=40))
def test_without_keys_everybody_is_let_in(header: bytes | None) -> None:
    found = KeyRing(()).find(header)
    assert found is not None
    assert found.name == ANONYMOUS


def test_indexes_follow_the_configuration() -> None:
    ring = KeyRing([config(b"a", "first"), config(b"b", "second")])
    assert ring.names == ("first", "second")
    for i, header in enumerate((b"Bearer a", b"Bearer b")):
        found = ring.find(header)
        assert found is not None
        assert found.index == i


def test_a_key_of_one_request_per_minute_may_send_one() -> None:
    found = KeyRing([config(b"a", requests_per_minute=1.0)]).find(b"Bearer a")
    assert found is not None
    assert found.requests is not None
    assert found.requests.retry_after_s(0.0, 0.0, 1) == 0
    assert found.requests.retry_after_s(0.0, 1.0, 1) == pytest.approx(60)
