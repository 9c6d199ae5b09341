"""What a configuration may say, value by value, and what must fit together."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopoiesis.serve.config import (
    TLS,
    Admin,
    Config,
    HealthConfig,
    KeyConfig,
    Limits,
    Listen,
    LogConfig,
    ModelConfig,
    PolicyConfig,
    QueueConfig,
    ReplicaConfig,
    RetryConfig,
    SLOConfig,
    TelemetryConfig,
    identity,
)
from autopoiesis.serve.config_problems import problems
from autopoiesis.serve.config_values import FieldError, is_loopback, where

HASH, OTHER = "a" * 64, "b" * 64
A, B = ModelConfig(name="a"), ModelConfig(name="b")
URL = "http://127.0.0.1:9001"

REFUSED: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (Listen, {"host": ""}),
    (Listen, {"host": "[::1]"}),
    (Listen, {"port": -1}),
    (Listen, {"port": 65536}),
    (Listen, {"workers": 0}),
    (Listen, {"backlog": 0}),
    (Listen, {"drain_s": -0.1}),
    (Admin, {"host": "a b"}),
    (Admin, {"port": 65536}),
    (Admin, {"token_sha256": "a" * 63}),
    (Admin, {"token_sha256": "A" * 64}),
    (SLOConfig, {"ttft_s": 0.0}),
    (SLOConfig, {"ttft_s_per_input_token": -0.1}),
    (SLOConfig, {"tpot_s": math.nan}),
    (ModelConfig, {"name": ""}),
    (ModelConfig, {"name": "a", "served_as": "b\n"}),
    (ModelConfig, {"name": "a", "aliases": ("b", "")}),
    (ModelConfig, {"name": "a", "bytes_per_token": 0.0}),
    (ReplicaConfig, {"url": "127.0.0.1:9001"}),
    (ReplicaConfig, {"url": URL, "id": "a/b"}),
    (ReplicaConfig, {"url": URL, "engine": "tgi"}),
    (ReplicaConfig, {"url": URL, "max_in_flight": -1}),
    (ReplicaConfig, {"url": URL, "max_sequences": 0}),
    (ReplicaConfig, {"url": URL, "speed": 1.5}),
    (ReplicaConfig, {"url": URL, "share": 1.5}),
    (ReplicaConfig, {"url": URL, "api_key_env": "sk-secret"}),
    (PolicyConfig, {"router": "random"}),
    (PolicyConfig, {"prefix_entries": 0}),
    (PolicyConfig, {"seed": -1}),
    (QueueConfig, {"max_requests": -1}),
    (QueueConfig, {"max_wait_s": math.inf}),
    (QueueConfig, {"hold_s": 0.0}),
    (QueueConfig, {"retry_after_s": 0.0}),
    (KeyConfig, {"sha256": HASH, "name": "a b"}),
    (KeyConfig, {"name": "a", "sha256": "sk-secret"}),
    (KeyConfig, {"name": "a", "sha256": HASH, "requests_per_minute": 0.0}),
    (KeyConfig, {"name": "a", "sha256": HASH, "tokens_per_minute": -1.0}),
    (KeyConfig, {"name": "a", "sha256": HASH, "concurrent": 0}),
    *((Limits, {field: 0}) for field in Limits.__struct_fields__),
    (HealthConfig, {"interval_s": 0.0}),
    (HealthConfig, {"timeout_s": 0.0}),
    (HealthConfig, {"failures": 0}),
    (HealthConfig, {"eject_s": 0.0}),
    (HealthConfig, {"eject_max_s": 4.9}),
    (HealthConfig, {"error_ratio": 0.0}),
    (HealthConfig, {"error_window": 0}),
    (HealthConfig, {"max_ejected": 1.1}),
    (TelemetryConfig, {"interval_s": 0.0}),
    (TelemetryConfig, {"timeout_s": 86401.0}),
    (RetryConfig, {"attempts": 0}),
    (RetryConfig, {"ratio": 1.1}),
    (RetryConfig, {"burst": -1}),
    (LogConfig, {"level": "trace"}),
    (Config, {"models": ()}),
]


def found(**fields: Any) -> list[tuple[str, str]]:
    """What does not fit together in a configuration of model `a`, or of the fields given: places and texts."""
    return [(".".join(map(str, place)), text) for place, text in problems(Config(**{"models": (A,), **fields}))]


def replica(port: int, **fields: Any) -> ReplicaConfig:
    return ReplicaConfig(url=f"http://127.0.0.1:{port}", **fields)


@pytest.mark.parametrize(
    ("section", "fields"), REFUSED, ids=[f"{kind.__name__}-{list(fields)[-1]}" for kind, fields in REFUSED]
)
def test_a_value_that_cannot_be_is_refused_by_the_name_of_its_field(
    section: Callable[..., Any], fields: dict[str, Any]
) -> None:
    with pytest.raises(FieldError) as refused:
        section(**fields)
    assert [field for field, _ in refused.value.problems] == [list(fields)[-1]]


def test_everything_that_is_wrong_with_a_section_is_said_at_once() -> None:
    with pytest.raises(ValueError, match=r"port must be .*; workers must be "):
        Listen(port=-1, workers=0)


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        (ReplicaConfig, {"url": "http://user:secret@h:1"}),
        (ReplicaConfig, {"url": "http://h:1/secret"}),
        (ReplicaConfig, {"url": URL, "api_key_env": "sk-secret"}),
        (KeyConfig, {"name": "a", "sha256": "sk-secret"}),
        (Admin, {"token_sha256": "sk-secret"}),
    ],
)
def test_no_error_repeats_what_may_be_a_secret(section: Callable[..., Any], fields: dict[str, Any]) -> None:
    with pytest.raises(FieldError) as refused:
        section(**fields)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("http://h:1", "h", 1, False),
        ("https://h:1/", "h", 1, True),
        ("http://h", "h", 80, False),
        ("https://h", "h", 443, True),
        ("http://[::1]:9", "::1", 9, False),
    ],
)
def test_a_url_says_host_port_and_tls(url: str, host: str, port: int, tls: bool) -> None:
    assert where(url) == (host, port, tls)


@pytest.mark.parametrize(
    "url",
    ["", "h:1", "ftp://h:1", "http://:1", "http://h:0", "http://h:65536", "http://h:x", "http://[::1", "http://a b:1",
     "http://h:1/v1", "http://h:1?x=1", "http://h:1#x", "http://h:1\r\nX-A: b", "http://é:1", "http://u@h:1"],
)  # fmt: skip
def test_a_url_that_is_no_address_of_an_engine_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^must"):
        where(url)


@settings(deadline=None)
@given(st.text())
def test_any_url_is_an_address_or_refused(text: str) -> None:
    try:
        host, port, _ = where(text)
    except ValueError:
        return
    assert host
    assert 1 <= port <= 65535


def test_a_replica_is_called_by_its_id_or_else_its_address() -> None:
    assert identity(replica(9001)) == "127.0.0.1:9001"
    assert identity(replica(9001, id="left")) == "left"


@pytest.mark.parametrize(
    ("host", "holds"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("", False), ("localhost.example.com", False), ("10.0.0.1", False)],
)  # fmt: skip
def test_a_loopback_address_is_one_that_only_this_machine_reaches(host: str, holds: bool) -> None:
    assert is_loopback(host) is holds


def test_what_fits_together_has_no_problems() -> None:
    replicas = (replica(1), replica(2), replica(1, id="again"))
    assert found(replicas=replicas, keys=(KeyConfig(name="k", sha256=HASH, models=("a",)),)) == []


@pytest.mark.parametrize(
    ("models", "place"),
    [
        ((A, A), "models.1.name"),
        ((A, ModelConfig(name="b", aliases=("a",))), "models.1.aliases"),
        ((ModelConfig(name="a", aliases=("b",)), B), "models.1.name"),
        ((ModelConfig(name="a", aliases=("b", "b")),), "models.0.aliases"),
    ],
)
def test_a_name_that_clients_use_means_one_model(models: tuple[ModelConfig, ...], place: str) -> None:
    ((where_it_is, text),) = found(models=models)
    assert where_it_is == place
    assert "already" in text


def test_the_model_of_a_replica_exists() -> None:
    assert [place for place, _ in found(replicas=(replica(1, model="b"),))] == ["replicas.0.model"]


def test_a_replica_of_a_gateway_with_several_models_says_which_it_serves() -> None:
    assert [place for place, _ in found(models=(A, B), replicas=(replica(1), replica(2, model="b")))] == ["replicas.0"]


def test_two_replicas_have_two_names() -> None:
    ((place, text),) = found(replicas=(replica(1), replica(1)))
    assert place == "replicas.1"
    assert "`id`" in text
    assert len(found(replicas=(replica(1, id="x"), replica(2, id="x")))) == 1


def test_keys_have_names_and_hashes_of_their_own_and_models_that_exist() -> None:
    keys = (
        KeyConfig(name="k", sha256=HASH),
        KeyConfig(name="k", sha256=OTHER),
        KeyConfig(name="l", sha256=HASH, models=("b",)),
    )
    assert [place for place, _ in found(keys=keys)] == ["keys.1.name", "keys.2.sha256", "keys.2.models"]


def test_an_admin_api_that_others_reach_has_a_token() -> None:
    assert [place for place, _ in found(admin=Admin(host="0.0.0.0"))] == ["admin.token_sha256"]
    assert found(admin=Admin(host="0.0.0.0", token_sha256=HASH)) == []
    assert found(admin=Admin(host="::1")) == []
    assert found(admin=None) == []


@pytest.mark.parametrize(
    ("host", "port", "clash"),
    [("127.0.0.1", 8001, True), ("0.0.0.0", 8001, True), ("127.0.0.2", 8001, False), ("127.0.0.1", 8000, False)],
)
def test_clients_and_operators_use_two_ports(host: str, port: int, clash: bool) -> None:
    assert [place for place, _ in found(listen=Listen(host=host, port=port))] == ["admin.port"] * clash


def test_two_ports_that_the_system_chooses_do_not_clash() -> None:
    assert found(listen=Listen(port=0), admin=Admin(port=0)) == []


def test_files_that_are_named_are_there(tmp_path: Path) -> None:
    there, missing = tmp_path / "a.pem", tmp_path / "b.pem"
    there.touch()
    listen = Listen(tls=TLS(certificate=str(there), key=str(missing)))
    places = [place for place, _ in found(listen=listen, policy=PolicyConfig(file=str(tmp_path)))]
    assert places == ["policy.file", "listen.tls.key"]


@pytest.mark.parametrize("file", ["", "a\0b", "x" * 5000])
def test_what_can_be_no_path_is_a_file_that_is_not_there(file: str) -> None:
    assert [place for place, _ in found(policy=PolicyConfig(file=file))] == ["policy.file"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads every file")
def test_files_that_are_named_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "policy.py"
    file.touch(mode=0)
    ((_, text),) = found(policy=PolicyConfig(file=str(file)))
    assert "cannot be read" in text
