r"""What a text must be to reach Python's parser: short, flat, and closed.

The parser and everything behind it walk the nesting of a text by recursion, and take time for every token. One pass
of a regular expression, without recursion, bounds both: no path from the root of the syntax tree is longer than the
limits below add up to. Where the pass cannot know the nesting it counts too much, never too little. It reads strings
as Python 3.11 does: one ends at its first closing quote, also within the braces of an f-string.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from autopoiesis.policy.refusal import Refusal

TOKENS = 8_000
"""Most names, numbers, strings, signs and line ends: the parser takes about 4 µs for each."""
FIELD_TOKENS = 8
"""What an expression in an f-string counts for: Python 3.11 starts a parser for each."""
BRACKETS = 30
"""Deepest nesting of brackets."""
CHAIN = 100
"""Most signs between two commas of a statement, those around the open brackets included: each may be a level."""
BLOCKS = 20
"""Deepest nesting of indented blocks."""
BRANCHES = 100
"""Most `elif`s of a module: each is nested in the one before."""
NUMBER_CHARS = 100
"""Longest number: Python cannot print an integer of more than 4300 digits, which a hexadecimal one can have."""

_STRING = r"""(?P<prefix>[rRbBuUfF]{0,2})(?:
    '''(?P<a>(?:[^\\]|\\.)*?)''' | \"\"\"(?P<b>(?:[^\\]|\\.)*?)\"\"\"
    | '(?!'')(?P<c>(?:[^'\\\r\n]|\\\r\n|\\.)*)' | "(?!"")(?P<d>(?:[^"\\\r\n]|\\\r\n|\\.)*)" )"""
_NUMBER = r"(?:[0-9][0-9_]*\.?|\.[0-9])[0-9_]*(?:[eE][+-]?[0-9][0-9_]*)?\w*"
_TOKEN = re.compile(
    rf"""(?P<space>(?:[ \t\f]|\\(?:\r\n|\r|\n))+) | (?P<comment>\#[^\r\n]*) | (?P<line>\r\n|\r|\n)
    | (?P<string>{_STRING}) | (?P<quote>['"]) | (?P<number>{_NUMBER}) | (?P<name>\w+)
    | (?P<open>[(\[{{]) | (?P<close>[)\]}}]) | (?P<comma>,) | (?P<sign>\*\*|//|<<|>>|->|[=!<>:+\-*/%&|^@]=|.)""",
    re.DOTALL | re.VERBOSE,
)
_LITERAL = re.compile(r"\{\{|\}\}|[^{}]+|[{}]")
_FIELD = re.compile(rf"(?P<string>{_STRING})|(?P<code>[^{{}}'\"\\#]+)|[{{}}]|(?P<bad>.)", re.DOTALL | re.VERBOSE)
_LINE_END = re.compile(r"\r\n|\r|\n")
_UNSEEN = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
_CLOSER = {"(": ")", "[": "]", "{": "}"}
_LEVELS = frozenset({"and", "await", "else", "for", "if", "in", "is", "lambda", "not", "or", "yield"})
"""Words between values."""
_VALUES = frozenset({"name", "number", "string"})
"""Kinds of tokens that are a value by themselves."""
_JOINED_WORD = re.compile(r"(?:and|else|for|if|in|is|not|or)$")
"""A word that may follow a number without a space."""


def scan(text: str) -> Refusal | None:
    """Why the text may not be parsed; None if it may. Takes some tenths of a microsecond per character."""
    unseen = _UNSEEN.search(text)
    if unseen is not None:
        why = f"holds the control character U+{ord(unseen.group()):04X}"
        return Refusal(_line_of(text, unseen.start()), "the text", why, "plain text, or an escape in a string")
    scanner = _Scanner()
    pending = [(text, 1)]
    try:
        while pending:
            code, line = pending.pop()
            pending += scanner.read(code, line)
    except _Found as found:
        return found.refusal
    return None


def _line_of(text: str, position: int) -> int:
    return 1 + len(_LINE_END.findall(text, 0, position))


class _Found(Exception):
    def __init__(self, line: int, construct: str, why: str, instead: str) -> None:
        self.refusal = Refusal(line, construct, why, instead)


@dataclass(slots=True)
class _Level:
    """An open bracket, or the statement itself."""

    closer: str
    before: int
    """Signs around it."""
    signs: int = 0
    """Signs in it since its last comma."""
    lambdas: int = 0
    """Of these, those that a comma does not end: the commas may be among their parameters."""


