"""YAML as plain data that knows on which line each part of it stands."""

from __future__ import annotations

from typing import Any

import yaml

from autopoiesis.serve.config_problems import Place

FILE_BYTES = 2**20
NODES = 100_000
"""Of a file; more, with aliases counted as often as they are used, are no configuration."""
NUMBER = 64
"""Characters of the longest number that is read."""
TEXT = "tag:yaml.org,2002:str"
OTHERS = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "float", "int", "null")}


class Unreadable(Exception):
    """Nothing can be made of the file, because of something on a line."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class Tree:
    """The data of a file: mappings with names as keys, lists, texts, numbers, truth values and None."""

    def __init__(self, content: bytes) -> None:
        """Raises Unreadable."""
        self.lines: dict[Place, int] = {}
        self.wrong: list[tuple[int, str]] = []
        """Lines that are left out of the data, and why."""
        self._nodes = 0
        self._scalars = yaml.SafeLoader("")
        try:
            root = yaml.compose(_decoded(content), Loader=yaml.SafeLoader)
            self.data = {} if root is None else self._value(root, ())
        except RecursionError:
            raise Unreadable(1, "nested too deeply, or in a circle; write it flat and without aliases") from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            message = " ".join(", ".join(filter(None, (error.context, error.problem))).split())
            mend = "indent with spaces, and quote texts with special characters"
            raise Unreadable(1 if mark is None else mark.line + 1, f"not valid YAML: {message}; {mend}") from None

    def line(self, place: Place) -> int:
        """That of the place, or of the nearest thing around it that is in the file."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def _value(self, node: yaml.Node, place: Place) -> Any:
        line = node.start_mark.line + 1
        self._nodes += 1
        if self._nodes > NODES:
            raise Unreadable(line, "more values than a configuration has; write it without aliases")
        self.lines.setdefault(place, line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(part, (*place, index)) for index, part in enumerate(node.value)]
        if node.tag == TEXT:
            return node.value
        try:
            if node.tag in OTHERS and len(node.value) <= NUMBER:
                return self._scalars.construct_object(node)
        except (ValueError, LookupError):
            pass  # a text that was tagged as a number
        raise Unreadable(line, f"{dotted(place)}: is no number, truth value or text; quote it if it is a text")

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != TEXT:
                self.wrong.append((line, f"{dotted(place)}: the name of a field must be text; write `name: value`"))
            elif key.value in values:
                self.wrong.append((line, f"{dotted((*place, key.value))}: is given twice; leave one out"))
            else:
                self.lines[(*place, key.value)] = line
                values[key.value] = self._value(value, (*place, key.value))
        return values


def dotted(place: Place) -> str:
    """A place as operators write it: `replicas[0].url`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{_name(part)}" for part in place]
    return "".join(parts).removeprefix(".") or "the file"


def _name(text: str) -> str:
    return text if text.isidentifier() and len(text) <= 64 else repr(text[:64])


def _decoded(content: bytes) -> str:
    if len(content) > FILE_BYTES:
        raise Unreadable(1, f"longer than {FILE_BYTES} bytes; a configuration is shorter")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(content.count(b"\n", 0, error.start) + 1, "not UTF-8; save the file as UTF-8") from None
    control = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if control is not None:
        line = text.count("\n", 0, control.start()) + 1
        raise Unreadable(line, f"a control character, {control[0]!r}; take it out")
    return text
