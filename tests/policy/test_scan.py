"""What may reach Python's parser: texts at the limits parse quickly on a small stack, honest ones pass."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cpu_time import least_cpu_seconds
from hypothesis import given
from hypothesis import strategies as st

import autopoiesis
from autopoiesis.policy.refusal import Refusal
from autopoiesis.policy.scan import BLOCKS, BRACKETS, BRANCHES, CHAIN, TOKENS, scan
from autopoiesis.policy.source import SOURCE_BYTES, parse_policy

PACKAGE = Path(autopoiesis.__file__).parent

AT_THE_LIMIT = {
    "tokens": "x=1\n" * (TOKENS // 4),
    "tokens on one line": ("x=1;" * (TOKENS // 4))[:-1],
    "tokens in one bracket": "x = [" + "1," * (TOKENS // 2 - 10) + "]",
    "brackets": "x = " + "(" * BRACKETS + "1" + ")" * BRACKETS,
    "brackets over and over": ("x = " + "[" * BRACKETS + "]" * BRACKETS + "\n") * (TOKENS // (2 * BRACKETS + 4)),
    "calls": "f(" * BRACKETS + ")" * BRACKETS,
    "dict displays": "{1:" * BRACKETS + "1" + "}" * BRACKETS,
    "unclosed": "{a: f(" * (BRACKETS // 2),
    "signs": "x = " + "-" * (CHAIN - 1) + "1",
    "nots": "x = " + "not " * (CHAIN - 1) + "1",
    "sum": "x = 1" + "+1" * (CHAIN - 1),
    "powers": "x = 1" + "**1" * (CHAIN - 1),
    "dots": "x = a" + ".a" * (CHAIN - 1),
    "lambdas": "x = " + "lambda:" * (CHAIN // 2 - 1) + "1",
    "lambdas as defaults": "x = " + "lambda a, b=" * 40 + "1" + ": 1" * 40,
    "conditionals": "x = " + "1 if 1 else " * (CHAIN // 2 - 1) + "1",
    "elifs": "if a:\n  b\n" + "elif a:\n  b\n" * BRANCHES,
    "blocks": "".join(" " * i + "if 1:\n" for i in range(BLOCKS)) + " " * BLOCKS + "x\n",
    "f-string": "x = f'" + "{a}" * (TOKENS // 14) + "'",
    "f-string in f-string": "x = f'{f\"{a}\"}'",
    "strings": "x = " + "'a' " * (TOKENS - 10),
    "escapes": "x = '" + "\\N{DIGIT ONE}" * 5_000 + "'",
    "continued lines": "\\\n" * (SOURCE_BYTES // 2),
}

BEYOND = {
    "tokens": ("x = 1\n" * TOKENS, TOKENS // 4 + 1, "tokens"),
    "brackets": ("y = 1\nx = " + "(" * 31, 2, "brackets"),
    "brackets over lines": ("x = " + "(\n" * 31, 31, "brackets"),
    "signs": ("x = " + "-" * 101 + "1", 1, "operators"),
    "signs around brackets": ("x = " + ("-" * 9 + "(") * 12, 1, "operators"),
    "lambdas with commas": ("x = " + "lambda a, b=" * 120, 1, "operators"),
    "keywords after numbers": ("x = " + "1if 1else " * 60 + "1", 1, "operators"),
    "elifs": ("if a:\n  b\n" + "elif a:\n  b\n" * 101, 203, "`elif`"),
    "blocks of one blank": ("".join(" " * i + "if 1:\n" for i in range(40)), 22, "nested"),
    "code in an f-string": ("x = f'{" + "-" * 101 + "1}'", 1, "operators"),
    "code in an f-string of an f-string": ("x = f'{f\"{" + "-" * 101 + "1}\"}'", 1, "operators"),
    "code after a raw backslash": ("x = rf'\\{" + "-" * 101 + "1}'", 1, "operators"),
    "f-string cut by its quote": ("x = f'{a[' + ']}'", 1, "braces"),
    "comment in an f-string": ("x = f'''{a # }'''\n}'''", 1, "f-string"),
    "quote": ("x = 1\ny = '", 2, "never ends"),
    "quotes three": ('x = """' + '\\"""' * 10_000, 1, "never ends"),
    "values side by side": ("x = " + "a 1 " * 60, 1, "operators"),
    "dots after a number": ("x = 1." + ".a" * 110, 1, "operators"),
    "digits": ("x = " + "9" * 5_000, 1, "number"),
    "hexadecimal digits": ("x = 0x" + "f" * 60_000, 1, "number"),
    "closing": ("x = 1\nx = (]", 2, "closes"),
    "null": ("x = 1\ry = 2\r\nz = '\0'", 3, "control"),
    "text that runs backwards": ("x = 1  # \u202e", 1, "control"),
}


@pytest.mark.parametrize("text", AT_THE_LIMIT.values(), ids=AT_THE_LIMIT.keys())
def test_what_the_scan_admits_is_parsed_within_50_ms(text: str) -> None:
    assert scan(text) is None
    assert least_cpu_seconds(lambda: parse_policy(text)) < 0.05


def test_what_the_scan_admits_needs_no_deep_stack() -> None:
    program = """