@dataclass(slots=True)
class _Scanner:
    tokens: int = 0
    branches: int = 0
    blocks: list[int] = field(default_factory=lambda: [0])
    """Columns of the blocks that are open."""

    def read(self, code: str, line: int) -> list[tuple[str, int]]:
        """Count one stretch of code that begins on `line`; the code inside its f-strings is left to be read."""
        fields: list[tuple[str, int]] = []
        stack = [_Level("", 0)]
        fresh = True
        value = ""
        """The kind of the token before, if it ends a value."""
        for match in _TOKEN.finditer(code):
            kind, token = match.lastgroup, match.group()
            if kind == "space":
                if "\\" in token:
                    line += len(_LINE_END.findall(token))
                continue
            if kind == "comment":
                continue
            if kind == "name" and token in _LEVELS:
                kind = "sign"
            self.tokens += 1
            if self.tokens > TOKENS:
                self._count(0, line)
            if kind == "line":
                line += 1
                if len(stack) == 1:
                    stack, fresh, value = [_Level("", 0)], True, ""
                continue
            if fresh:
                self._block(code, match.start(), line)
                fresh = False
            if kind == "name" and token != "elif":
                pass  # most tokens, and nothing to note of them
            elif kind == "close":
                if len(stack) == 1 or stack[-1].closer != token:
                    why = "closes another bracket than the last one opened"
                    raise _Found(line, f"`{token}`", why, "brackets in pairs")
                stack.pop()
            elif kind == "comma":
                stack[-1].signs = stack[-1].lambdas
            elif kind == "quote":
                raise _Found(line, "a string", "never ends", "its closing quote")
            elif kind == "string":
                if "f" in match["prefix"].lower():
                    fields.append((self._fields(match, line), line))
                line += len(_LINE_END.findall(token))
            else:
                self._read_token(kind, token, line, stack)
            # Values side by side are no Python, and yet the parser recurs over them to say what is missing.
            if value and kind in _VALUES and (value, kind) != ("string", "string"):
                self._sign(line, stack[-1])
            value = kind if kind in _VALUES or kind == "close" else ""
        return fields

    def _read_token(self, kind: str | None, token: str, line: int, stack: list[_Level]) -> None:
        level = stack[-1]
        if token == "elif":
            self.branches += 1
            if self.branches > BRANCHES:
                why = f"stands here more than {BRANCHES} times"
                raise _Found(line, "`elif`", why, "a dict or a list to look it up in")
        if kind == "name":
            return
        if kind == "number" and len(token) > NUMBER_CHARS:
            raise _Found(line, "a number", f"has more than {NUMBER_CHARS} characters", "a float such as `1e300`")
        if token == ";" and len(stack) == 1:
            level.signs = level.lambdas = 0
            return
        if kind == "number" and not _JOINED_WORD.search(token):
            return
        self._sign(line, level)
        level.lambdas += token == "lambda"
        if kind == "open":
            if len(stack) > BRACKETS:
                why = f"nests more than {BRACKETS} brackets"
                raise _Found(line, "a statement", why, "several statements with locals between them")
            stack.append(_Level(_CLOSER[token], level.before + level.signs))

    def _sign(self, line: int, level: _Level) -> None:
        level.signs += 1
        if level.before + level.signs > CHAIN:
            why = f"chains more than {CHAIN} operators, brackets and dots between two commas"
            raise _Found(line, "a statement", why, "several statements with locals between them")

    def _count(self, tokens: int, line: int) -> None:
        self.tokens += tokens
        if self.tokens > TOKENS:
            raise _Found(line, "the module", f"has more than {TOKENS} tokens up to here", "a shorter module")

    def _block(self, code: str, start: int, line: int) -> None:
        margin = code[
            max(code.rfind("\n", 0, start), code.rfind("\r", 0, start), code.rfind("\f", 0, start)) + 1 : start
        ]
        column = len(margin.expandtabs(8))
        while self.blocks[-1] > column:
            self.blocks.pop()
        if self.blocks[-1] < column:
            self.blocks.append(column)
        if len(self.blocks) > BLOCKS + 1:
            raise _Found(
                line, "a block", f"is nested more than {BLOCKS} deep", "functions, or conditions joined by `and`"
            )

    def _fields(self, match: re.Match[str], line: int) -> str:
        """The code between the braces of an f-string, each stretch in parentheses."""
        body = next(text for text in match.group("a", "b", "c", "d") if text is not None)
        code: list[str] = []
        level = position = 0
        while position < len(body):
            part = (_FIELD if level else _LITERAL).match(body, position)
            assert part is not None
            token, position = part.group(), part.end()
            if token == "{":
                level += 1
                code.append("(")
                self._count(FIELD_TOKENS, line)
            elif token == "}" and level > 0:
                level -= 1
                code.append(")" if level else "),")
            elif token == "}" or (level and part["bad"]):
                raise _Found(line, "an f-string", f"has `{token}` where none can stand", "a local for the value shown")
            elif level:
                code.append(token)
        if level:
            raise _Found(line, "an f-string", "ends within its braces", "the other quotes inside them")
        return "".join(code)
