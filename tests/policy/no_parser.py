"""A stretch of a test in which this process may parse nothing."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def no_parser() -> Iterator[None]:
    """Whoever asks for it, Python's parser is behind `compile`; other processes have one of their own."""

    def parse(*arguments: object, **options: object) -> None:
        raise AssertionError("a text from outside reached the parser of this process")

    # An assertion that failed inside could not be told, since pytest parses the test to tell it: none may stand there.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "compile", parse)
        yield
