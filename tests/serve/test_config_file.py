"""How a gateway's configuration is read from YAML, and what is said of one that is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from autopoiesis.errors import ConfigError
from autopoiesis.serve.config import Config, Limits, ReplicaConfig
from autopoiesis.serve.config_file import SAID, parse_config, read_config
from autopoiesis.serve.config_tree import FILE_BYTES, NODES

MODELS = "models: [{name: a}]\n"


def read(text: str | bytes) -> Config:
    return parse_config(text.encode() if isinstance(text, str) else text, "f.yaml", Path())


def errors(text: str | bytes) -> list[str]:
    """The lines of the error, without the file's name."""
    with pytest.raises(ConfigError) as refused:
        read(text)
    lines = str(refused.value).splitlines()
    assert all(line.startswith("f.yaml") for line in lines)
    return [line.removeprefix("f.yaml, ") for line in lines]


def error(text: str | bytes) -> str:
    (line,) = errors(text)
    return line


def test_what_is_not_said_has_its_default() -> None:
    config = read(MODELS + "replicas: [{url: 'http://h:1'}]\nlimits: {headers: 7}\n")
    assert config.replicas == (ReplicaConfig(url="http://h:1"),)
    assert config.limits == Limits(headers=7)


def test_null_is_the_value_of_a_field_that_may_have_none() -> None:
    assert read(MODELS + "admin: null\nkeys: []\n").admin is None


def test_a_whole_number_may_stand_where_a_number_is_wanted() -> None:
    assert read(MODELS + "queue: {max_wait_s: 5}\n").queue.max_wait_s == 5.0


def test_an_alias_stands_for_what_it_names() -> None:
    config = read("models: [{name: a, slo: &slow {tpot_s: 2.0}}, {name: b, slo: *slow}]\n")
    assert config.models[0].slo == config.models[1].slo


def test_relative_paths_start_from_the_folder_of_the_file(tmp_path: Path) -> None:
    for name in ("p.py", "c.pem", "k.pem"):
        (tmp_path / name).touch()
    file = tmp_path / "gateway.yaml"
    absolute = tmp_path / "k.pem"
    file.write_text(f"{MODELS}policy: {{file: p.py}}\nlisten: {{tls: {{certificate: c.pem, key: {absolute}}}}}\n")
    config = read_config(file)
    assert config.policy.file == str(tmp_path / "p.py")
    assert config.listen.tls is not None
    assert (config.listen.tls.certificate, config.listen.tls.key) == (str(tmp_path / "c.pem"), str(absolute))


@pytest.mark.parametrize("name", ["missing.yaml", ".", "a\0b"])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / name)


def test_everything_that_is_wrong_is_said_with_line_field_and_mend() -> None:
    text = """\
lisen: {}
models:
  - name: a
    slo: {ttft_s: -1, tpot_s: 0}
    aliases: [b, 5]
  - nam: c
replicas:
  - url: h:1
    share: 2
  - url: http://h:0
    engine: [vllm]
limits: {body_byte: 1}
queue:
telemetry: 5
listen:
  tls:
    certificate: x.pem
  port: 0
  port: 1
"""
    said = [re.match(r"line (\d+): (\S+): (.*)", line) for line in errors(text)]
    assert [(int(match[1]), match[2]) for match in said if match is not None] == [
        (1, "lisen"), (4, "models[0].slo.ttft_s"), (4, "models[0].slo.tpot_s"), (5, "models[0].aliases[1]"),
        (6, "models[1].nam"), (6, "models[1].name"), (8, "replicas[0].url"), (9, "replicas[0].share"),
        (10, "replicas[1].url"), (11, "replicas[1].engine"), (12, "limits.body_byte"), (13, "queue"),
        (14, "telemetry"), (16, "listen.tls.key"), (19, "listen.port"),
    ]  # fmt: skip


