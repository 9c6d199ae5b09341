"""Reads a gateway's configuration from YAML, and says on which line what is wrong.

The file is read as a tree of nodes that know their lines; what is said of a field by its path is looked up there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import yaml

from autopoiesis.errors import ConfigError, unknown_name
from autopoiesis.serve.config import Config, Place, problems

FILE_BYTES = 1 << 20
NODES = 100_000
"""Of a file; more, with aliases counted as often as they are used, are no configuration."""


class _Wrong(Exception):
    """Something at a place in the file."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


def read_config(path: str | Path) -> Config:
    """The configuration in a file; relative paths in it start from its folder.

    Raises ConfigError with a line for each thing to mend, by file, line and field.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; give the path of a YAML file") from None
    return parse_config(content, str(path), path.parent)


def parse_config(content: bytes, name: str, folder: Path) -> Config:
    """As `read_config`, for a content that messages call `name`."""
    lines: dict[Place, int] = {}
    try:
        data = _Reader(lines).read(content)
        config = _converted(data, lines)
    except _Wrong as wrong:
        raise ConfigError(f"{name}, line {wrong.line}: {wrong.message}") from None
    config = _from_folder(config, folder)
    found = problems(config)
    if found:
        raise ConfigError("\n".join(f"{name}, line {_line(p, lines)}: {_dotted(p)}: {text}" for p, text in found))
    return config


class _Reader:
    """Makes plain data of YAML, and notes down on which line each part of it stands."""

    def __init__(self, lines: dict[Place, int]) -> None:
        self._lines = lines
        self._nodes = 0
        self._scalar = yaml.SafeLoader("")

    def read(self, content: bytes) -> Any:
        if len(content) > FILE_BYTES:
            raise _Wrong(1, "larger than 1 MiB; a configuration is shorter")
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _Wrong(content[: error.start].count(b"\n") + 1, "not UTF-8; save the file as UTF-8") from None
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            return {} if node is None else self._value(node, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = 1 if mark is None else mark.line + 1
            raise _Wrong(
                line, f"not valid YAML: {error.problem or error.context}; mind indentation and quotes"
            ) from None
        except yaml.YAMLError as error:
            raise _Wrong(1, f"not valid YAML: {' '.join(str(error).split())}") from None
        except (ValueError, OverflowError) as error:
            raise _Wrong(1, f"a value cannot be read: {error}; quote it if it is a text") from None
        except RecursionError:
            raise _Wrong(1, "nested too deeply, or in a circle; write it without aliases") from None

    def _value(self, node: yaml.Node, place: Place) -> Any:
        self._nodes += 1
        if self._nodes > NODES:
            raise _Wrong(node.start_mark.line + 1, "more values than a configuration has; write it without aliases")
        self._lines[place] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(part, (*place, index)) for index, part in enumerate(node.value)]
        return self._scalar.construct_object(node)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise _Wrong(line, "the name of a field must be plain text")
            if key.value in values:
                raise _Wrong(line, f"{_dotted((*place, key.value))}: given twice; leave one out")
            values[key.value] = self._value(value, (*place, key.value))
            self._lines[(*place, key.value)] = line
        return values


def _converted(data: Any, lines: dict[Place, int]) -> Config:
    if not isinstance(data, dict):
        raise _Wrong(1, "a configuration is a mapping of fields; `autopoiesis config example` shows one")
    try:
        return msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        place = _place(path.rstrip("`"))
        if (match := re.search(r"unknown field `(.*)`", message)) is not None:
            place = (*place, match[1])
            raise _Wrong(_line(place, lines), _unknown(place)) from None
        field = message.partition(" ")[0]
        if (*place, field) in lines:  # what a section says of itself begins with the field
            place, message = (*place, field), message.removeprefix(field).strip()
        where = f"{_dotted(place)}: " if place else ""
        raise _Wrong(_line(place, lines), where + message[:1].lower() + message[1:]) from None


def _unknown(place: Place) -> str:
    """What to say of a field that nobody knows."""
    kind: Any = Config
    for part in place[:-1]:
        kind = _of(kind, part)
    return f"{_dotted(place)}: {unknown_name('field', str(place[-1]), kind.__struct_fields__)}"


def _of(kind: Any, part: str | int) -> Any:
    """The type of a field, or of the entries of a list; a field that may be None has its other type."""
    if isinstance(part, int):
        return kind
    (field,) = (field for field in msgspec.structs.fields(kind) if field.name == part)
    inner = [field.type]
    while inner and not (isinstance(inner[0], type) and issubclass(inner[0], msgspec.Struct)):
        inner = [*getattr(inner[0], "__args__", ()), *inner[1:]]
    return inner[0]


def _place(path: str) -> Place:
    """`$.replicas[0].url` as ("replicas", 0, "url")."""
    parts = re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", path)
    return tuple(name or int(index) for name, index in parts)


def _dotted(place: Place) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def _line(place: Place, lines: dict[Place, int]) -> int:
    """That of the place, or of the nearest thing around it that is in the file."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


def _from_folder(config: Config, folder: Path) -> Config:
    """Paths from the file's folder."""
    listen, policy = config.listen, config.policy
    if listen.tls is not None:
        tls = msgspec.structs.replace(
            listen.tls, certificate=str(folder / listen.tls.certificate), key=str(folder / listen.tls.key)
        )
        listen = msgspec.structs.replace(listen, tls=tls)
    if policy.file is not None:
        policy = msgspec.structs.replace(policy, file=str(folder / policy.file))
    return msgspec.structs.replace(config, listen=listen, policy=policy)
