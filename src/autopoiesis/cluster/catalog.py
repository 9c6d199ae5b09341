"""Data files: the GPUs, models and clusters that ship with the package, and a user's own.

Files are TOML. A cluster may be named (`homogeneous-32`) or given as a path to a file of the same form as those
in `data/clusters`.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from autopoiesis.cluster.cluster import Cluster, Pool, SpotLosses
from autopoiesis.cluster.hardware import GPU, Model
from autopoiesis.cluster.storage import OBJECT_STORE_BANDWIDTH, Storage
from autopoiesis.errors import ScenarioError, unknown_name

T = TypeVar("T")

DATA = files("autopoiesis.cluster") / "data"

POOL_WANTED = "add a [[pool]] table as in data/clusters/demo-8.toml"
KINDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "object": "a table",
    "array": "a list",
    "datetime": "a date",
    "date": "a date",
    "time": "a time",
}
"""Kinds of TOML values as a user calls them, by msgspec's names."""
_MESSAGE = re.compile(
    r"(?:Expected `(?P<wanted>[^`]+)`, got `(?P<got>[^`]+)`|Object missing required field `(?P<missing>[^`]+)`)"
    r"(?: - at `\$\.?(?P<path>[^`]*)`)?"
)


@dataclass(frozen=True, slots=True)
class _Whole:
    """What a cluster file says of the cluster as a whole."""

    object_store_bandwidth: float = OBJECT_STORE_BANDWIDTH


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """The tables of a TOML text; `where` names the file in the error."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{where}: not valid TOML: {error}") from error


def convert(value: Any, kind: type[T], where: str) -> T:
    """Tables → a typed dataclass; an error names the file and the field."""
    if isinstance(value, dict) and is_dataclass(kind):
        known = {field.name for field in fields(kind)}
        for name in value:
            if name not in known:
                raise ScenarioError(f"{where}: {unknown_name('field', name, known)}")
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ScenarioError(f"{where}: {_plain(str(error))}") from error
    except ScenarioError as error:
        raise ScenarioError(f"{where}: {error}") from error


def _plain(message: str) -> str:
    """What msgspec says of a value, in words of the file; a message of another form as it is."""
    found = _MESSAGE.fullmatch(message)
    if found is None:
        return message
    path = found["path"] or ""
    if found["missing"]:
        field = f"{path}.{found['missing']}" if path else found["missing"]
        return f"field {field!r} is missing; add it"
    wanted = [KINDS.get(kind, kind) for kind in found["wanted"].split(" | ") if kind != "null"]
    subject = f"field {path!r} " if path else ""
    return f"{subject}must be {' or '.join(wanted)}, not {KINDS.get(found['got'], found['got'])}"


@cache
def gpus() -> dict[str, GPU]:
    """Every GPU kind of the package, by name."""
    tables = parse_toml((DATA / "gpus.toml").read_text(), "gpus.toml")
    return {name: convert({"name": name, **table}, GPU, f"gpus.toml: {name}") for name, table in tables.items()}


@cache
def models() -> dict[str, Model]:
    """Every model of the package, by name."""
    tables = parse_toml((DATA / "models.toml").read_text(), "models.toml")
    return {name: convert({"name": name, **table}, Model, f"models.toml: {name}") for name, table in tables.items()}


def model(name: str) -> Model:
    if name not in models():
        raise ScenarioError(unknown_name("model", name, models()))
    return models()[name]


def cluster_names() -> list[str]:
    return sorted(
        entry.name[: -len(".toml")] for entry in (DATA / "clusters").iterdir() if entry.name.endswith(".toml")
    )


def cluster(name: str) -> Cluster:
    """A cluster of the package by name, or one of the user's by the path of its file."""
    if name in cluster_names():
        return read_cluster((DATA / "clusters" / f"{name}.toml").read_text(), f"{name}.toml", name)
    path = Path(name)
    if path.suffix == ".toml":
        try:
            return read_cluster(path.read_text("utf-8"), name, path.stem)
        except UnicodeDecodeError as error:
            raise ScenarioError(f"{name}: is not a text file in UTF-8; write one and {POOL_WANTED}") from error
        except OSError as error:
            raise ScenarioError(f"{name}: cannot be read as a cluster file: {error}") from error
    raise ScenarioError(unknown_name("cluster", name, cluster_names()) + " (or give the path of a .toml file)")


def read_cluster(text: str, where: str, name: str) -> Cluster:
    tables = parse_toml(text, where)
    if not tables:
        raise ScenarioError(f"{where}: is empty; {POOL_WANTED}")
    unexpected = set(tables) - {"pool", "object_store_bandwidth"}
    if unexpected or not isinstance(tables.get("pool"), list) or not tables["pool"]:
        raise ScenarioError(
            f"{where}: a cluster file holds [[pool]] tables, before them perhaps object_store_bandwidth, and nothing "
            f"else; {POOL_WANTED}"
        )
    whole = convert({field: value for field, value in tables.items() if field != "pool"}, _Whole, where)
    pools = []
    for position, table in enumerate(tables["pool"]):
        at = f"{where}: pool {position + 1}"
        if isinstance(table, dict):
            gpu = table.get("gpu")
            if isinstance(gpu, str):
                if gpu not in gpus():
                    raise ScenarioError(f"{at}: field 'gpu': {unknown_name('GPU', gpu, gpus())}")
                table = {"price_per_hour": gpus()[gpu].price_per_hour, **table}
            for part, kind in (("spot", SpotLosses), ("storage", Storage)):
                if part in table:
                    convert(table[part], kind, f"{at}: field {part!r}")
        pools.append(convert(table, Pool, at))
    try:
        return Cluster(name, tuple(pools), {pool.gpu: gpus()[pool.gpu] for pool in pools}, whole.object_store_bandwidth)
    except ScenarioError as error:
        raise ScenarioError(f"{where}: {error}") from error
