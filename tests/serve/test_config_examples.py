"""The examples that ship are right, and they and the page on the gateway name every field there is."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import pytest

from autopoiesis.cli.config import EXAMPLES
from autopoiesis.serve.config import Config, Section
from autopoiesis.serve.config_file import parse_config

FOLDER = files("autopoiesis.serve") / "examples"
PAGE = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([a-z0-9_.\[\]]+)` \| (\S+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def text(name: str) -> str:
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def read(content: str, folder: Path) -> Config:
    return parse_config(content.encode(), "example.yaml", folder)


def fields(kind: type[Section], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names of fields as the page writes them, and their defaults; sections are given by what is in them."""
    for field in msgspec.structs.fields(kind):
        several = typing.get_origin(field.type) is tuple
        inner = [kind for kind in (field.type, *typing.get_args(field.type)) if isinstance(kind, type)]
        section = next((kind for kind in inner if issubclass(kind, Section)), None)
        if section is None or several:
            yield prefix + field.name, field.default
        if section is not None:
            yield from fields(section, f"{prefix}{field.name}{'[]' * several}.")


def shown(default: Any) -> str:
    if default is msgspec.NODEFAULT:
        return "required"
    if default is None:
        return "–"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files are that examples name."""
    for name in ("gateway.pem", "gateway.key", "policy.py"):
        (tmp_path / name).touch()
    return tmp_path


def test_every_example_is_offered() -> None:
    assert {file.name for file in FOLDER.iterdir()} == {f"{name}.yaml" for name in EXAMPLES}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_right(name: str, folder: Path) -> None:
    config = read(text(name), folder)
    assert config.replicas


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_right_with_the_fields_that_it_leaves_out(name: str, folder: Path) -> None:
    with_them = re.sub(r"^( *)# ((?:file|tls): )", r"\1\2", text(name), flags=re.MULTILINE)
    config = read(with_them, folder)
    assert (config.policy.file is None) is ("# file:" not in text(name))


def test_the_examples_name_every_field() -> None:
    named = set(re.findall(r"^[ #-]*([a-z0-9_]+):", "\n".join(map(text, EXAMPLES)), re.MULTILINE))
    assert {name.rpartition(".")[2] for name, _ in fields(Config)} <= named


def test_the_production_example_protects_what_it_opens(folder: Path) -> None:
    config = read(text("production"), folder)
    assert config.listen.tls is not None
    assert config.listen.workers == 2
    assert config.keys
    assert config.admin is not None
    assert config.admin.token_sha256 is not None


def test_the_page_has_every_field_with_its_default() -> None:
    table = [(name, default) for name, default, _, _ in ROW.findall(PAGE)]
    assert table == [(name, shown(default)) for name, default in fields(Config)]


def test_the_page_gives_a_unit_to_every_time_and_size() -> None:
    units = {name: unit for name, _, unit, _ in ROW.findall(PAGE)}
    for name, unit in units.items():
        if name.endswith("_s"):
            assert unit == "s", name
        if name.endswith("_bytes"):
            assert unit == "bytes", name


def test_the_configuration_on_the_page_is_the_smallest_example(tmp_path: Path) -> None:
    (on_page,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert read(on_page, tmp_path) == read(text("minimal"), tmp_path)