def test_what_does_not_fit_together_is_said_with_its_lines() -> None:
    text = "models:\n  - name: a\nreplicas:\n  - url: http://h:1\n    model: b\n  - url: http://h:1\n"
    assert [line[:8] for line in errors(text)] == ["line 5: ", "line 6: "]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("polcy: {}", r"polcy: unknown field 'polcy'; did you mean policy"),
        ("policy: {routr: shares}", r"policy.routr: unknown field 'routr'; did you mean router"),
        ("accounting: 'yes'", r"accounting: must be true or false"),
        ("queue: {max_requests: 1.5}", r"queue.max_requests: must be a whole number"),
        ("queue: {max_requests: yes}", r"queue.max_requests: must be a whole number"),
        ("queue: {max_wait_s: 1e3}", r"queue.max_wait_s: must be a number such as 0.5, without quotes or an exponent"),
        ("policy: {file: 5}", r"policy.file: must be a text; put it in quotes"),
        ("keys: {name: a}", r"keys: must be a list"),
        ("limits: [1]", r"limits: must be a mapping"),
        ("limits:", r"limits: is empty; leave it out"),
        ("1: 2", r"the file: the name of a field must be text"),
        ("<<: {accounting: true}", r"the file: the name of a field must be text"),
        ("? [a]\n: b", r"the file: the name of a field must be text"),
        ("accounting: true\naccounting: true", r"accounting: is given twice"),
        ("log: {level: 2026-11-23}", r"log.level: is no number, truth value or text; quote it"),
        ("policy: {seed: !!int seven}", r"policy.seed: is no number"),
        ("policy: {seed: !!int ''}", r"policy.seed: is no number"),
        ("policy: {seed: !!python/name:os.system ''}", r"policy.seed: is no number"),
        ("log: *levels", r"not valid YAML: found undefined alias 'levels'"),
        ("log: &x [*x]", r"nested too deeply, or in a circle"),
        ("log:\n\tlevel: info", r"not valid YAML: .*'\\t'.*; indent with spaces"),
        ("log: {level: info", r"not valid YAML: "),
        ("---\nlog: {}", r"not valid YAML: .*another document"),
        ("log: \x07", r"a control character, '\\x07'"),
    ],
)
def test_a_mistake_is_named_with_its_mend(text: str, expected: str) -> None:
    assert re.match(rf"line \d+: {expected}", error(MODELS + text + "\n"))


def test_bytes_that_are_not_utf_8_have_a_line() -> None:
    assert error(b"models:\n  - name: \xff\n") == "line 2: not UTF-8; save the file as UTF-8"


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_lacks_models(text: str) -> None:
    assert error(text) == "line 1: models: is missing; add it"


@pytest.mark.parametrize("text", ["- a", "a", "5", "null"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    assert error(text).startswith("line 1: the file: ")


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    with file.open("wb") as large:
        large.truncate(FILE_BYTES + 1)
    with pytest.raises(ConfigError, match="longer than"):
        read_config(file)


def test_aliases_count_as_often_as_they_are_used() -> None:
    layers = ["a0: &a0 [" + "x," * 10 + "]"]
    layers += [f"a{i}: &a{i} [" + f"*a{i - 1}," * 10 + "]" for i in range(1, len(str(NODES)) + 1)]
    assert "more values than a configuration has" in error("\n".join(layers))


def test_brackets_without_end_are_refused() -> None:
    assert "nested too deeply" in error("[" * 100_000)


def test_a_number_of_any_length_is_refused_at_once() -> None:
    assert "is no number" in error(MODELS + "policy: {seed: 1" + ":1" * 100_000 + "}")


def test_an_error_stays_short() -> None:
    lines = errors(MODELS + "".join(f"x{i}: 1\n" for i in range(SAID + 3)))
    assert len(lines) == SAID + 1
    assert lines[-1] == "f.yaml: and 3 more; mend these first"


NAMES = st.sampled_from(
    ["models", "name", "aliases", "replicas", "url", "listen", "port", "tls", "admin", "slo", "keys"]
)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
TAGS = st.sampled_from(["int", "float", "bool", "null", "timestamp", "binary", "set", "omap", "map", "seq", "str"])
SYNTAX = st.text(alphabet="models:name-[]{}&*!<>|?%@'\"#, \n\t0123456789.e~\\\0é", max_size=80)


def is_read_or_refused(content: bytes) -> None:
    """Nothing comes of any content but a configuration, or an error that names the file in each line."""
    try:
        config = parse_config(content, "f.yaml", Path())
    except ConfigError as refused:
        lines = str(refused).split("\n")
        assert all(re.match(r"f\.yaml, line [1-9]\d*: \S", line) for line in lines[:SAID])
    else:
        assert config.models


@settings(deadline=None)
@given(SYNTAX | st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    is_read_or_refused(text.encode("utf-8", "surrogatepass"))


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    is_read_or_refused(content)


@settings(max_examples=200, deadline=None)
@given(TREES)
def test_any_tree_is_read_or_refused(tree: object) -> None:
    is_read_or_refused(yaml.safe_dump(tree, allow_unicode=True).encode())


@settings(deadline=None)
@given(TAGS, SYNTAX)
def test_any_tag_is_read_or_refused(tag: str, text: str) -> None:
    is_read_or_refused(f"{MODELS}accounting: !!{tag} {text}".encode())
