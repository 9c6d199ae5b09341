"""Data files: the GPUs, models and clusters that ship with the package, and a user's own.

Files are TOML. A user's lie in one folder (`user_folder`), as `gpus.d/*.toml`, `models.d/*.toml` and
`clusters.d/NAME.toml`, and come before what ships: an entry of the same name takes its place. A cluster may also be
given as the path of a file. docs/clusters.md has the fields.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from autopoiesis.cluster.cluster import Cluster, Pool
from autopoiesis.cluster.delays import DELAYS
from autopoiesis.cluster.failures import Failures
from autopoiesis.cluster.hardware import GPU, Model
from autopoiesis.cluster.history import read_spot_history
from autopoiesis.cluster.spot import Spot, SpotLosses, SpotRegime, check_notice
from autopoiesis.cluster.storage import OBJECT_STORE_BANDWIDTH, Storage
from autopoiesis.errors import ScenarioError, unknown_name

T = TypeVar("T")

DATA = files("autopoiesis.cluster") / "data"

FILE_BYTES = 1 << 20
"""Largest TOML file that is read."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
"""What a GPU kind, a model or a pool may be called: names are printed and compared."""
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
    except RecursionError as error:
        raise ScenarioError(f"{where}: nested too deeply; tables of fields are enough") from error
    except ValueError as error:
        # Python's limit on the digits of a whole number; the parser passes it through
        raise ScenarioError(f"{where}: holds a whole number of thousands of digits; write a smaller one") from error


def toml_text(path: Path, mend: str = "give the path of a TOML file") -> str:
    """The text of a file of a few tables, no matter what a path leads to."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ScenarioError(f"{path}: cannot be read: {why}; {mend}") from error
    if len(content) > FILE_BYTES:
        raise ScenarioError(f"{path}: larger than {FILE_BYTES} bytes; give a TOML file of a few tables")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ScenarioError(f"{path}: line {line}: not UTF-8; save the file as UTF-8") from error


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


def user_folder() -> Path:
    """Where a user's own data are: `$AUTOPOIESIS_DATA`, or `autopoiesis` in the user's folder of configurations
    (`$XDG_CONFIG_HOME`, `~/.config`). It need not exist, unless it was named."""
    named = os.environ.get("AUTOPOIESIS_DATA")
    if named:
        if not Path(named).is_dir():
            raise ScenarioError(f"AUTOPOIESIS_DATA: {named!r} is no folder; create it, or unset the variable")
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "autopoiesis"


def gpus() -> dict[str, GPU]:
    """Every GPU kind, by name."""
    return _catalog("gpus", GPU, user_folder())


def models() -> dict[str, Model]:
    """Every model, by name."""
    return _catalog("models", Model, user_folder())


def model(name: str) -> Model:
    if name not in models():
        raise ScenarioError(unknown_name("model", name, models()))
    return models()[name]


def gpu(name: str) -> GPU:
    if name not in gpus():
        raise ScenarioError(unknown_name("GPU", name, gpus()))
    return gpus()[name]


@cache
def _catalog(kind: str, entry: type[T], folder: Path) -> dict[str, T]:
    """What ships, and over it what the user's files of that kind say; two files may not say the same."""
    packaged = f"{kind}.toml"
    entries = dict(_entries((DATA / packaged).read_text("utf-8"), entry, packaged))
    origin: dict[str, Path] = {}
    for path in _user_files(kind, folder):
        for name, read in _entries(toml_text(path, "mend or remove it"), entry, str(path)):
            if name in origin:
                raise ScenarioError(f"{path}: {name}: is in {origin[name].name} as well; keep one of the two")
            origin[name] = path
            entries[name] = read
    return entries


def _entries(text: str, kind: type[T], where: str) -> Iterator[tuple[str, T]]:
    for name, table in parse_toml(text, where).items():
        if not isinstance(table, dict):
            raise ScenarioError(f'{where}: {name}: must be a table; write ["{name}"] above the fields of an entry')
        if "name" in table:
            raise ScenarioError(f"{where}: {name}: field 'name' is the name of the table; remove it")
        if not NAME.fullmatch(name):
            raise ScenarioError(f"{where}: {name!a}: a name is of letters, digits and . _ + -")
        yield name, convert({"name": name, **table}, kind, f"{where}: {name}")


def _user_files(kind: str, folder: Path) -> list[Path]:
    return sorted((folder / f"{kind}.d").glob("*.toml"))


def cluster_names() -> list[str]:
    """Those that ship, and the user's."""
    packaged = {
        entry.name.removesuffix(".toml") for entry in (DATA / "clusters").iterdir() if entry.name.endswith(".toml")
    }
    return sorted(packaged | {path.stem for path in _user_files("clusters", user_folder())})


def cluster(name: str) -> Cluster:
    """A cluster of the user's or of the package by name, or one by the path of its file."""
    own = user_folder() / "clusters.d" / f"{name}.toml"
    if own in _user_files("clusters", user_folder()):
        return read_cluster(toml_text(own, "mend or remove it"), str(own), name, own.parent)
    if name in cluster_names():
        return read_cluster((DATA / "clusters" / f"{name}.toml").read_text("utf-8"), f"{name}.toml", name)
    path = Path(name)
    if path.suffix == ".toml":
        return read_cluster(toml_text(path, POOL_WANTED), name, path.stem, path.parent)
    raise ScenarioError(unknown_name("cluster", name, cluster_names()) + " (or give the path of a .toml file)")


@dataclass(frozen=True, slots=True)
class _HistoryFile:
    """A pool's spot market as a file says it."""

    history: str
    notice_s: float = 120.0

    def __post_init__(self) -> None:
        check_notice(self.notice_s)


def read_spot(table: Any, where: str, folder: Path) -> Spot:
    """One of the three forms, by the field that only it has; histories are files in, or from, `folder`."""
    if not isinstance(table, dict) or {"losses_per_hour", "nodes_per_loss", "recovery_s"} & set(table):
        return convert(table, SpotLosses, where)
    if "regime" in table:
        return convert(table, SpotRegime, where)
    if "history" in table:
        file = convert(table, _HistoryFile, where)
        return read_spot_history(str(folder / file.history), file.notice_s)
    raise ScenarioError(f"{where}: says nothing of losses; give regime, history or losses_per_hour")


def read_cluster(text: str, where: str, name: str, folder: Path = Path()) -> Cluster:
    """A cluster as a file says it; what the file names is looked for from `folder` on."""
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
            if table.get("start_delay") in tuple(DELAYS) and not {"start_s_p50", "start_s_p90"} & set(table):
                named = DELAYS[table["start_delay"]]
                table = {"start_s_p50": named.at(0.5), "start_s_p90": named.at(0.9), **table}
            if "spot" in table:
                table = {**table, "spot": read_spot(table["spot"], f"{at}: field 'spot'", folder)}
            for part, kind in (("failures", Failures), ("storage", Storage)):
                if part in table:
                    convert(table[part], kind, f"{at}: field {part!r}")
        pools.append(convert(table, Pool, at))
    try:
        return Cluster(name, tuple(pools), {pool.gpu: gpus()[pool.gpu] for pool in pools}, whole.object_store_bandwidth)
    except ScenarioError as error:
        raise ScenarioError(f"{where}: {error}") from error