import ast, json, sys, threading
def parse():
    for text in json.load(sys.stdin):
        try:
            ast.unparse(ast.parse(text))
        except SyntaxError:
            pass
    print("done")
threading.stack_size(512 * 1024)
thread = threading.Thread(target=parse)
thread.start()
thread.join()
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    ended = subprocess.run(command, input=json.dumps([*AT_THE_LIMIT.values()]), capture_output=True, text=True)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("done\n", "", 0)


@pytest.mark.parametrize(("text", "line", "why"), BEYOND.values(), ids=BEYOND.keys())
def test_what_is_beyond_is_refused_with_its_line(text: str, line: int, why: str) -> None:
    refusal = parse_policy(text)
    assert isinstance(refusal, Refusal)
    assert why in str(refusal)
    assert refusal.line == line
    assert least_cpu_seconds(lambda: parse_policy(text)) < 0.05


@pytest.mark.parametrize("part", ["'", '"', "\\", " ", "\n", "\t\\\n", "f'", "'\\", '"""\\', "{", "f'{{", "#"])
def test_the_scan_is_linear_in_hostile_quotes_and_blanks(part: str) -> None:
    text = (part * SOURCE_BYTES)[:SOURCE_BYTES]
    assert least_cpu_seconds(lambda: scan(text)) < 0.05


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("policy/**/*.py")), ids=lambda path: path.stem)
def test_ordinary_code_is_let_through(path: Path) -> None:
    assert scan(path.read_text(encoding="utf-8")) is None


def test_lookalikes_of_brackets_and_strings_are_not_taken_for_code() -> None:
    inside = "(" * 100 + "-" * 200
    for text in (f"x = '{inside}'", f"# {inside}", f'"""\n{inside}\n"""', f"x = b'{inside}'", f"x = f'{inside}{{a}}'"):
        assert scan(text) is None
    assert scan("x = f'{{{{' f\"{a['b']:>10}\" rb'\\'' '\\\n'") is None
    assert scan('x = ""\ny = ""' + "\nz = ''") is None


PIECES = [
    "(", ")", "[", "]", "{", "}", "'", '"', "'''", "f'", "rf\"", "b'", "\\", "\n", " ", "    ", "a", "1", "-", ".", ",",
    ":", "lambda ", "if ", "else ", "for ", "in ", "x = ", "#", "{{", "}}", "!r", ";", "1if ", "not ",
]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from([1, 1, 1, 2, 40, 150])), max_size=12))
def test_no_admitted_text_has_a_deep_tree(pieces: list[tuple[str, int]]) -> None:
    tree = parse_policy("".join(piece * count for piece, count in pieces))
    if isinstance(tree, ast.Module):
        assert depth(tree) <= 2 * (CHAIN + BRACKETS + BLOCKS) + BRANCHES


def depth(node: ast.AST) -> int:
    return 1 + max(map(depth, ast.iter_child_nodes(node)), default=0)
