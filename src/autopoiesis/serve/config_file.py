"""Reads a gateway's configuration from YAML, and says on which lines what is wrong.

The schema is walked beside the data, section by section, so that one reading finds all that there is to mend.
"""

from __future__ import annotations

import typing
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from autopoiesis.errors import ConfigError, unknown_name
from autopoiesis.serve.config import Config, Section
from autopoiesis.serve.config_problems import Place, problems
from autopoiesis.serve.config_tree import FILE_BYTES, Tree, Unreadable, dotted
from autopoiesis.serve.config_values import FieldError

SAID = 50
"""Things to mend that one error names; whoever has more reads a wrong file."""

EXPECTED = {
    str: "a text; put it in quotes",
    int: "a whole number, without quotes",
    float: "a number such as 0.5, without quotes or an exponent",
    bool: "true or false, without quotes",
}


def read_config(path: str | Path) -> Config:
    """The configuration in a file; relative paths in it start from its folder.

    Raises ConfigError with a line for each thing to mend, by file, line and field.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no path"
        raise ConfigError(f"{path}: cannot be read: {reason}; give the path of a YAML file") from None
    return parse_config(content, str(path), path.parent)


def parse_config(content: bytes, name: str, folder: Path) -> Config:
    """As `read_config`, for a content that messages call `name`."""
    try:
        tree = Tree(content)
    except Unreadable as unreadable:
        raise _error(name, [(unreadable.line, unreadable.message)]) from None
    reading = _Reading()
    config: Config = reading.section(Config, tree.data, ())
    found = reading.found
    if not found:
        config = _from_folder(config, folder)
        found = problems(config)
    wrong = tree.wrong + [(tree.line(place), f"{dotted(place)}: {text}") for place, text in found]
    if wrong:
        raise _error(name, wrong)
    return config


def _error(name: str, wrong: list[tuple[int, str]]) -> ConfigError:
    lines = [f"{name}, line {line}: {text}" for line, text in sorted(wrong, key=itemgetter(0))]
    rest = len(lines) - SAID
    return ConfigError("\n".join(lines[:SAID] + [f"{name}: and {rest} more; mend these first"] * (rest > 0)))


class _Reading:
    """Makes sections of plain data, and notes down all that keeps it from doing so."""

    def __init__(self) -> None:
        self.found: list[tuple[Place, str]] = []

    def section(self, kind: type[Section], data: Any, place: Place) -> Any:
        """The section; UNSET where something is wrong with it."""
        if not isinstance(data, dict):
            empty = "is empty; leave it out, or give it fields"
            return self._wrong(place, empty if data is None else "must be a mapping of fields, each `name: value`")
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        before = len(self.found)
        values: dict[str, Any] = {}
        for name, part in data.items():
            if name in fields:
                values[name] = self._value(fields[name].type, part, (*place, name))
            else:
                self._wrong((*place, name), unknown_name("field", name[:64], fields))
        required = {name for name, field in fields.items() if field.required}
        for name in fields:
            if name in required - values.keys():
                self._wrong((*place, name), "is missing; add it")
        # What is wrong with one field must not hide what is wrong with the others.
        good = {name: value for name, value in values.items() if value is not msgspec.UNSET}
        made: Any = msgspec.UNSET
        if required <= good.keys():
            try:
                made = kind(**good)
            except FieldError as error:
                for name, text in error.problems:
                    self._wrong((*place, name), text)
        return made if len(self.found) == before else msgspec.UNSET

    def _value(self, kind: Any, data: Any, place: Place) -> Any:
        if typing.get_origin(kind) is tuple:
            if not isinstance(data, list):
                return self._wrong(place, "must be a list, each entry after a `-`, or [] for none")
            inner = typing.get_args(kind)[0]
            parts = tuple(self._value(inner, part, (*place, index)) for index, part in enumerate(data))
            return msgspec.UNSET if msgspec.UNSET in parts else parts
        if options := typing.get_args(kind):
            if data is None:
                return None
            (kind,) = (option for option in options if option is not type(None))
            return self._value(kind, data, place)
        if issubclass(kind, Section):
            return self.section(kind, data, place)
        try:
            return msgspec.convert(data, kind)
        except msgspec.ValidationError:
            return self._wrong(place, f"must be {EXPECTED[kind]}")

    def _wrong(self, place: Place, text: str) -> Any:
        self.found.append((place, text))
        return msgspec.UNSET


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
