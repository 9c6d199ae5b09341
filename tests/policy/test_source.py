"""A policy's identity is that of its meaning, and what cannot be read says why."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.errors import PolicyError
from autopoiesis.policy.source import SOURCE_BYTES, PolicySource, read_policy, unfit

PLAIN = '''"""Keep the plan.

More about it.
"""
interface = 1

def should_reschedule(state):
    """Never."""
    return False  # a comment

def plan(state):
    return None
'''

REFORMATTED = """interface=1
def should_reschedule( state ):


    return (False)
def plan(state): return None
"""


def identity(text: str) -> str:
    return PolicySource("p", text).identity


def test_layout_comments_and_docstrings_do_not_change_the_identity() -> None:
    assert identity(PLAIN) == identity(REFORMATTED)
    assert len(identity(PLAIN)) == 16
    assert int(identity(PLAIN), 16) >= 0


def test_a_changed_number_changes_the_identity() -> None:
    assert identity("x = 1") != identity("x = 2")


def test_the_name_is_no_part_of_the_identity() -> None:
    assert PolicySource("a", PLAIN).identity == PolicySource("b", PLAIN).identity


@given(st.lists(st.sampled_from(["a = 1", "b = 2.5", "def f(x):\n    return x * 2", "c = (1, 2)"]), max_size=5))
def test_blank_lines_and_comments_anywhere_at_top_level_keep_the_identity(statements: list[str]) -> None:
    assert identity("\n".join(statements)) == identity("# c\n\n" + "\n\n# c\n".join(statements) + "\n\n")


def test_a_function_that_was_only_a_docstring_still_has_an_identity() -> None:
    assert identity('def f():\n    "doc"\n') == identity("def f():\n    pass\n")


def test_the_summary_is_the_first_line_of_the_docstring() -> None:
    assert PolicySource("p", PLAIN).summary == "Keep the plan."
    assert PolicySource("p", REFORMATTED).summary == ""


def test_a_source_knows_its_top_level_functions() -> None:
    source = PolicySource("p", PLAIN + "\nclass A:\n    def route(self):\n        pass\n")
    assert source.has("plan")
    assert not source.has("route")


@pytest.mark.parametrize("text", ["def f(:", "x = \0", "(" * 5000, "x = \ud800"])
def test_a_source_that_does_not_parse_has_no_identity(text: str) -> None:
    with pytest.raises(PolicyError, match="line 1"):
        _ = PolicySource("p", text).identity


def test_an_integer_that_python_cannot_write_out_is_refused_before_it_is_parsed() -> None:
    assert identity(f"x = 0x{'f' * 98}\n")
    text = f"y = 1\nx = 0x{'f' * 5000}\n"
    refusal = unfit(text)
    assert refusal is not None
    assert refusal.line == 2
    with pytest.raises(PolicyError, match="more than 100 characters"):
        identity(text)


def test_the_line_of_a_syntax_error_is_named() -> None:
    with pytest.raises(PolicyError, match="line 3"):
        _ = PolicySource("p", "x = 1\ny = 2\nz ==== 3\n").identity


def test_a_file_is_read_under_its_stem(tmp_path: Path) -> None:
    path = tmp_path / "keep.py"
    path.write_text(PLAIN, encoding="utf-8")
    source = read_policy(path)
    assert (source.name, source.text) == ("keep", PLAIN)


def test_missing_undecodable_and_oversized_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        read_policy(tmp_path / "none.py")
    with pytest.raises(PolicyError, match="cannot be read"):
        read_policy(tmp_path)
    (tmp_path / "latin.py").write_bytes(b"x = 1\ny = '\xe9'\n")
    with pytest.raises(PolicyError, match="line 2: not UTF-8"):
        read_policy(tmp_path / "latin.py")
    (tmp_path / "big.py").write_text("#" * (SOURCE_BYTES + 1))
    with pytest.raises(PolicyError, match="larger than"):
        read_policy(tmp_path / "big.py")
